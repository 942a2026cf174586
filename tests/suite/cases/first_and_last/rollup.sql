-- By the order of time, whatever the order of arrival.
CREATE MATERIALIZED VIEW ends AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host,
       first_value(value ORDER BY time) AS first, last_value(value ORDER BY time) AS last,
       last_value(value ORDER BY time) - first_value(value ORDER BY time) AS change,
       last_value(value ORDER BY time) FILTER (WHERE value > 500) AS last_high,
       last_value(value ORDER BY value DESC, time) AS smallest
FROM points
GROUP BY 1, 2
