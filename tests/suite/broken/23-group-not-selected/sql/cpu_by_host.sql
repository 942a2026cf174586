CREATE MATERIALIZED VIEW cpu_by_host
WITH (allowed_lateness = '10 minutes') AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       avg(value) AS avg, max(value) AS max
FROM points
GROUP BY tumble(time, INTERVAL '1 minute'), labels['host']
