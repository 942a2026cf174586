CREATE MATERIALIZED VIEW monthly
WITH (allowed_lateness = '10 minutes') AS
SELECT tumble(time, INTERVAL '1 month') AS window_start, avg(value) AS avg
FROM points
GROUP BY 1
