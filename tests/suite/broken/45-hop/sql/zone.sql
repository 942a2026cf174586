CREATE MATERIALIZED VIEW zoned
WITH (allowed_lateness = '10 minutes') AS
SELECT hop(time, INTERVAL '1 day', INTERVAL '1 hour', 'Europe/Berlin') AS window_start,
       labels['host'] AS host,
       avg(value) AS avg
FROM points
GROUP BY 1, 2
