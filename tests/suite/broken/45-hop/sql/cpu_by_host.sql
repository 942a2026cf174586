CREATE MATERIALIZED VIEW cpu_by_host
WITH (tiers = '10m, 1h') AS
SELECT hop(time, INTERVAL '10 minutes', INTERVAL '1 minute') AS window_start,
       labels['host'] AS host,
       avg(value) AS avg
FROM points
GROUP BY 1, 2
