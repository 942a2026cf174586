SELECT tumble(time, INTERVAL '1 minute'), avg(value) FROM points GROUP BY 1
