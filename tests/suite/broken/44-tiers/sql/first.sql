CREATE MATERIALIZED VIEW first
WITH (allowed_lateness = '10 minutes', tiers = '1h, 1d') AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host,
       avg(value) AS avg
FROM points
GROUP BY 1, 2
