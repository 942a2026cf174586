-- The clock of Lord Howe changes by half an hour: an hour and a half around it last longer or shorter, and still tile time.
CREATE MATERIALIZED VIEW requests
WITH (tiers = '30m, 90m, 6h, 1d') AS
SELECT tumble(time, INTERVAL '30 minutes', 'Australia/Lord_Howe') AS window_start,
       labels['region'] AS region,
       max(value) AS max,
       count(*) AS points
FROM points
GROUP BY 1, 2
