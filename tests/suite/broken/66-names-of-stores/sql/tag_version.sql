CREATE MATERIALIZED VIEW tag_version AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS _version, avg(value) AS avg
FROM points
GROUP BY 1, 2
