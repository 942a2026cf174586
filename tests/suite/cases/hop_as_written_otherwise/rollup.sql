-- Without an alias, repeated in GROUP BY, in capitals, and with a window of one pane.
CREATE MATERIALIZED VIEW plain AS
SELECT HOP(time, INTERVAL '90 seconds', INTERVAL '30 seconds'), labels['host'], name AS metric, max(value) AS max
FROM points
GROUP BY HOP(time, INTERVAL '90 seconds', INTERVAL '30 seconds'), labels['host'], name
