CREATE MATERIALIZED VIEW months
WITH (allowed_lateness = '10 minutes') AS
SELECT hop(time, INTERVAL '1 month', INTERVAL '1 day') AS window_start,
       labels['host'] AS host,
       avg(value) AS avg
FROM points
GROUP BY 1, 2
