-- Exact quantiles a little below and above: the limits within which a t-digest's answers must lie.
SELECT tumble(time, INTERVAL '10 minutes') AS window_start,
       labels['route'] AS route,
       percentile_cont(value, 0.48) AS p50_low, percentile_cont(value, 0.52) AS p50_high,
       percentile_cont(value, 0.94) AS p95_low, percentile_cont(value, 0.96) AS p95_high,
       percentile_cont(value, 0.98) AS p99_low, percentile_cont(value, 1.0) AS p99_high,
       percentile_cont(value, 0.48) AS median_low, percentile_cont(value, 0.52) AS median_high
FROM points
GROUP BY 1, 2
