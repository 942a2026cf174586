CREATE MATERIALIZED VIEW compared
WITH (allowed_lateness = '10 minutes') AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host,
       count(*) AS n
FROM points
WHERE labels['core'] = 5
GROUP BY 1, 2
