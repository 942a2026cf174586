-- CPU load of each host over the last ten minutes, a row a minute: for a curve, or an alert, that one busy minute should not
-- move much. A point is in ten windows; the state is kept once, by minute.
CREATE MATERIALIZED VIEW cpu_moving
WITH (allowed_lateness = '10 minutes') AS
SELECT hop(time, INTERVAL '10 minutes', INTERVAL '1 minute') AS window_start,
       labels['host']                                        AS host,
       avg(value)                                            AS avg,
       stddev(value)                                         AS stddev
FROM points
WHERE name = 'cpu.load' AND coalesce(labels['cpu'], 'total') = 'total'
GROUP BY 1, 2
