-- Memory in use, in bytes.
CREATE MATERIALIZED VIEW demo_memory WITH (allowed_lateness = '30 seconds') AS
SELECT tumble(time, INTERVAL '10 seconds') AS window_start,
       labels['host'] AS host,
       avg(value) / 1048576 AS avg_mib, max(value) / 1048576 AS max_mib
FROM points
WHERE name = 'memory.used'
GROUP BY 1, 2
