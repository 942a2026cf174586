-- Names and values that need quotes somewhere on their way.
CREATE MATERIALIZED VIEW odd AS
SELECT tumble(time, INTERVAL '1 minute') AS "window start",
       labels['data center'] AS "data center",
       labels['it''s'] AS "it's",
       labels['größe'],
       sum(value) AS "Sum of value"
FROM points
WHERE labels['k=v,x'] IS NULL OR labels['k=v,x'] <> 'a''b'
GROUP BY 1, 2, 3, 4
