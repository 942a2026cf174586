-- Aggregates over what may be null, and of nothing but nulls; texts as fields.
CREATE MATERIALIZED VIEW nulls AS
SELECT tumble(time, INTERVAL '20 seconds') AS window_start,
       labels['host'] AS host,
       count(*) AS points,
       count(nullif(value, 0)) AS not_zero,
       count(*) - count(labels['version']) AS without_version,
       avg(nullif(value, 0)) AS avg, min(nullif(value, 0)) AS min, sum(nullif(value, 0)) AS sum,
       stddev(nullif(value, 0)) AS stddev, bool_and(nullif(value, 0) > 1) AS above_one,
       approx_distinct(labels['version']) AS versions,
       min(labels['version']) AS oldest, max(labels['version']) AS newest
FROM points
GROUP BY 1, 2
