CREATE MATERIALIZED VIEW overflow
WITH (allowed_lateness = '10 minutes') AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host,
       sum(value) + 9223372036854775807 * 2 AS sum
FROM points
GROUP BY 1, 2
