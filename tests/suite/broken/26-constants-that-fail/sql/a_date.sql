CREATE MATERIALIZED VIEW a_date
WITH (allowed_lateness = '10 minutes') AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host,
       count(*) FILTER (WHERE time > to_date('next week')) AS n
FROM points
GROUP BY 1, 2
