-- Three rollups in one pass, each with labels of its own.
CREATE MATERIALIZED VIEW by_host AS
SELECT tumble(time, INTERVAL '30 seconds') AS window_start, labels['host'] AS host, avg(value) AS avg
FROM points WHERE name = 'cpu.load' GROUP BY 1, 2
