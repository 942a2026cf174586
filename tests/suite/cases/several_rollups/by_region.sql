CREATE MATERIALIZED VIEW by_region AS
SELECT tumble(time, INTERVAL '1 hour') AS window_start, labels['region'] AS region, max(value) AS max, count(*) AS points
FROM points GROUP BY 1, 2
