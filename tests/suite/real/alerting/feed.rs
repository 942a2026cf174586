//! Sites and their points: event time that trials decide on.

use std::fmt::Write as _;

use serde_json::json;
use tidemark_tests::kafka::Message;

use super::super::{Deployment, Servers};

/// 5 January 2026, 00:00 UTC, in seconds: the start of the first window.
const START: i64 = 1_767_571_200;
/// Length of the windows of all rollups here, seconds.
pub(super) const WINDOW: i64 = 10;

/// One row a window, job and host, corrected for a minute.
pub(super) const LOAD: &str = "CREATE MATERIALIZED VIEW load WITH (allowed_lateness = '1 minute') AS
SELECT tumble(time, INTERVAL '10 seconds') AS window_start, labels['job'] AS job, labels['host'] AS host,
       avg(value) AS avg
FROM points WHERE name = 'load' GROUP BY 1, 2, 3";

/// A deployment over a topic of its own with one partition, whose event time is that of its newest
/// point.
pub(super) fn deployment(servers: &Servers, id: &str, topic: &str, partials_partitions: usize) -> Deployment {
    let mut deployment =
        Deployment::new(servers, id, topic, partials_partitions).without_influx().with_rules("alerts.toml");
    // Points come in order, so nothing has to be waited for.
    deployment.config = deployment.config.replace("[ingest]\n", "[ingest]\nmax_out_of_orderness = \"0s\"\n");
    // What a killed process held, partitions and an open transaction, is given up soon.
    deployment.with(
        "\n[archive]\nenabled = false\n\n[kafka.properties]\n\"session.timeout.ms\" = 6000\n\
         \"transaction.timeout.ms\" = 6000\n",
    )
}

/// Points by the number of their window, the first is 1, sent together.
#[derive(Debug, Default)]
pub(super) struct Feed(String);

impl Feed {
    /// A point of metric `name` within the window.
    pub(super) fn point(mut self, window: i64, name: &str, job: &str, host: &str, value: f64) -> Self {
        let at = START + (window - 1) * WINDOW + 1;
        let point = json!({ "name": name, "labels": { "job": job, "host": host }, "ts": at, "value": value });
        let _ = writeln!(self.0, "{point}");
        self
    }

    /// The same of `load`.
    pub(super) fn load(self, window: i64, job: &str, host: &str, value: f64) -> Self {
        self.point(window, "load", job, host, value)
    }

    /// Event time is at the window's end: it closes, and those before it.
    pub(super) fn close(mut self, window: i64) -> Self {
        let _ = writeln!(self.0, "{{\"heartbeat\":{}}}", START + window * WINDOW);
        self
    }

    /// A message a line, so that order is that of the partition.
    pub(super) fn send(self, servers: &Servers, topic: &str) {
        servers.kafka.produce(topic, self.0.lines().map(|line| Message::new(0, line)));
    }
}

/// The number of the window that ends at a time in nanoseconds.
pub(super) fn window(end: i64) -> i64 {
    (end / 1_000_000_000 - START) / WINDOW
}
