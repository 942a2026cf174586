-- Conditions that held always or once, and bits of whole numbers.
CREATE MATERIALIZED VIEW flags AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start,
       labels['host'] AS host,
       bool_and(value > 3) AS always, bool_or(value > 250) AS once,
       bit_and(TRY_CAST(value AS BIGINT)) AS bits_and, bit_or(TRY_CAST(value AS BIGINT)) AS bits_or,
       bit_xor(TRY_CAST(value AS BIGINT)) AS bits_xor
FROM points
GROUP BY 1, 2
