-- Requests that each load balancer took in a day, and in its busiest five minutes: for the recordings of the Numenta
-- Anomaly Benchmark. With a time zone a day is a local day, of 23 or 25 hours when the clocks change.
CREATE MATERIALIZED VIEW requests_by_day
WITH (allowed_lateness = '1 day') AS
SELECT tumble(time, INTERVAL '1 day', 'America/New_York') AS day,
       labels['instance']                                 AS balancer,
       sum(value)                                         AS requests,
       max(value)                                         AS busiest,
       count(*)                                           AS points
FROM points
WHERE name = 'elb_request_count'
GROUP BY 1, 2
