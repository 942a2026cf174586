-- Memory of each host, a row a minute: bytes used at most, the least available, and the share in use in per cent.
-- Several metrics meet in one row by FILTER; a host that does not send one of them has no value in its column.
CREATE MATERIALIZED VIEW memory_by_host
WITH (allowed_lateness = '10 minutes') AS
SELECT tumble(time, INTERVAL '1 minute')                   AS window_start,
       labels['host']                                      AS host,
       max(value) FILTER (WHERE name = 'memory.used')      AS used,
       min(value) FILTER (WHERE name = 'memory.available') AS available,
       100 * max(value) FILTER (WHERE name = 'memory.used')
           / max(value) FILTER (WHERE name = 'memory.total') AS used_percent
FROM points
WHERE name IN ('memory.used', 'memory.available', 'memory.total')
GROUP BY 1, 2
