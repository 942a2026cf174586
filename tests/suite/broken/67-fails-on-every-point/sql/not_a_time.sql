CREATE MATERIALIZED VIEW not_a_time AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host, count(*) FILTER (WHERE time > '2024-13-01') AS n
FROM points
GROUP BY 1, 2
