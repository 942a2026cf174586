-- Windows of a quarter of a second.
CREATE MATERIALIZED VIEW fast AS
SELECT tumble(time, INTERVAL '250 milliseconds') AS window_start, labels['host'] AS host, count(*) AS points, avg(value) AS avg
FROM points GROUP BY 1, 2
