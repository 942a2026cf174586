CREATE MATERIALIZED VIEW field_time AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host, avg(value) AS time
FROM points
GROUP BY 1, 2
