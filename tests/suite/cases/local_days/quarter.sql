-- Quarters of local days.
CREATE MATERIALIZED VIEW quarter AS
SELECT tumble(time, INTERVAL '6 hours', 'Europe/Berlin') AS quarter, count(*) AS points
FROM points GROUP BY 1
