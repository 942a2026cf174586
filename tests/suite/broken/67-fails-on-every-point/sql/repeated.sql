CREATE MATERIALIZED VIEW repeated AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host, max(repeat('x', 2000000000)) AS long
FROM points
GROUP BY 1, 2
