CREATE MATERIALIZED VIEW pattern
WITH (allowed_lateness = '10 minutes') AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host,
       max(regexp_replace(name, '(?<=-)[0-9]+$', 'N')) AS last
FROM points
GROUP BY 1, 2
