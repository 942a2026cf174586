-- Days of Berlin around both changes of the clocks, of 23 and of 25 hours.
CREATE MATERIALIZED VIEW day AS
SELECT tumble(time, INTERVAL '1 day', 'Europe/Berlin') AS day, labels['host'] AS host,
       count(*) AS points, sum(value) AS sum
FROM points GROUP BY 1, 2
