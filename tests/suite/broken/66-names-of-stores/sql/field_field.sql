CREATE MATERIALIZED VIEW field_field AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host, avg(value) AS _field
FROM points
GROUP BY 1, 2
