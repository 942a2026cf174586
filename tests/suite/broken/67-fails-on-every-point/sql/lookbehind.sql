CREATE MATERIALIZED VIEW lookbehind AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       regexp_replace(labels['host'], '(?<=-)[0-9]+$', 'N') AS host, avg(value) AS avg
FROM points
GROUP BY 1, 2
