CREATE MATERIALIZED VIEW twice
WITH (allowed_lateness = '10 minutes') AS
SELECT hop(time, INTERVAL '1 hour', INTERVAL '1 minute'), tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host,
       avg(value) AS avg
FROM points
GROUP BY 1, 2, 3
