-- Without tags: one row a window.
CREATE MATERIALIZED VIEW total AS
SELECT sum(value) AS sum, tumble(time, INTERVAL '1 minute') AS at
FROM points WHERE labels['host'] LIKE 'a%' GROUP BY tumble(time, INTERVAL '1 minute')
