//! The promise itself: rollups in InfluxDB equal batch SQL over the input, and cold storage holds
//! the input.

use std::collections::BTreeMap;

use tidemark_tests::duckdb::DuckDb;
use tidemark_tests::influx::Key;
use tidemark_tests::input::{Format, Point, messages};
use tidemark_tests::nab;
pub(super) use tidemark_tests::oracle::{rows as batch, rows_of_tier as batch_of_tier};

use super::{Body, Deployment, PATIENCE, Rows, Servers, assert_same};

pub(super) const HOURLY: &str = "CREATE MATERIALIZED VIEW nab_hourly WITH (allowed_lateness = '3 hours') AS
SELECT tumble(time, INTERVAL '1 hour') AS window_start, name AS metric,
       count(*) AS count, sum(value) AS sum, avg(value) AS avg, min(value) AS min, max(value) AS max,
       approx_percentile_cont(value, 0.95) AS p95
FROM points GROUP BY 1, 2";

pub(super) fn trials() -> Vec<(&'static str, Body)> {
    vec![("nab_in_influxdb_equals_batch_sql_and_parquet_holds_each_point_once", nab_equals_batch)]
}

fn nab_equals_batch(servers: &Servers) {
    let mut points = nab::points().unwrap();
    let topic = servers.kafka.unique_topic("nab", 4);
    let deployment = Deployment::new(servers, "exact", &topic, 4).with("[archive]\nroll_age = \"1s\"\n");
    let mut tidemark = deployment.process("data", &[("nab_hourly", HOURLY)]);
    tidemark.call(&["topics", "create"]);
    tidemark.run("ingest,rollup,notify");
    deployment.load_nab(&tidemark);
    let total = points.len() as f64;
    tidemark.wait_for_metric(PATIENCE, "tidemark_ingest_points_total", &[], total);
    tidemark.wait_for_metric(PATIENCE, "tidemark_rollup_points_total", &[("rollup", "nab_hourly")], total);
    // The heartbeats of --close have closed the last window of all when it is written.
    let expected = batch(HOURLY, &points);
    tidemark.wait_until(PATIENCE, "all windows in influxdb", || {
        let found = servers.influx.rows(&deployment.id, "nab_hourly").len();
        if found == expected.len() { Ok(()) } else { Err(format!("{found} of {}", expected.len())) }
    });
    let corrected_before =
        tidemark.metric("tidemark_rollup_corrected_rows_total", &[("rollup", "nab_hourly")]).unwrap_or(0.0);
    // All windows have closed, and the last one is not final yet: a late point corrects it in
    // place.
    let mut late_point = points.iter().max_by_key(|point| point.time).unwrap().clone();
    late_point.time -= 1_000_000_000;
    late_point.value += 1_000.0;
    points.push(late_point);
    let late_message = messages(&points[points.len() - 1..], 1, Format::Json);
    servers.kafka.produce(&topic, late_message);
    let corrected = "tidemark_rollup_corrected_rows_total";
    tidemark.wait_for_metric(PATIENCE, corrected, &[("rollup", "nab_hourly")], corrected_before + 1.0);
    let late = tidemark.metric("tidemark_rollup_late_points_total", &[("rollup", "nab_hourly")]);
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());

    assert_eq!(late.unwrap_or(0.0), 0.0, "nothing was later than the lateness allows");
    let expected = batch(HOURLY, &points);
    let (found, found_p95) = split_percentile(servers.influx.rows(&deployment.id, "nab_hourly"));
    let (expected, _) = split_percentile(expected);
    assert_same(&found, &expected);
    check_percentiles(&found_p95, &points);
    check_parquet(&tidemark.directory().join("data"), &points);
}

/// The percentile comes from a sketch, whose result depends on the order of merging within its
/// bound.
fn split_percentile(mut rows: Rows) -> (Rows, BTreeMap<Key, f64>) {
    let mut percentiles = BTreeMap::new();
    for (key, fields) in &mut rows {
        let p95 = fields.remove("p95").and_then(|value| value.as_f64()).expect("every row has a p95");
        percentiles.insert(key.clone(), p95);
    }
    (rows, percentiles)
}

/// Each percentile lies between the values two ranks in a hundred, and one value, below and above
/// its own.
fn check_percentiles(found: &BTreeMap<Key, f64>, points: &[Point]) {
    let hour = 3_600_000_000_000;
    let mut values: BTreeMap<(i64, &str), Vec<f64>> = BTreeMap::new();
    for point in points {
        let start = point.time.div_euclid(hour) * hour;
        values.entry((start, &point.series.name)).or_default().push(point.value);
    }
    for (key, p95) in found {
        let values = values.get_mut(&(key.time, key.tags["metric"].as_str())).unwrap();
        values.sort_by(f64::total_cmp);
        let last = values.len() - 1;
        let low = values[((last as f64 * 0.93).floor() as usize).saturating_sub(1)];
        let high = values[((last as f64 * 0.97).ceil() as usize + 1).min(last)];
        assert!((low..=high).contains(p95), "{key:?}: p95 {p95} is not between {low} and {high}");
    }
}

/// Reads cold storage with another engine: every point once, with its own value.
pub(super) fn check_parquet(storage: &std::path::Path, points: &[Point]) {
    let duckdb = DuckDb::find().expect("the other servers are there");
    let files = format!("read_parquet('{}/raw/**/*.parquet')", storage.display());
    let sql = format!(
        "SELECT count(*)::DOUBLE AS points, sum(value) AS total,
                count(DISTINCT (name, labels['instance'], time))::DOUBLE AS places
         FROM {files}"
    );
    let row = &duckdb.query(&sql)[0];
    let number = |name: &str| row[name].as_f64().unwrap();
    let mut places: Vec<_> = points.iter().map(|point| (point.series.index, point.time)).collect();
    places.sort_unstable();
    places.dedup();
    let total: f64 = points.iter().map(|point| point.value).sum();
    assert_eq!(number("points"), points.len() as f64);
    assert_eq!(number("places"), places.len() as f64);
    assert!((number("total") - total).abs() <= 1e-9 * total.abs(), "{} instead of {total}", number("total"));
}
