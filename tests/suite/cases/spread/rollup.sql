-- Second moments, of one value and of two.
CREATE MATERIALIZED VIEW spread AS
SELECT tumble(time, INTERVAL '5 minutes') AS window_start,
       labels['host'] AS host,
       stddev(value) AS stddev, stddev_pop(value) AS stddev_pop, var_samp(value) AS var_samp, var_pop(value) AS var_pop,
       covar_samp(value, TRY_CAST(labels['size'] AS DOUBLE)) AS covar_samp,
       covar_pop(value, TRY_CAST(labels['size'] AS DOUBLE)) AS covar_pop,
       corr(value, TRY_CAST(labels['size'] AS DOUBLE)) AS corr,
       regr_slope(value, TRY_CAST(labels['size'] AS DOUBLE)) AS slope,
       regr_intercept(value, TRY_CAST(labels['size'] AS DOUBLE)) AS intercept,
       regr_r2(value, TRY_CAST(labels['size'] AS DOUBLE)) AS r2,
       regr_count(value, TRY_CAST(labels['size'] AS DOUBLE)) AS regr_count
FROM points
GROUP BY 1, 2
