-- Windows before 1970 round down as all others do.
CREATE MATERIALIZED VIEW old AS
SELECT tumble(time, INTERVAL '30 seconds') AS window_start, labels['host'] AS host, count(*) AS points, sum(value) AS sum
FROM points GROUP BY 1, 2
