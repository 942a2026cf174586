-- An empty text in a computed group column is null, as an empty label is no label.
CREATE MATERIALIZED VIEW domains AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       split_part(labels['host'], '.', 2) AS domain,
       CASE WHEN name LIKE '%.%' THEN split_part(name, '.', 2) ELSE '' END AS part,
       sum(value) AS sum,
       count(split_part(labels['host'], '.', 2)) AS named,
       count(*) AS points
FROM points
GROUP BY 1, 2, 3
HAVING count(*) > 0 AND coalesce(split_part(labels['host'], '.', 2), 'none') <> 'y'
