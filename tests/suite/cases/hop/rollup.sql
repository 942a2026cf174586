-- Each point is in five windows; groups that HAVING refuses in one of them are kept in another.
CREATE MATERIALIZED VIEW moving
AS
SELECT hop(time, INTERVAL '10 minutes', INTERVAL '2 minutes') AS window_start,
       labels['host']                                         AS host,
       avg(value)                                             AS avg,
       last_value(value ORDER BY time)                        AS last,
       count(*) FILTER (WHERE labels['core'] = '0')           AS of_core_0,
       count(*)                                               AS points
FROM points
WHERE name = 'cpu.load'
GROUP BY 1, 2
HAVING avg(value) < 60
