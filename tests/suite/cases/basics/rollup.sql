-- What most rollups are made of; other metrics are left out.
CREATE MATERIALIZED VIEW cpu AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host,
       count(*) AS points, sum(value) AS sum, avg(value) AS avg, min(value) AS min, max(value) AS max
FROM points
WHERE name = 'cpu.load'
GROUP BY 1, 2
