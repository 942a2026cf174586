-- Hourly CPU utilization of cloud instances, with its spread and 95th percentile, in per cent: for the recordings of the
-- Numenta Anomaly Benchmark, loaded with --file-pattern '(?<name>.+)_(?<instance>[^_]+)'.
CREATE MATERIALIZED VIEW utilization_by_instance
WITH (allowed_lateness = '1 hour') AS
SELECT tumble(time, INTERVAL '1 hour')                           AS window_start,
       name                                                      AS metric,
       labels['instance']                                        AS instance,
       avg(value)                                                AS avg,
       stddev(value)                                             AS stddev,
       approx_percentile_cont(0.95) WITHIN GROUP (ORDER BY value) AS p95,
       max(value)                                                AS max
FROM points
WHERE name IN ('ec2_cpu_utilization', 'rds_cpu_utilization')
GROUP BY 1, 2, 3
