-- A point without the label is in a group of its own; an empty label is the same as none.
CREATE MATERIALIZED VIEW places AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['region'] AS region, labels['zone'] AS zone,
       count(*) AS points, count(labels['host']) AS with_host, sum(value) AS sum
FROM points
GROUP BY 1, 2, 3
