CREATE MATERIALIZED VIEW division
WITH (allowed_lateness = '10 minutes') AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host,
       sum(value * (1 / 0)) AS sum
FROM points
GROUP BY 1, 2
