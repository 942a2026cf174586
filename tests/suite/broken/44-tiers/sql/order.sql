CREATE MATERIALIZED VIEW ordered
WITH (tiers = '1m, 1d, 1h') AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host,
       avg(value) AS avg
FROM points
GROUP BY 1, 2
