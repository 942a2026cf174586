CREATE MATERIALIZED VIEW multiple
WITH (allowed_lateness = '10 minutes') AS
SELECT hop(time, INTERVAL '10 minutes', INTERVAL '3 minutes') AS window_start,
       labels['host'] AS host,
       avg(value) AS avg
FROM points
GROUP BY 1, 2
