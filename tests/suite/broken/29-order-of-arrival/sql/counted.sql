CREATE MATERIALIZED VIEW counted
WITH (allowed_lateness = '10 minutes') AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host,
       count(value ORDER BY time) AS points
FROM points
GROUP BY 1, 2
