CREATE MATERIALIZED VIEW part AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       split_part(labels['host'], '.', 0) AS host, avg(value) AS avg
FROM points
GROUP BY 1, 2
