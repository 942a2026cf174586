CREATE MATERIALIZED VIEW cpu_by_host
WITH (allowed_lateness = '10 minutes') AS
SELECT labels['host'] AS host, avg(value) AS avg
FROM points
GROUP BY 1
