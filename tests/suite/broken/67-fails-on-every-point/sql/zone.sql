CREATE MATERIALIZED VIEW zone AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       to_char(time AT TIME ZONE 'Mars/Base', '%H') AS hour, avg(value) AS avg
FROM points
GROUP BY 1, 2
