-- Windows whose borders do not fit the change of the clock, over 3 November 2024.
CREATE MATERIALIZED VIEW requests AS
SELECT tumble(time, INTERVAL '90 minutes', 'America/New_York') AS window_start,
       labels['region'] AS region,
       max(value) AS max,
       count(*) AS points
FROM points
GROUP BY 1, 2
