-- Arithmetic over aggregates, with an aggregate that is used twice and one that is only used inside.
CREATE MATERIALIZED VIEW ratios AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host,
       max(value) - min(value) AS range,
       100 * sum(value) FILTER (WHERE name = 'errors') / nullif(sum(value), 0) AS error_percent,
       round(avg(value), 1) AS rounded,
       CASE WHEN max(value) > 90 THEN 'high' ELSE 'normal' END AS level,
       count(*) / 60.0 AS rate
FROM points
GROUP BY 1, 2
