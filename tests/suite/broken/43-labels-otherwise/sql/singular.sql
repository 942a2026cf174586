CREATE MATERIALIZED VIEW singular AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       label['host'] AS host,
       avg(value) AS avg
FROM points
GROUP BY 1, 2
