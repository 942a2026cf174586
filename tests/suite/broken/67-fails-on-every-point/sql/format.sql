CREATE MATERIALIZED VIEW format AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       to_char(min(time), '%Q') AS first, avg(value) AS avg
FROM points
GROUP BY 1, 2
