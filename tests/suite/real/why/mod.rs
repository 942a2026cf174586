//! `tidemark why` on pipelines that are held up, each in its own way: the right partition and the
//! right reason, word for word. Numbers that differ from run to run are masked.

mod mask;

use std::time::Duration;

use serde_json::Value;
use tidemark_tests::influx::Influx;
use tidemark_tests::input::NEW_YEAR;
use tidemark_tests::kafka::Message;
use tidemark_tests::tidemark::Tidemark;
use tidemark_tests::wait_until;

use super::{Body, Deployment, PATIENCE, Servers};
use crate::golden;

const BY_HOST: &str = "CREATE MATERIALIZED VIEW by_host WITH (allowed_lateness = '10 minutes') AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start, labels['host'] AS host, count(*) AS count
FROM points GROUP BY 1, 2";

const SECOND: i64 = 1_000_000_000;

pub(super) fn trials() -> Vec<(&'static str, Body)> {
    vec![
        ("why::unread_messages", unread_messages),
        ("why::no_owner_and_a_frozen_one", no_owner_and_a_frozen_one),
        ("why::no_point_yet", no_point_yet),
        ("why::points_dated_in_the_future", points_dated_in_the_future),
        ("why::influxdb_is_down", influxdb_is_down),
        ("why::a_correction_and_points_too_late", a_correction_and_points_too_late),
        ("why::nobody_runs_rollup", nobody_runs_rollup),
    ]
}

/// A deployment with two source partitions and one rollup partition, in which no partition becomes
/// idle.
struct Stage {
    deployment: Deployment,
    topic: String,
}

impl Stage {
    fn new(servers: &Servers, name: &str) -> Self {
        let topic = servers.kafka.unique_topic(name, 2);
        let mut deployment = Deployment::new(servers, name, &topic, 1);
        deployment.config = deployment.config.replace("idle_timeout = \"60s\"", "idle_timeout = \"30m\"");
        Self { deployment, topic }
    }

    fn process(&self, storage: &str) -> Tidemark {
        self.deployment.process(storage, &[("by_host", BY_HOST)])
    }

    /// Asks `asked` until the summary has `reason`, compares the whole text with `<name>.txt`, and
    /// makes sure that HTTP gives the same `cause`.
    #[track_caller]
    fn check(&self, name: &str, asked: &Tidemark, arguments: &[&str], reason: &str, cause: &str) {
        let mut line = vec!["why", "by_host"];
        line.extend(arguments);
        let text = wait_until(PATIENCE, reason, || {
            let text = asked.call(&line);
            match text.lines().next().unwrap_or_default().contains(reason) {
                true => Ok(text),
                false => Err(format!("{text}\n{}", asked.log_text())),
            }
        });
        // A backlog that is being read: another question would find other times.
        let moves = cause == "unread_messages";
        let names = [(&self.topic, "points"), (&self.deployment.id, "id")];
        let path = golden::suite("real/why").join(format!("{name}.txt"));
        if let Err(failed) = golden::check_text(&path, &mask::masked(&text, &names, moves)) {
            panic!("{}\nunmasked\n{text}", failed.message().unwrap_or_default());
        }
        let window = arguments.iter().skip_while(|argument| **argument != "--window").nth(1);
        let query = window.map_or(String::new(), |window| format!("?window={window}"));
        let answer = asked.page(&format!("/api/why/by_host{query}")).unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["cause"], cause, "{answer:#}");
        if !moves {
            let json: Value = serde_json::from_str(&asked.call(&[&line[..], &["--json"]].concat())).unwrap();
            assert_eq!(json["cause"], cause, "{json:#}");
        }
    }
}

/// A message with one point, `seconds` after the New Year.
fn point(partition: i32, seconds: i64) -> Message {
    dated(partition, NEW_YEAR + seconds * SECOND)
}

fn dated(partition: i32, time: i64) -> Message {
    let host = format!("host-{partition}");
    Message::new(partition, format!(r#"{{"name":"cpu","labels":{{"host":"{host}"}},"ts":{time},"value":1}}"#))
}

/// Waits until the watermark of the only rollup partition is so many seconds after the New Year.
#[track_caller]
fn wait_for_watermark(rollup: &mut Tidemark, seconds: i64) {
    let enough = (NEW_YEAR / SECOND + seconds) as f64;
    rollup.wait_for_metric(PATIENCE, "tidemark_rollup_watermark_seconds", &[], enough);
    wait_for_checkpoint(rollup);
}

/// Before the first, the answers say that nothing was ever stored.
fn wait_for_checkpoint(rollup: &mut Tidemark) {
    rollup.wait_for_metric(PATIENCE, "tidemark_rollup_checkpoints_total", &[], 1.0);
}

/// One partition has a backlog that takes many small epochs to read.
fn unread_messages(servers: &Servers) {
    let stage = Stage::new(servers, "why-unread");
    servers.kafka.produce(&stage.topic, [point(0, 1_200)]);
    let backlog = (0..400_000).map(|number| dated(1, NEW_YEAR + number * 1_000_000));
    servers.kafka.produce(&stage.topic, backlog);
    let mut tidemark = stage.process("data");
    tidemark.call(&["topics", "create"]);
    tidemark.run("ingest,rollup");
    wait_for_watermark(&mut tidemark, 0);
    stage.check("unread_messages", &tidemark, &[], "still to read and reads", "unread_messages");
}

fn no_owner_and_a_frozen_one(servers: &Servers) {
    let stage = Stage::new(servers, "why-owner");
    servers.kafka.produce(&stage.topic, [point(0, 210), point(1, 150)]);
    let storage = tempfile::tempdir().unwrap();
    let storage = storage.path().to_str().unwrap();
    let (mut ingest, mut rollup) = (stage.process(storage), stage.process(storage));
    ingest.call(&["topics", "create"]);
    ingest.run("ingest");
    rollup.run("rollup");
    wait_for_watermark(&mut rollup, 145);

    // A frozen process stays in the group until its session is over.
    ingest.signal("STOP");
    // The newest comes first: the process may end before it has read the others.
    servers.kafka.produce(&stage.topic, [point(1, 240), point(1, 230), point(1, 220)]);
    stage.check("frozen_owner", &rollup, &[], "does not report it", "owner_silent");
    ingest.signal("CONT");
    wait_for_watermark(&mut rollup, 205);

    assert!(ingest.terminate().success(), "{}", ingest.log_text());
    servers.kafka.produce(&stage.topic, [point(0, 250), point(0, 260), point(0, 270), point(1, 280)]);
    stage.check("no_owner", &rollup, &[], "no process runs `ingest`", "no_owner");
}

fn no_point_yet(servers: &Servers) {
    let stage = Stage::new(servers, "why-empty");
    servers.kafka.produce(&stage.topic, [point(0, 30), point(0, 90)]);
    let mut tidemark = stage.process("data");
    tidemark.call(&["topics", "create"]);
    tidemark.run("ingest,rollup");
    wait_for_checkpoint(&mut tidemark);
    stage.check("no_point_yet", &tidemark, &[], "has given no point yet", "no_point_yet");
}

fn points_dated_in_the_future(servers: &Servers) {
    let stage = Stage::new(servers, "why-future");
    let year_2100 = 4_102_444_800 * SECOND;
    servers.kafka.produce(&stage.topic, [point(0, 30), point(0, 180), point(1, 40)]);
    let mut tidemark = stage.process("data");
    tidemark.call(&["topics", "create"]);
    tidemark.run("ingest,rollup");
    wait_for_watermark(&mut tidemark, 35);
    servers.kafka.produce(&stage.topic, (0..3).map(|number| dated(1, year_2100 + number)));
    let labels = [("topic", stage.topic.as_str()), ("partition", "1")];
    let future = tidemark.wait_for_metric(PATIENCE, "tidemark_ingest_future_points_total", &labels, 3.0);
    assert_eq!(future, 3.0);
    stage.check("future_points", &tidemark, &[], "only points dated in the future", "future_points");
}

fn influxdb_is_down(servers: &Servers) {
    let own = Servers { kafka: servers.kafka, influx: Influx::start().expect("the other servers are there") };
    let stage = Stage::new(&own, "why-influx");
    servers.kafka.produce(&stage.topic, [point(0, 10), point(1, 10), point(0, 70), point(1, 70)]);
    let mut tidemark = stage.process("data");
    tidemark.call(&["topics", "create"]);
    tidemark.run("ingest,rollup");
    // There is no bucket before the role has connected.
    wait_for_watermark(&mut tidemark, 65);
    tidemark.wait_until(PATIENCE, "the first window in influxdb", || {
        let found = own.influx.rows(&stage.deployment.id, "by_host").len();
        if found == 2 { Ok(()) } else { Err(format!("{found} rows")) }
    });
    own.influx.kill9();
    servers.kafka.produce(&stage.topic, [point(0, 130), point(1, 130)]);
    wait_for_watermark(&mut tidemark, 125);
    stage.check("influxdb_down", &tidemark, &[], "results are not written", "sink_unavailable");
    let window = ["--window", "2026-01-01T00:01:00Z"];
    stage.check("influxdb_down_window", &tidemark, &window, "are not written", "sink_unavailable");
    own.influx.restart();
    stage.check("written", &tidemark, &window, "stored and not changed since", "closed");
}

fn a_correction_and_points_too_late(servers: &Servers) {
    let stage = Stage::new(servers, "why-late");
    servers.kafka.produce(&stage.topic, [point(0, 10), point(1, 20), point(0, 180), point(1, 190)]);
    let mut tidemark = stage.process("data");
    tidemark.call(&["topics", "create"]);
    tidemark.run("ingest,rollup");
    wait_for_watermark(&mut tidemark, 175);

    servers.kafka.produce(&stage.topic, [point(1, 30)]);
    let window = ["--window", "2026-01-01T00:00:30Z"];
    stage.check("corrected", &tidemark, &window, "late points have changed it once", "corrected");

    // The first window is final at 00:11.
    servers.kafka.produce(&stage.topic, [point(0, 900), point(1, 900)]);
    wait_for_watermark(&mut tidemark, 895);
    // In one message, and so in one epoch.
    let both = [point(0, 40).payload, point(0, 41).payload].join(&b'\n');
    servers.kafka.produce(&stage.topic, [Message::new(0, both)]);
    stage.check("too_late", &tidemark, &window, "came after it was final", "late_points");
}

fn nobody_runs_rollup(servers: &Servers) {
    let stage = Stage::new(servers, "why-rollup");
    servers.kafka.produce(&stage.topic, [point(0, 70), point(1, 80)]);
    let storage = tempfile::tempdir().unwrap();
    let storage = storage.path().to_str().unwrap();
    let (mut ingest, mut rollup) = (stage.process(storage), stage.process(storage));
    ingest.call(&["topics", "create"]);
    ingest.run("ingest");
    rollup.run("rollup");
    wait_for_watermark(&mut rollup, 65);
    assert!(rollup.terminate().success(), "{}", rollup.log_text());
    servers.kafka.produce(&stage.topic, [point(0, 240), point(1, 240)]);
    ingest.wait_for_metric(Duration::from_secs(60), "tidemark_ingest_points_total", &[], 4.0);
    stage.check("nobody_runs_rollup", &ingest, &[], "no process runs `rollup`", "rollup_not_running");
}
