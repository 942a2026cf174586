-- Exact weighted quantiles below and above the median, far enough for groups of a few points.
SELECT window_start, host,
       coalesce(max(value) FILTER (WHERE weight <= 0.25 * total), min(value)) AS weighted_low,
       coalesce(min(value) FILTER (WHERE weight >= 0.75 * total), max(value)) AS weighted_high
FROM (
  SELECT tumble(time, INTERVAL '30 seconds') AS window_start, labels['host'] AS host, value,
         sum(CAST(labels['size'] AS DOUBLE)) OVER (
           PARTITION BY tumble(time, INTERVAL '30 seconds'), labels['host'] ORDER BY value) AS weight,
         sum(CAST(labels['size'] AS DOUBLE)) OVER (
           PARTITION BY tumble(time, INTERVAL '30 seconds'), labels['host']) AS total
  FROM points
)
GROUP BY 1, 2
