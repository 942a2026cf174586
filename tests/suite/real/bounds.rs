//! Bounds on real servers: more series than a rollup may have, and storage that takes nothing for a
//! while.

use std::fs;

use tidemark_tests::influx::Key;
use tidemark_tests::input::{Format, Generator, heartbeats, messages};
use tidemark_tests::wait::wait_until;

use super::{Body, Deployment, PATIENCE, Rows, Servers};

const MINUTE: i64 = 60_000_000_000;
const SERIES: usize = 1_000;
const LIMIT: usize = 100;
const PARTITIONS: usize = 2;
const BY_HOST: &str = "CREATE MATERIALIZED VIEW by_host WITH (series_limit = 100) AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start, labels['host'] AS host, labels['region'] AS region,
       count(*) AS count, sum(value) AS sum
FROM points GROUP BY 1, 2, 3";

pub(super) fn trials() -> Vec<(&'static str, Body)> {
    vec![
        ("ten_times_the_series_limit_end_in_overflow_groups_and_no_point_is_lost", overflow),
        ("a_snapshot_that_cannot_be_stored_holds_the_log_until_it_can", storage_refuses),
    ]
}

fn overflow(servers: &Servers) {
    let points = Generator { hosts: SERIES, ..Generator::default() }.points(SERIES * 12);
    let topic = servers.kafka.unique_topic("overflow", PARTITIONS);
    let (first, second) = points.split_at(points.len() / 2);
    let deployment = Deployment::new(servers, "overflow", &topic, PARTITIONS);
    let mut tidemark = deployment.process("data", &[("by_host", BY_HOST)]);
    tidemark.call(&["topics", "create"]);
    tidemark.spawn(&["run"], &[]);
    servers.kafka.produce(&topic, messages(first, PARTITIONS, Format::JsonLines(10)));
    tidemark.wait_for_metric(PATIENCE, "tidemark_rollup_points_total", &[], first.len() as f64);
    tidemark.wait_for_metric(PATIENCE, "tidemark_rollup_checkpoints_total", &[], 1.0);
    tidemark.kill9();

    tidemark.spawn(&["run"], &[]);
    servers.kafka.produce(&topic, messages(second, PARTITIONS, Format::JsonLines(10)));
    let last = points.last().unwrap().time;
    servers.kafka.produce(&topic, heartbeats(last + 5 * MINUTE, PARTITIONS));
    // Two windows, each with its hundred groups and an overflow group of each partition.
    let rows = 2 * (LIMIT + PARTITIONS);
    tidemark.wait_until(PATIENCE, "all windows in influxdb", || {
        let found = servers.influx.rows(&deployment.id, "by_host");
        let counted = total(&found, "count");
        if found.len() == rows && counted == points.len() as f64 {
            Ok(())
        } else {
            Err(format!("{} rows of {rows}, {counted} points of {}", found.len(), points.len()))
        }
    });
    let diverted = tidemark.metric("tidemark_rollup_overflow_points_total", &[("rollup", "by_host")]);
    assert!(diverted.is_some_and(|points| points > 0.0), "{diverted:?}");
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());
    let found = servers.influx.rows(&deployment.id, "by_host");
    let sum: f64 = points.iter().map(|point| point.value).sum();
    assert_eq!(total(&found, "sum"), sum, "values are eighths, so sums are exact");
    let overflow = |key: &Key| key.tags["host"].starts_with("__overflow__");
    assert_eq!(found.keys().filter(|key| overflow(key)).count(), 2 * PARTITIONS);
    let warnings = tidemark.log_text().matches("more groups than the series limit").count();
    assert!(
        (1..=3 * 2 * PARTITIONS).contains(&warnings),
        "once a window and partition, and in replays: {warnings}"
    );
}

fn total(rows: &Rows, field: &str) -> f64 {
    rows.values().map(|fields| fields[field].as_f64().unwrap()).sum()
}

/// A file stands where the folder of the snapshots should be: nobody can write there, not even
/// root.
fn storage_refuses(servers: &Servers) {
    let points = Generator { hosts: 20, ..Generator::default() }.points(2_000);
    let topic = servers.kafka.unique_topic("refused", PARTITIONS);
    let deployment = Deployment::new(servers, "refused", &topic, PARTITIONS);
    let mut tidemark = deployment.process("data", &[("by_host", BY_HOST)]);
    tidemark.call(&["topics", "create"]);
    let folder = tidemark.directory().join("data/state");
    fs::create_dir_all(folder.parent().unwrap()).unwrap();
    fs::write(&folder, "in the way").unwrap();
    tidemark.spawn(&["run"], &[]);
    servers.kafka.produce(&topic, messages(&points, PARTITIONS, Format::JsonLines(10)));
    servers.kafka.produce(&topic, heartbeats(points.last().unwrap().time + 5 * MINUTE, PARTITIONS));
    wait_until(PATIENCE, "readiness to name the storage", || {
        let answer = tidemark.not_ready()?;
        answer.contains("storage: a snapshot cannot be stored in").then_some(()).ok_or(answer)
    });
    let (group, partials) = (format!("{}-rollup", deployment.id), format!("{}-partials", deployment.id));
    assert!(servers.kafka.committed(&group, &partials).is_empty(), "nothing is durable");

    fs::remove_file(&folder).unwrap();
    tidemark.wait_for_metric(PATIENCE, "tidemark_rollup_checkpoints_total", &[], 1.0);
    tidemark.wait_until_ready();
    tidemark.wait_until(PATIENCE, "all points in influxdb", || {
        let counted = total(&servers.influx.rows(&deployment.id, "by_host"), "count");
        if counted == points.len() as f64 { Ok(()) } else { Err(format!("{counted}")) }
    });
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());
    assert!(tidemark.log_text().contains("the storage takes nothing"), "{}", tidemark.log_text());
}
