CREATE MATERIALIZED VIEW cpu_by_host
WITH (allowed_lateness = '10 minutes') AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host']                    AS host,
       avg(value)                        AS avg,
       max(value)                        AS max
FROM points
WHERE name = 'cpu.load'
GROUP BY 1, 2
