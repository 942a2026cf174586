CREATE MATERIALIZED VIEW month
WITH (allowed_lateness = '10 minutes') AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host,
       count(*) AS n
FROM points
WHERE time > '2024-13-01'
GROUP BY 1, 2
