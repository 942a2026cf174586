CREATE MATERIALIZED VIEW cpu_by_host
WITH (allowed_lateness = '10 minutes') AS
SELECT tumble(time, '1 minute') AS window_start, avg(value) AS avg
FROM points
GROUP BY 1
