-- Bytes a second received and sent, by interface.
CREATE MATERIALIZED VIEW demo_network WITH (allowed_lateness = '30 seconds') AS
SELECT tumble(time, INTERVAL '10 seconds') AS window_start,
       labels['host'] AS host, labels['interface'] AS interface,
       avg(value) FILTER (WHERE name = 'network.rx') AS rx,
       avg(value) FILTER (WHERE name = 'network.tx') AS tx
FROM points
WHERE name = 'network.rx' OR name = 'network.tx'
GROUP BY 1, 2, 3
