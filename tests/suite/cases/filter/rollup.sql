-- Several metrics in one row; a group without points of one of them has no value there.
CREATE MATERIALIZED VIEW traffic AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host,
       sum(value) FILTER (WHERE name = 'network.rx') AS received,
       sum(value) FILTER (WHERE name = 'network.tx' AND labels['interface'] <> 'lo') AS sent,
       count(*) FILTER (WHERE value > 50) AS busy,
       avg(value) FILTER (WHERE value > 1000) AS never
FROM points
WHERE name LIKE 'network.%'
GROUP BY 1, 2
