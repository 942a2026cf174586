-- No points: no rows, and no error.
CREATE MATERIALIZED VIEW nothing AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start, labels['host'] AS host, count(*) AS points
FROM points GROUP BY 1, 2
