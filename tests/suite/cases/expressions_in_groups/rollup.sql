-- Tags that are computed from labels and from the name.
CREATE MATERIALIZED VIEW classes AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       upper(substr(labels['host'], 1, 1)) AS rack,
       CASE WHEN name LIKE 'network.%' THEN 'network' ELSE 'other' END AS class,
       labels['host'] || '/' || coalesce(labels['interface'], '-') AS path,
       sum(value) AS sum
FROM points
GROUP BY 1, 2, 3, 4
