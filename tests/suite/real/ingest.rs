//! What happens to the members of the `ingest` group, to its topics and to its storage, and changes
//! nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidemark_tests::duckdb::DuckDb;
use tidemark_tests::input::{Format, Generator, Point, heartbeats, messages};
use tidemark_tests::kafka::Message;
use tidemark_tests::tidemark::{Tidemark, metric};

use super::exactness::batch;
use super::{Body, Deployment, PATIENCE, Rows, Servers, assert_same};

const BY_HOST: &str = "CREATE MATERIALIZED VIEW by_host WITH (allowed_lateness = '1 hour') AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start, labels['host'] AS host,
       count(*) AS count, sum(value) AS sum, avg(value) AS avg, min(value) AS min, max(value) AS max
FROM points GROUP BY 1, 2";

/// Members are given up, and new partitions found, within seconds.
const QUICK: &str = r#"
[kafka.properties]
"session.timeout.ms" = 2000
"heartbeat.interval.ms" = 300
"topic.metadata.refresh.interval.ms" = 500
"#;

const OWNED: &str = "tidemark_ingest_partitions";

pub(super) fn trials() -> Vec<(&'static str, Body)> {
    vec![
        ("frozen_ingest_processes_that_wake_up_double_nothing", frozen),
        ("ingest_processes_that_come_and_go_change_nothing", come_and_go),
        ("partitions_added_at_run_time_are_read_from_their_beginning", added_partitions),
        ("a_partition_that_is_ahead_in_a_backlog_waits_for_the_others", ahead_in_a_backlog),
        ("storage_that_is_away_for_a_while_stops_no_ingest", storage_away),
        ("a_message_larger_than_a_fetch_is_refused_and_stops_nothing", large_message),
    ]
}

/// Points that come in over a while, and what is to be found in the end.
struct Stream {
    points: Vec<Point>,
    topic: String,
    partitions: usize,
}

impl Stream {
    fn new(servers: &Servers, name: &str, partitions: usize, points: usize) -> Self {
        let generator = Generator { hosts: 40, disorder: Duration::from_secs(60), ..Generator::default() };
        let topic = servers.kafka.unique_topic(name, partitions);
        Self { points: generator.points(points), topic, partitions }
    }

    /// Sends one of so many parts.
    fn send(&self, servers: &Servers, part: usize, parts: usize) {
        let size = self.points.len().div_ceil(parts);
        let points = &self.points[part * size..((part + 1) * size).min(self.points.len())];
        servers.kafka.produce(&self.topic, messages(points, self.partitions, Format::LineProtocol(20)));
    }

    fn close(&self, servers: &Servers) {
        let last = self.points.iter().map(|point| point.time).max().unwrap();
        servers.kafka.produce(&self.topic, heartbeats(last + 7_200_000_000_000, self.partitions));
    }
}

/// Waits until InfluxDB has every window, and compares.
fn assert_rollup(servers: &Servers, deployment: &Deployment, process: &mut Tidemark, points: &[Point]) {
    let expected: Rows = batch(BY_HOST, points);
    process.wait_until(PATIENCE, "all windows in influxdb", || {
        let found = servers.influx.rows(&deployment.id, "by_host").len();
        if found == expected.len() { Ok(()) } else { Err(format!("{found} of {}", expected.len())) }
    });
    assert_same(&servers.influx.rows(&deployment.id, "by_host"), &expected);
}

/// Another engine finds each point once. Values are eighths, so their sum is exact in any order.
fn assert_stored_once(storage: &Path, points: &[Point]) {
    let duckdb = DuckDb::find().expect("the other servers are there");
    let sql = format!(
        "SELECT count(*)::DOUBLE AS points, sum(value) AS total,
                count(DISTINCT (name, labels['host'], time))::DOUBLE AS places
         FROM read_parquet('{}/raw/**/*.parquet')",
        storage.display()
    );
    let row = &duckdb.query(&sql)[0];
    let number = |name: &str| row[name].as_f64().unwrap();
    let count = points.len() as f64;
    let total: f64 = points.iter().map(|point| point.value).sum();
    assert_eq!((number("points"), number("places"), number("total")), (count, count, total));
}

fn shared_storage(deployment: &Deployment) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::Builder::new().prefix(&deployment.id).tempdir().unwrap();
    let storage = folder.path().join("data");
    (folder, storage)
}

fn frozen(servers: &Servers) {
    let stream = Stream::new(servers, "frozen", 4, 60_000);
    let deployment = Deployment::new(servers, "frozen", &stream.topic, 4)
        .with("[archive]\nroll_age = \"1s\"\n")
        .with(QUICK);
    let (_folder, storage) = shared_storage(&deployment);
    let storage_text = storage.to_str().unwrap();
    let process = || deployment.process(storage_text, &[("by_host", BY_HOST)]);
    let (mut rollup, mut first, mut second) = (process(), process(), process());
    rollup.call(&["topics", "create"]);
    rollup.run("rollup");
    for process in [&mut first, &mut second] {
        process.spawn(&["run", "--roles", "ingest"], &[]);
    }
    first.wait_until_ready();
    second.wait_until_ready();
    for round in 0..4 {
        stream.send(servers, round, 4);
        let (frozen, other) =
            if round % 2 == 0 { (&mut first, &mut second) } else { (&mut second, &mut first) };
        frozen.wait_for_metric(PATIENCE, OWNED, &[], 1.0);
        // In the middle of its work: files, a transaction and an epoch are under way.
        frozen.signal("STOP");
        other.wait_for_metric(PATIENCE, OWNED, &[], 4.0);
        frozen.signal("CONT");
    }
    stream.close(servers);
    assert_rollup(servers, &deployment, &mut rollup, &stream.points);
    for process in [&mut first, &mut second, &mut rollup] {
        assert!(process.terminate().success(), "{}", process.log_text());
    }
    assert_stored_once(&storage, &stream.points);
}

fn come_and_go(servers: &Servers) {
    let stream = Stream::new(servers, "come-and-go", 6, 90_000);
    let deployment = Deployment::new(servers, "come-and-go", &stream.topic, 4)
        .with("[archive]\nroll_age = \"1s\"\n")
        .with(QUICK);
    let (_folder, storage) = shared_storage(&deployment);
    let storage_text = storage.to_str().unwrap();
    let process = || deployment.process(storage_text, &[("by_host", BY_HOST)]);
    let (mut steady, mut guest) = (process(), process());
    steady.call(&["topics", "create"]);
    steady.run("ingest,rollup");
    for round in 0..6 {
        guest.spawn(&["run", "--roles", "ingest,rollup"], &[]);
        stream.send(servers, round, 6);
        guest.wait_until_ready();
        if round % 2 == 0 {
            assert!(guest.terminate().success(), "{}", guest.log_text());
        } else {
            guest.kill9();
        }
    }
    stream.close(servers);
    assert_rollup(servers, &deployment, &mut steady, &stream.points);
    assert!(steady.terminate().success(), "{}", steady.log_text());
    assert_stored_once(&storage, &stream.points);
    let log = steady.log_text();
    assert!(!log.contains("starts again"), "a member that stays goes on through all of it\n{log}");
}

fn added_partitions(servers: &Servers) {
    let mut stream = Stream::new(servers, "added", 2, 20_000);
    let deployment = Deployment::new(servers, "added", &stream.topic, 4)
        .with("[archive]\nroll_age = \"1s\"\n")
        .with(QUICK);
    let mut tidemark = deployment.process("data", &[("by_host", BY_HOST)]);
    tidemark.call(&["topics", "create"]);
    tidemark.run("ingest,rollup");
    stream.send(servers, 0, 2);
    tidemark.wait_for_metric(PATIENCE, "tidemark_ingest_points_total", &[], 10_000.0);
    servers.kafka.add_partitions(&stream.topic, 5);
    stream.partitions = 5;
    stream.send(servers, 1, 2);
    stream.close(servers);
    assert_rollup(servers, &deployment, &mut tidemark, &stream.points);
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());
    assert_stored_once(&tidemark.directory().join("data"), &stream.points);
}

/// Five hours in two partitions, one of which has ten times as much to read: the other one would be
/// at their end at once, and all windows of these hours be open.
fn ahead_in_a_backlog(servers: &Servers) {
    const SECONDS: usize = 18_000;
    let topic = servers.kafka.unique_topic("ahead", 2);
    let generator = |hosts| Generator { hosts, interval: Duration::from_secs(1), ..Generator::default() };
    let (dense, sparse) = (generator(10).points(10 * SECONDS), generator(1).points(SECONDS));
    servers.kafka.produce(&topic, messages(&dense, 1, Format::LineProtocol(20)));
    let sparse_messages = messages(&sparse, 1, Format::LineProtocol(20));
    servers.kafka.produce(&topic, sparse_messages.map(|message| Message { partition: Some(1), ..message }));
    let end = dense.last().unwrap().time + 7_200_000_000_000;
    servers.kafka.produce(&topic, heartbeats(end, 2));

    let mut deployment = Deployment::new(servers, &topic, &topic, 2);
    deployment.config = deployment
        .config
        .replace("epoch_points = 1000", "epoch_points = 5000")
        .replace("idle_timeout", "max_drift = \"10m\"\nidle_timeout");
    let storage = tempfile::tempdir().unwrap();
    let mut process = deployment.process(storage.path().to_str().unwrap(), &[("by_host", BY_HOST)]);
    process.call(&["topics", "create"]);
    process.spawn(&["run", "--roles", "ingest,rollup"], &[]);
    process.wait_for_metric(PATIENCE, "tidemark_ingest_partitions_ahead", &[], 1.0);
    let points = [dense, sparse].concat();
    assert_rollup(servers, &deployment, &mut process, &points);
    process.wait_for_metrics(PATIENCE, "nobody to wait any more", |page| {
        match metric(page, "tidemark_ingest_partitions_ahead", &[]) {
            Some(0.0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert!(process.terminate().success(), "{}", process.log_text());
}

fn storage_away(servers: &Servers) {
    // Reading goes on until 4 MiB of points wait: 210,000 of them.
    let stream = Stream::new(servers, "away", 2, 240_000);
    let archive = "[archive]\nroll_age = \"1s\"\nroll_size = \"1MiB\"\n";
    let deployment = Deployment::new(servers, "away", &stream.topic, 4).with(archive).with(QUICK);
    let (mut rollup, mut ingest) = (
        deployment.process("data", &[("by_host", BY_HOST)]),
        deployment.process("data", &[("by_host", BY_HOST)]),
    );
    rollup.call(&["topics", "create"]);
    rollup.run("rollup");
    ingest.spawn(&["run", "--roles", "ingest"], &[("TIDEMARK_INGEST__EPOCH_POINTS", "50000")]);
    ingest.wait_until_ready();
    stream.send(servers, 0, 20);
    ingest.wait_for_metric(PATIENCE, "tidemark_archive_rows_total", &[], 1.0);
    let (data, away) = (ingest.directory().join("data"), ingest.directory().join("away"));
    fs::rename(&data, &away).unwrap();
    fs::write(&data, "in the way").unwrap();
    for part in 1..20 {
        stream.send(servers, part, 20);
    }
    stream.close(servers);
    ingest.wait_for_metric(PATIENCE, "tidemark_ingest_paused", &[], 1.0);
    let epochs = ingest.metric("tidemark_ingest_epochs_total", &[]).unwrap();
    ingest.wait_for_metric(PATIENCE, "tidemark_ingest_epochs_total", &[], epochs + 3.0);
    fs::remove_file(&data).unwrap();
    fs::rename(&away, &data).unwrap();
    assert_rollup(servers, &deployment, &mut rollup, &stream.points);
    for process in [&mut ingest, &mut rollup] {
        assert!(process.terminate().success(), "{}", process.log_text());
    }
    assert_stored_once(&data, &stream.points);
    assert!(!ingest.log_text().contains("starts again"), "{}", ingest.log_text());
}

fn large_message(servers: &Servers) {
    let stream = Stream::new(servers, "large", 1, 1_000);
    servers.kafka.set_property(&stream.topic, "max.message.bytes", "67108864");
    let deployment = Deployment::new(servers, "large", &stream.topic, 4);
    let mut tidemark = deployment.process("data", &[("by_host", BY_HOST)]);
    tidemark.call(&["topics", "create"]);
    stream.send(servers, 0, 2);
    // Beyond what one fetch asks for of a partition.
    let large = Message::new(0, vec![b'x'; 40 << 20]);
    servers.kafka.produce_with(&[("message.max.bytes", "67108864")], &stream.topic, [large]);
    stream.send(servers, 1, 2);
    stream.close(servers);
    tidemark.run("ingest,rollup");
    assert_rollup(servers, &deployment, &mut tidemark, &stream.points);
    let labels = [("reason", "oversize")];
    let refused = tidemark.metric("tidemark_ingest_rejected_total", &labels);
    assert_eq!(refused, Some(1.0), "{:?}", tidemark.metrics());
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());
}
