-- Averages, spreads and refused groups of longer windows are those of the points, not of the shorter windows.
CREATE MATERIALIZED VIEW load
WITH (tiers = '1m, 5m, 1h') AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host']                    AS host,
       avg(value)                        AS avg,
       stddev_pop(value)                 AS deviation,
       first_value(value ORDER BY time)  AS first,
       count(*) FILTER (WHERE value > 50) AS high,
       max(value) - min(value)           AS range,
       count(*)                          AS points
FROM points
WHERE name = 'cpu.load'
GROUP BY 1, 2
HAVING avg(value) < 60
