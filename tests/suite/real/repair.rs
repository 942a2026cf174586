//! What repair promises: every difference is found, mended while the stream runs, and nobody who
//! reads meanwhile counts a point twice or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use chrono::{DateTime, Utc};
use serde_json::Value;
use tidemark_tests::influx::Key;
use tidemark_tests::input::{Format, Point, Series, heartbeats, messages};
use tidemark_tests::nab;
use tidemark_tests::tidemark::Tidemark;
use tidemark_tests::wait_until;

use super::exactness::{HOURLY, batch, check_parquet};
use super::{Body, Deployment, PATIENCE, Rows, Servers, assert_same};

const PARTITIONS: usize = 2;
const HOUR: i64 = 3_600_000_000_000;
const RANGE: [&str; 4] = ["--from", "2014-02-14", "--to", "2014-04-24T01:00"];
const LATE: (&str, [(&str, &str); 1]) = ("tidemark_rollup_late_points_total", [("rollup", "nab_hourly")]);

pub(super) fn trials() -> Vec<(&'static str, Body)> {
    vec![
        ("reconcile_finds_what_came_too_late_or_was_changed_and_recompute_mends_it", mended_in_influx),
        ("the_embedded_store_is_mended_from_the_archive_too", mended_in_parquet),
        ("readers_count_the_same_points_while_the_archive_is_compacted", compacted),
    ]
}

fn mended_in_influx(servers: &Servers) {
    let topic = servers.kafka.unique_topic("mended", PARTITIONS);
    let deployment = Deployment::new(servers, "mended", &topic, 2).with("[archive]\nroll_age = \"1s\"\n");
    let (tidemark, points, touched) = with_late_points(servers, &deployment, &topic);
    let influx = &servers.influx;
    let bucket = deployment.id.as_str();

    // Exactly the windows that late points belong to, and one that only a late point has.
    let report = reconcile(&tidemark, 1);
    assert_eq!(keys_of(&report), touched, "{report}");
    assert_eq!((&report["missing"], &report["extra"]), (&Value::from(1), &Value::from(0)), "{report}");
    let before = influx.rows(bucket, "nab_hourly");
    recompute(&tidemark, &["--dry-run"]);
    assert!(influx.rows(bucket, "nab_hourly") == before, "a dry run writes nothing");

    let said = recompute(&tidemark, &[]);
    assert!(said.contains(&format!("{} rows written, 0 removed", touched.len())), "{said}");
    reconcile(&tidemark, 0);
    let expected = batch(HOURLY, &points);
    let stored = || without_p95(influx.rows(bucket, "nab_hourly"));
    assert_same(&stored(), &without_p95(expected.clone()));

    // Someone is at it by hand: a row deleted, a value changed, a percentile beyond its bound, a
    // row too many.
    let all: Vec<&Key> = expected.keys().collect();
    let [gone, changed, sketch] = [10, 20, 30].map(|index| all[index]);
    influx.delete(bucket, gone.time, &format!("metric=\"{}\"", gone.tags["metric"]));
    let line =
        |key: &Key, field: &str| format!("nab_hourly,metric={} {field} {}", key.tags["metric"], key.time);
    influx.write(bucket, &line(changed, "avg=-1"));
    influx.write(bucket, &line(sketch, "p95=1e300"));
    let extra = Key { time: gone.time, tags: BTreeMap::from([("metric".to_owned(), "made_up".to_owned())]) };
    influx.write(bucket, &line(&extra, "avg=1,count=1i"));
    let report = reconcile(&tidemark, 1);
    let found: BTreeSet<Key> = [gone, changed, sketch, &extra].into_iter().cloned().collect();
    assert_eq!(keys_of(&report), found, "{report}");
    let kinds = ["missing", "extra", "different"].map(|kind| report[kind].as_u64().unwrap());
    assert_eq!(kinds, [1, 1, 2], "{report}");

    let said = recompute(&tidemark, &[]);
    assert!(said.contains("3 rows written, 1 removed"), "{said}");
    reconcile(&tidemark, 0);
    assert_same(&stored(), &without_p95(expected));
    let said = recompute(&tidemark, &[]);
    assert!(said.contains("0 rows written, 0 removed"), "a second time changes nothing: {said}");

    let open = ["recompute", "nab_hourly", "--from", "2014-02-14", "--to", "2014-06-01"];
    let refused = tidemark.command().args(open).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("not final yet"), "{said}");
    let unknown = tidemark.command().args(["reconcile", "nab", "--from", "2014-02-14"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2), "what could not be notified is not a difference");
    finish(tidemark);
}

fn mended_in_parquet(servers: &Servers) {
    let topic = servers.kafka.unique_topic("mended-files", PARTITIONS);
    let deployment = Deployment::new(servers, "mended-files", &topic, 2)
        .without_influx()
        .with("[archive]\nroll_age = \"1s\"\n");
    let (tidemark, _, touched) = with_late_points(servers, &deployment, &topic);
    let report = reconcile(&tidemark, 1);
    assert_eq!(keys_of(&report), touched, "{report}");
    recompute(&tidemark, &[]);
    reconcile(&tidemark, 0);

    // Compaction keeps what was mended, and a file that is lost is mended as well.
    tidemark.call(&["compact", "--older-than", "0s", "--grace", "1s"]);
    reconcile(&tidemark, 0);
    let folder = tidemark.directory().join("data/rollups/nab_hourly");
    for file in std::fs::read_dir(folder).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    let report = reconcile(&tidemark, 1);
    assert_eq!(report["missing"], report["rows"], "{report}");
    recompute(&tidemark, &[]);
    reconcile(&tidemark, 0);
    finish(tidemark);
}

fn compacted(servers: &Servers) {
    let topic = servers.kafka.unique_topic("compacted", 4);
    let deployment = Deployment::new(servers, "compacted", &topic, 2)
        .without_influx()
        .with("[archive]\nroll_age = \"1s\"\n");
    let points = nab::points().unwrap();
    let mut tidemark = deployment.process("data", &[("nab_hourly", HOURLY)]);
    tidemark.call(&["topics", "create"]);
    tidemark.run("ingest,rollup");
    deployment.load_nab(&tidemark);
    let total = points.len();
    tidemark.wait_for_metric(PATIENCE, "tidemark_archive_rows_total", &[], total as f64);
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());
    let data = tidemark.directory().join("data");
    check_parquet(&data, &points);

    let count = "SELECT count(*) AS points FROM points";
    let (done, tidemark) = (AtomicBool::new(false), &tidemark);
    let said = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut counts = Vec::new();
            while !done.load(Ordering::Acquire) {
                counts.push(tidemark.call(&["query", count]));
            }
            counts
        });
        let output =
            tidemark.command().args(["compact", "--older-than", "1h", "--grace", "3s"]).output().unwrap();
        done.store(true, Ordering::Release);
        for counted in reader.join().unwrap() {
            assert!(counted.contains(&format!("| {total} ")), "{total} points in\n{counted}");
        }
        succeeded(&output)
    });
    println!("{said}");
    check_parquet(&data, &points);
    let hours: BTreeSet<i64> = points.iter().map(|point| point.time.div_euclid(HOUR)).collect();
    let files = walk(&data.join("raw"));
    assert!(files.iter().all(|file| file.ends_with(".parquet")), "{files:?}");
    assert_eq!(files.len(), hours.len(), "one file an hour\n{said}");
    let again = tidemark.call(&["compact", "--older-than", "1h", "--grace", "0s"]);
    assert!(again.contains("raw/: 0 files"), "{again}");
}

/// A deployment with all of NAB in final windows, and ten points behind that came too late. Gives
/// the process that runs it, all points, and the rows that the late ones belong to.
fn with_late_points(
    servers: &Servers,
    deployment: &Deployment,
    topic: &str,
) -> (Tidemark, Vec<Point>, BTreeSet<Key>) {
    let mut points = nab::points().unwrap();
    let mut tidemark = deployment.process("data", &[("nab_hourly", HOURLY)]);
    tidemark.call(&["topics", "create"]);
    tidemark.run("ingest,rollup");
    deployment.load_nab(&tidemark);
    let total = points.len() as f64;
    tidemark.wait_for_metric(PATIENCE, "tidemark_rollup_points_total", &[("rollup", "nab_hourly")], total);

    let mut late: Vec<Point> = (0..9)
        .map(|index| Point { value: 1e6 + index as f64, ..points[100 + index * 3_000].clone() })
        .collect();
    // The last one is of a metric that has nothing else.
    let series = Series { name: "late_only".to_owned(), labels: BTreeMap::new(), index: 0 };
    late.push(Point { series: Arc::new(series), time: points[100].time, value: 1.0 });
    servers.kafka.produce(topic, messages(&late, PARTITIONS, Format::Json));
    let last = points.iter().map(|point| point.time).max().unwrap();
    servers.kafka.produce(topic, heartbeats(last + 10 * HOUR, PARTITIONS));
    tidemark.wait_for_metric(PATIENCE, LATE.0, &LATE.1, late.len() as f64);
    let touched = late.iter().map(|point| Key {
        time: point.time.div_euclid(HOUR) * HOUR,
        tags: BTreeMap::from([("metric".to_owned(), point.series.name.clone())]),
    });
    let touched = touched.collect();
    // Only what a committed snapshot has seen is final.
    wait_until(PATIENCE, "the last window to be final", || match run_reconcile(&tidemark) {
        output if output.status.code() == Some(2) => Err(said_by(&output)),
        _ => Ok(()),
    });
    points.extend(late);
    (tidemark, points, touched)
}

fn run_reconcile(tidemark: &Tidemark) -> Output {
    tidemark.command().args(["reconcile", "nab_hourly", "--json"]).args(RANGE).output().unwrap()
}

/// The report, with this exit status: 0 is equal, 1 is different.
fn reconcile(tidemark: &Tidemark, status: i32) -> Value {
    let output = run_reconcile(tidemark);
    assert_eq!(output.status.code(), Some(status), "{}", said_by(&output));
    let tables: Value = serde_json::from_slice(&output.stdout).unwrap();
    let report = tables[0].clone();
    assert_eq!(report["equal"], status == 0, "{report}");
    report
}

fn recompute(tidemark: &Tidemark, options: &[&str]) -> String {
    let output = tidemark.command().args(["recompute", "nab_hourly"]).args(RANGE).args(options).output();
    let said = succeeded(&output.unwrap());
    println!("{said}");
    said
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", said_by(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn said_by(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The rows that a report lists.
fn keys_of(report: &Value) -> BTreeSet<Key> {
    let key = |found: &Value| {
        let time = found["time"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
        let tags = found["tags"].as_object().unwrap().iter();
        let tags = tags.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()));
        Key { time: time.timestamp_nanos_opt().unwrap(), tags: tags.collect() }
    };
    report["differences"].as_array().unwrap().iter().map(key).collect()
}

/// Sketches that were merged in another order differ within their bound; `reconcile` knows it.
fn without_p95(mut rows: Rows) -> Rows {
    for fields in rows.values_mut() {
        fields.remove("p95").expect("every row has a p95");
    }
    rows
}

fn walk(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(walk(&path));
        } else {
            files.push(path.display().to_string());
        }
    }
    files
}

fn finish(mut tidemark: Tidemark) {
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());
}
