-- The rest of what DataFusion has and can merge.
CREATE MATERIALIZED VIEW more AS
SELECT tumble(time, INTERVAL '30 seconds') AS window_start,
       labels['host'] AS host,
       mean(value) AS mean, var(value) AS var, stddev_samp(value) AS stddev_samp, covar(value, value) AS covar,
       regr_avgx(value, TRY_CAST(labels['size'] AS DOUBLE)) AS avgx, regr_avgy(value, TRY_CAST(labels['size'] AS DOUBLE)) AS avgy,
       regr_sxx(value, TRY_CAST(labels['size'] AS DOUBLE)) AS sxx, regr_syy(value, TRY_CAST(labels['size'] AS DOUBLE)) AS syy,
       regr_sxy(value, TRY_CAST(labels['size'] AS DOUBLE)) AS sxy,
       approx_percentile_cont_with_weight(value, TRY_CAST(labels['size'] AS DOUBLE), 0.5) AS weighted,
       sum(TRY_CAST(labels['size'] AS BIGINT)) AS sizes, min(TRY_CAST(labels['size'] AS INT)) AS smallest,
       sum(value ORDER BY time) AS ordered,
       first_value(labels['size'] ORDER BY time, value) AS first_size,
       last_value(nullif(value, 0) ORDER BY time) IGNORE NULLS AS last_not_zero,
       approx_distinct(CAST(value AS VARCHAR)) AS values
FROM points
GROUP BY 1, 2
