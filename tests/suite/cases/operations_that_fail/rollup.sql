-- Operations that fail on some rows, floats that are not finite, whole numbers that overflow: null, for their row alone.
CREATE MATERIALIZED VIEW failing AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host,
       sqrt(max(value) - 4) AS root,
       sum(value) FILTER (WHERE name = 'errors') / (max(value) - 5) AS ratio,
       100 / (count(*) FILTER (WHERE value > 20)) AS share,
       coalesce(100 / (count(*) FILTER (WHERE value > 20)), 0) AS share_or_zero,
       count(*) * 9223372036854775807 AS overflow,
       max(CAST(labels['size'] AS DOUBLE)) AS largest,
       min(CAST(labels['size'] AS BIGINT)) AS smallest_whole,
       min(ln(value)) AS log,
       count(*) FILTER (WHERE NOT (1 / value < 0.2)) AS slow,
       count(*) AS points
FROM points
WHERE labels['host'] <> 'b2' OR value / (value - value) < 1 OR CAST(labels['size'] AS INT) = 3
GROUP BY 1, 2
HAVING NOT (sum(value) / (max(value) - 21.25) < -1000000)
