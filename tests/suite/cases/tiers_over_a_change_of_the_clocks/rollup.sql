-- Hours keep their length; quarters of a day and days follow the clock, and last an hour less or more twice a year.
CREATE MATERIALIZED VIEW requests
WITH (tiers = '1h, 6h, 1d') AS
SELECT tumble(time, INTERVAL '1 hour', 'Europe/Berlin') AS window_start,
       labels['region']                                 AS region,
       sum(value)                                       AS sum,
       avg(value)                                       AS avg,
       count(*)                                         AS points
FROM points
GROUP BY 1, 2
