CREATE MATERIALIZED VIEW any
WITH (allowed_lateness = '10 minutes') AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host,
       any_value(value) AS some
FROM points
GROUP BY 1, 2
