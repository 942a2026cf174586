-- Group columns that a constant or another group column decides are columns of the state all the same.
CREATE MATERIALIZED VIEW by_site WITH (allowed_lateness = '1 day') AS
SELECT 'prod' AS env,
       tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host,
       upper(labels['host']) AS shouted,
       avg(value) AS avg, count(*) AS points
FROM points
GROUP BY 1, 2, 3, 4
