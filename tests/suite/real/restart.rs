//! Killed at an instant of no choosing, and started again: nothing is lost, nothing counts twice.

use tidemark_tests::duckdb::DuckDb;
use tidemark_tests::input::{Format, Generator, heartbeats, messages};

use super::exactness::batch;
use super::{Body, Deployment, PATIENCE, Servers, assert_same};
use std::time::Duration;

const BY_HOST: &str = "CREATE MATERIALIZED VIEW by_host WITH (allowed_lateness = '10 minutes') AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start, labels['host'] AS host, labels['region'] AS region,
       count(*) AS count, sum(value) AS sum, avg(value) AS avg, min(value) AS min, max(value) AS max
FROM points GROUP BY 1, 2, 3";

const POINTS: usize = 40_000;
const PARTITIONS: usize = 4;

pub(super) fn trials() -> Vec<(&'static str, Body)> {
    vec![("kill_9_twice_in_the_middle_and_rollups_equal_batch_and_parquet_holds_each_point_once", killed)]
}

fn killed(servers: &Servers) {
    let disorder = Duration::from_secs(120);
    let generator = Generator { hosts: 50, disorder, ..Generator::default() };
    let points = generator.points(POINTS);
    let expected = batch(BY_HOST, &points);
    let topic = servers.kafka.unique_topic("restart", PARTITIONS);
    servers.kafka.produce(&topic, messages(&points, PARTITIONS, Format::JsonLines(10)));
    let last = points.iter().map(|point| point.time).max().unwrap();
    servers.kafka.produce(&topic, heartbeats(last + 120_000_000_000, PARTITIONS));

    let deployment = Deployment::new(servers, "restart", &topic, 4).with("[archive]\nroll_age = \"1s\"\n");
    let mut tidemark = deployment.process("data", &[("by_host", BY_HOST)]);
    tidemark.call(&["topics", "create"]);
    // Once among the first epochs, once when snapshots and files have been written.
    for epochs in [4.0, 18.0] {
        tidemark.spawn(&["run"], &[]);
        tidemark.wait_for_metric(PATIENCE, "tidemark_ingest_epochs_total", &[], epochs);
        tidemark.kill9();
    }
    tidemark.spawn(&["run"], &[]);
    tidemark.wait_until(PATIENCE, "all windows in influxdb", || {
        let found = servers.influx.rows(&deployment.id, "by_host").len();
        if found == expected.len() { Ok(()) } else { Err(format!("{found} of {}", expected.len())) }
    });
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());
    assert_same(&servers.influx.rows(&deployment.id, "by_host"), &expected);

    let duckdb = DuckDb::find().expect("the other servers are there");
    let files = format!("read_parquet('{}/data/raw/**/*.parquet')", tidemark.directory().display());
    let sql = format!(
        "SELECT count(*)::DOUBLE AS points, sum(value) AS total,
                count(DISTINCT (name, labels['host'], time))::DOUBLE AS places FROM {files}"
    );
    let row = &duckdb.query(&sql)[0];
    let number = |name: &str| row[name].as_f64().unwrap();
    // Values are eighths, so their sum is exact in any order.
    let total: f64 = points.iter().map(|point| point.value).sum();
    assert_eq!((number("points"), number("places"), number("total")), (POINTS as f64, POINTS as f64, total));
}
