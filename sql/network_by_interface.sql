-- Traffic of each network interface, a row a minute: bytes a second received and sent, mean and peak.
-- The loopback interface and interfaces without any traffic are left out.
CREATE MATERIALIZED VIEW network_by_interface
WITH (allowed_lateness = '10 minutes') AS
SELECT tumble(time, INTERVAL '1 minute')             AS window_start,
       labels['host']                                AS host,
       labels['interface']                           AS interface,
       avg(value) FILTER (WHERE name = 'network.rx') AS rx_avg,
       max(value) FILTER (WHERE name = 'network.rx') AS rx_max,
       avg(value) FILTER (WHERE name = 'network.tx') AS tx_avg,
       max(value) FILTER (WHERE name = 'network.tx') AS tx_max
FROM points
WHERE name IN ('network.rx', 'network.tx') AND labels['interface'] <> 'lo'
GROUP BY 1, 2, 3
HAVING max(value) > 0
