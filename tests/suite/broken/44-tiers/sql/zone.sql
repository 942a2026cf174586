CREATE MATERIALIZED VIEW zoned
WITH (tiers = '1h, 1d, 7d') AS
SELECT tumble(time, INTERVAL '1 hour', 'Europe/Berlin') AS window_start,
       labels['host'] AS host,
       avg(value) AS avg
FROM points
GROUP BY 1, 2
