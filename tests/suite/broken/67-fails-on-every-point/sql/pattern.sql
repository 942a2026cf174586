CREATE MATERIALIZED VIEW pattern AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host, count(*) FILTER (WHERE name SIMILAR TO '(') AS n
FROM points
GROUP BY 1, 2
