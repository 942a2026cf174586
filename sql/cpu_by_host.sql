-- CPU load of each host, a row a minute: mean, highest, and the number of samples. In per cent of the whole machine.
-- Points of single cores carry their number in `cpu`; those of the machine carry 'total', or no `cpu` at all.
CREATE MATERIALIZED VIEW cpu_by_host
WITH (allowed_lateness = '10 minutes') AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host']                    AS host,
       avg(value)                        AS avg,
       max(value)                        AS max,
       count(*)                          AS points
FROM points
WHERE name = 'cpu.load' AND coalesce(labels['cpu'], 'total') = 'total'
GROUP BY 1, 2
