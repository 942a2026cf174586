-- Space on each disk of each host, a row every five minutes: the bytes used and available when the window ended.
-- `disk` is where the disk is mounted.
CREATE MATERIALIZED VIEW disk_by_mount
WITH (allowed_lateness = '30 minutes') AS
SELECT tumble(time, INTERVAL '5 minutes')                                  AS window_start,
       labels['host']                                                      AS host,
       labels['disk']                                                      AS disk,
       last_value(value ORDER BY time) FILTER (WHERE name = 'disk.used')      AS used,
       last_value(value ORDER BY time) FILTER (WHERE name = 'disk.available') AS available
FROM points
WHERE name IN ('disk.used', 'disk.available')
GROUP BY 1, 2, 3
