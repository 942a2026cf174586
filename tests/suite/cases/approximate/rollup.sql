-- Sketches: quantiles in both spellings, and the number of different hosts.
CREATE MATERIALIZED VIEW latency AS
SELECT tumble(time, INTERVAL '10 minutes') AS window_start,
       labels['route'] AS route,
       approx_percentile_cont(value, 0.5) AS p50,
       approx_percentile_cont(0.95) WITHIN GROUP (ORDER BY value) AS p95,
       approx_percentile_cont(value, 0.99, 200) AS p99,
       approx_median(value) AS median,
       approx_distinct(labels['host']) AS hosts,
       count(*) AS points
FROM points
GROUP BY 1, 2
