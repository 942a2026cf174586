CREATE MATERIALIZED VIEW unit AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host, max(date_trunc('weeks', time)) = min(time) AS late
FROM points
GROUP BY 1, 2
