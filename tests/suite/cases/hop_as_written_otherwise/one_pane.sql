CREATE MATERIALIZED VIEW one_pane AS
SELECT labels['host'] AS host, min(value) AS min, hop(time, INTERVAL '1 minute', INTERVAL '1 minute') AS minute
FROM points
GROUP BY 1, 3
