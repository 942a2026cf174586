-- CPU load of each host, a row a minute, an hour and a day: mean, highest, and the number of samples. In per cent of the
-- whole machine. Hours and days are made of the same states as minutes: the mean of a day is that of its samples.
-- Points of single cores carry their number in `cpu`; those of the machine carry 'total', or no `cpu` at all.
CREATE MATERIALIZED VIEW cpu_by_host
WITH (tiers = '1m, 1h, 1d', allowed_lateness = '10 minutes') AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host']                    AS host,
       avg(value)                        AS avg,
       max(value)                        AS max,
       count(*)                          AS points
FROM points
WHERE name = 'cpu.load' AND coalesce(labels['cpu'], 'total') = 'total'
GROUP BY 1, 2
