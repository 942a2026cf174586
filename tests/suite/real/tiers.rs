//! Tiers on real servers: days and hours that are made of five-minute states, corrected, in buckets
//! of their own.

use std::collections::{BTreeMap, HashSet};

use operators::sql::compile;
use tidemark_tests::influx::Key;
use tidemark_tests::input::{Format, Point, messages};
use tidemark_tests::nab;

use super::exactness::batch_of_tier;
use super::{Body, Deployment, PATIENCE, Rows, Servers, assert_same};

const LOAD: &str = "CREATE MATERIALIZED VIEW nab
WITH (tiers = '5m, 1h, 1d', allowed_lateness = '3 hours') AS
SELECT tumble(time, INTERVAL '5 minutes') AS window_start, name AS metric, labels['instance'] AS instance,
       count(*) AS count, sum(value) AS sum, avg(value) AS avg, stddev_pop(value) AS deviation,
       min(value) AS min, max(value) AS max,
       approx_percentile_cont(value, 0.95) AS p95, approx_distinct(CAST(value AS VARCHAR)) AS distinct
FROM points GROUP BY 1, 2, 3";

const BUCKETS: &str = "
[influx.tiers.\"1d\"]
bucket = \"BUCKET-of-days\"
retention = \"36500d\"
";

pub(super) fn trials() -> Vec<(&'static str, Body)> {
    vec![("hours_and_days_of_nab_equal_batch_sql_over_the_points_late_ones_included", tiers_equal_batch)]
}

fn tiers_equal_batch(servers: &Servers) {
    let mut points = nab::points().unwrap();
    let topic = servers.kafka.unique_topic("tiers", 4);
    let deployment = Deployment::new(servers, "tiers", &topic, 4);
    let buckets = BUCKETS.replace("BUCKET", &deployment.id);
    let deployment = deployment.with(&buckets);
    let mut tidemark = deployment.process("data", &[("nab", LOAD)]);
    tidemark.call(&["topics", "create"]);
    tidemark.run("ingest,rollup");
    deployment.load_nab(&tidemark);
    let total = points.len() as f64;
    tidemark.wait_for_metric(PATIENCE, "tidemark_rollup_points_total", &[("rollup", "nab")], total);

    let catalog = compile(&[("nab.sql".to_owned(), LOAD.to_owned())]);
    let places =
        [deployment.id.clone(), format!("{}_1h", deployment.id), format!("{}-of-days", deployment.id)];
    let tiers = catalog.rollups[0].tiers();
    let expected: Vec<Rows> =
        tiers.iter().map(|tier| batch_of_tier(&catalog.rollups[0], tier, &points)).collect();
    // The heartbeats of --close have closed the last window of every tier when it is written.
    for ((tier, bucket), expected) in tiers.iter().zip(&places).zip(&expected) {
        let what = format!("all windows of tier {} in influxdb", tier.name);
        tidemark.wait_until(PATIENCE, &what, || {
            let found = servers.influx.rows(bucket, "nab").len();
            if found == expected.len() { Ok(()) } else { Err(format!("{found} of {}", expected.len())) }
        });
    }
    let late = tidemark.metric("tidemark_rollup_late_points_total", &[("rollup", "nab")]);
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());

    assert_eq!(late.unwrap_or(0.0), 0.0, "nothing was later than the lateness allows");
    for ((tier, bucket), expected) in tiers.iter().zip(&places).zip(expected) {
        let (found, found_sketches) = split_sketches(servers.influx.rows(bucket, "nab"));
        assert_same(&found, &split_sketches(expected).0);
        check_sketches(&found_sketches, &points, |time| tier.windows.start(time));
    }

    // Whether disorder corrected a day depends on what was read when. This point does: its day has
    // closed, and is not final.
    let mut late_point = points.iter().max_by_key(|point| point.time).unwrap().clone();
    late_point.time -= 1_000_000_000;
    late_point.value += 1_000.0;
    points.push(late_point);
    servers.kafka.produce(&topic, messages(&points[points.len() - 1..], 1, Format::Json));
    tidemark.run("ingest,rollup");
    let day = [("rollup", "nab"), ("tier", "1d")];
    tidemark.wait_for_metric(PATIENCE, "tidemark_rollup_corrected_rows_total", &day, 1.0);
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());
    let (found, _) = split_sketches(servers.influx.rows(&places[2], "nab"));
    assert_same(&found, &split_sketches(batch_of_tier(&catalog.rollups[0], &tiers[2], &points)).0);
}

/// The 95th percentile and the number of distinct values of a row.
type Sketches = (f64, f64);

/// Sketches depend on the order of merging, within their bound.
fn split_sketches(mut rows: Rows) -> (Rows, BTreeMap<Key, Sketches>) {
    let mut sketches = BTreeMap::new();
    for (key, fields) in &mut rows {
        let mut take =
            |name: &str| fields.remove(name).and_then(|value| value.as_f64()).expect("in every row");
        sketches.insert(key.clone(), (take("p95"), take("distinct")));
    }
    (rows, sketches)
}

/// Against the points themselves: the percentile is within two ranks in a hundred, and one value;
/// the count of distinct values within four of the sketch's standard errors (1.04 / √16,384 = 0.8
/// %), and one.
fn check_sketches(found: &BTreeMap<Key, Sketches>, points: &[Point], start: impl Fn(i64) -> i64) {
    let mut values: BTreeMap<(i64, &str, &str), Vec<f64>> = BTreeMap::new();
    for point in points {
        let (metric, instance) = (point.series.name.as_str(), point.series.labels["instance"].as_str());
        values.entry((start(point.time), metric, instance)).or_default().push(point.value);
    }
    for (key, (p95, distinct)) in found {
        let place = (key.time, key.tags["metric"].as_str(), key.tags["instance"].as_str());
        let values = values.get_mut(&place).expect("a row has points");
        values.sort_by(f64::total_cmp);
        let last = values.len() - 1;
        let low = values[((last as f64 * 0.93).floor() as usize).saturating_sub(1)];
        let high = values[((last as f64 * 0.97).ceil() as usize + 1).min(last)];
        assert!((low..=high).contains(p95), "{key:?}: p95 {p95} is not between {low} and {high}");
        let exact = values.iter().map(|value| value.to_bits()).collect::<HashSet<u64>>().len() as f64;
        assert!(
            (distinct - exact).abs() <= 4.0 * 0.0082 * exact + 1.0,
            "{key:?}: {distinct} instead of {exact}"
        );
    }
}
