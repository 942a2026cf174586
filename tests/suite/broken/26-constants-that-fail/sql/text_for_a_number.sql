CREATE MATERIALIZED VIEW text_for_a_number
WITH (allowed_lateness = '10 minutes') AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host,
       count(*) AS n
FROM points
WHERE value > 'abc'
GROUP BY 1, 2
