CREATE MATERIALIZED VIEW typo
WITH (tier = '1m, 1h') AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host,
       avg(value) AS avg
FROM points
GROUP BY 1, 2
