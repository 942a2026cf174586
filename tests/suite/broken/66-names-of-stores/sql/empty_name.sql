CREATE MATERIALIZED VIEW empty_name AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS "", avg(value) AS avg
FROM points
GROUP BY 1, 2
