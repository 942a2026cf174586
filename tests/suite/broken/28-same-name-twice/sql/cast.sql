CREATE MATERIALIZED VIEW cast
WITH (allowed_lateness = '10 minutes') AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host,
       avg(value) AS a, avg(CAST(value AS REAL)) AS b
FROM points
GROUP BY 1, 2
