//! A changed SQL file: what was final stays as it was, everything later is what the new query
//! gives, and the windows that were open in between are rebuilt from the archive.

use std::time::Duration;

use tidemark_tests::input::{Format, Generator, heartbeats, messages};

use super::exactness::batch;
use super::{Body, Deployment, PATIENCE, Rows, Servers, assert_same};

const BEFORE: &str =
    "CREATE MATERIALIZED VIEW by_host WITH (allowed_lateness = '5 minutes', tiers = '1m, 10m') AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start, labels['host'] AS host,
       count(*) AS count, sum(value) AS sum, avg(value) AS avg
FROM points GROUP BY 1, 2";
/// Other aggregates: `sum` and `avg` must not stay beside them.
const AFTER: &str =
    "CREATE MATERIALIZED VIEW by_host WITH (allowed_lateness = '5 minutes', tiers = '1m, 10m') AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start, labels['host'] AS host,
       count(*) AS count, max(value) AS max, min(value) AS min
FROM points GROUP BY 1, 2";
const KEPT: &str = "CREATE MATERIALIZED VIEW by_region WITH (allowed_lateness = '5 minutes') AS
SELECT tumble(time, INTERVAL '2 minutes') AS window_start, labels['region'] AS region,
       count(*) AS count, sum(value) AS sum
FROM points GROUP BY 1, 2";
/// The same states, kept for longer, and a condition that every group meets.
const KEPT_LONGER: &str = "CREATE MATERIALIZED VIEW by_region WITH (allowed_lateness = '10 minutes') AS
SELECT tumble(time, INTERVAL '2 minutes') AS window_start, labels['region'] AS region,
       count(*) AS count, sum(value) AS sum
FROM points GROUP BY 1, 2 HAVING count(*) > 0";

const POINTS: usize = 24_000;
const PARTITIONS: usize = 2;

pub(super) fn trials() -> Vec<(&'static str, Body)> {
    vec![("a_changed_sql_file_rebuilds_the_open_windows_and_keeps_the_rest", changed)]
}

fn changed(servers: &Servers) {
    let disorder = Duration::from_secs(30);
    let points = Generator { disorder, ..Generator::default() }.points(POINTS);
    let (first, second) = points.split_at(POINTS / 2);
    let topic = servers.kafka.unique_topic("plans", PARTITIONS);
    let deployment = Deployment::new(servers, "plans", &topic, 4).with("[archive]\nroll_age = \"1s\"\n");
    let mut tidemark = deployment.process("data", &[("by_host", BEFORE), ("by_region", KEPT)]);
    tidemark.call(&["topics", "create"]);
    servers.kafka.produce(&topic, messages(first, PARTITIONS, Format::JsonLines(10)));
    tidemark.run("ingest,rollup");
    let all = first.len() as f64;
    tidemark.wait_for_metric(PATIENCE, "tidemark_rollup_points_total", &[("rollup", "by_host")], all);
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());

    tidemark.write("sql/by_host.sql", AFTER);
    tidemark.write("sql/by_region.sql", KEPT_LONGER);
    let said = tidemark.call(&["check", "--against-state"]);
    assert!(said.contains("by_region  kept         allowed_lateness 10m, was 5m"), "{said}");
    let first_rebuilt = |tier: &str| {
        let line = said.lines().find(|line| line.trim_start().starts_with(&format!("{tier} begins at ")));
        let from =
            line.and_then(|line| line.split("windows from ").nth(1)).map(|rest| rest.split(' ').next());
        from.flatten().unwrap_or_else(|| panic!("{tier} in {said}")).to_owned()
    };
    let changed_at =
        [("1m", "by_host"), ("10m", "by_host_10m")].map(|(tier, table)| (tier, table, first_rebuilt(tier)));

    servers.kafka.produce(&topic, messages(second, PARTITIONS, Format::JsonLines(10)));
    // Everything is final, and so what was left out is due.
    let last = points.iter().map(|point| point.time).max().unwrap();
    servers.kafka.produce(&topic, heartbeats(last + 7_200_000_000_000, PARTITIONS));
    tidemark.run("ingest,rollup");
    let tiers = [("1m", "1 minute", ""), ("10m", "10 minutes", "_10m")];
    for ((tier, length, bucket), (_, _, from)) in tiers.into_iter().zip(&changed_at) {
        let whole = |sql: &str| batch(&of_length(sql, length), &points);
        let from = chrono::DateTime::parse_from_rfc3339(from).unwrap().timestamp_nanos_opt().unwrap();
        let (mut expected, after) = (whole(BEFORE), whole(AFTER));
        expected.retain(|key, _| key.time < from);
        assert!(!expected.is_empty(), "some windows were final before: {said}");
        expected.extend(after.into_iter().filter(|(key, _)| key.time >= from));
        let bucket = format!("{}{bucket}", deployment.id);
        let differing =
            |found: &Rows| expected.iter().filter(|(key, row)| found.get(key) != Some(row)).count();
        tidemark.wait_until(PATIENCE, &format!("the windows of {tier}"), || {
            let found = servers.influx.rows(&bucket, "by_host");
            match differing(&found) {
                0 => Ok(()),
                rows => Err(format!("{rows} rows of {} differ", expected.len())),
            }
        });
        assert_same(&servers.influx.rows(&bucket, "by_host"), &expected);
    }
    let rebuilt = tidemark.metric("tidemark_rollup_rebuilt_rows_total", &[("rollup", "by_host")]);
    let kept = tidemark.metric("tidemark_rollup_rebuilt_rows_total", &[("rollup", "by_region")]);
    assert!(rebuilt.unwrap_or(0.0) > 0.0 && kept.is_none(), "{rebuilt:?} {kept:?}");
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());
    assert_same(&servers.influx.rows(&deployment.id, "by_region"), &batch(KEPT, &points));
    let said = tidemark.call(&["check", "--against-state"]);
    assert!(!said.contains("rebuilt") && said.contains("by_host    kept"), "nothing is left: {said}");
}

/// The SELECT with windows of another length, as a rollup without tiers.
fn of_length(sql: &str, length: &str) -> String {
    sql.replace(", tiers = '1m, 10m'", "").replace("'1 minute') AS w", &format!("'{length}') AS w"))
}
