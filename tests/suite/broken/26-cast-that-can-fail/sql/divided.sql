CREATE MATERIALIZED VIEW divided
WITH (allowed_lateness = '10 minutes') AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host,
       count(*) / count(labels['core']) AS ratio
FROM points
GROUP BY 1, 2
