CREATE MATERIALIZED VIEW zero_bin AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       to_char(date_bin(INTERVAL '0 minutes', time), '%H') AS bin, avg(value) AS avg
FROM points
GROUP BY 1, 2
