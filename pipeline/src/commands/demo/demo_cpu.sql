-- The load of all cores together, in percent.
CREATE MATERIALIZED VIEW demo_cpu WITH (allowed_lateness = '30 seconds') AS
SELECT tumble(time, INTERVAL '10 seconds') AS window_start,
       labels['host'] AS host,
       avg(value) AS avg, max(value) AS max, count(*) AS points
FROM points
WHERE name = 'cpu.load' AND labels['cpu'] = 'total'
GROUP BY 1, 2
