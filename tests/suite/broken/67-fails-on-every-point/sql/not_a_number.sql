CREATE MATERIALIZED VIEW not_a_number AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host, count(*) FILTER (WHERE value > 'abc') AS n
FROM points
GROUP BY 1, 2
