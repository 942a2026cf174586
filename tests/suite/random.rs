//! Rollups over random points: whatever comes, in whatever order, the stream gives what batch
//! gives.

use libtest_mimic::{Failed, Trial};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use crate::case::Case;
use crate::rollups::{batch_tables, differences};
use crate::stream;

const CASES: u32 = 48;

const LOAD: &str = "CREATE MATERIALIZED VIEW load WITH (tiers = '10s, 1m, 5m') AS
    SELECT tumble(time, INTERVAL '10 seconds') AS w, labels['host'] AS host,
           count(*) AS n, sum(value) AS sum, avg(value) AS avg, min(value) AS min, max(value) AS max,
           stddev_pop(value) AS deviation, count(*) FILTER (WHERE name = 'b') AS of_b,
           bool_or(value > 90) AS high, approx_distinct(labels['core']) AS cores
    FROM points GROUP BY 1, 2 HAVING avg(value) < 60";
const NAMES: &str = "CREATE MATERIALIZED VIEW names AS
    SELECT tumble(time, INTERVAL '1 day', 'Europe/Berlin') AS day, name, max(value) - min(value) AS range
    FROM points WHERE labels['core'] IS NOT NULL GROUP BY 1, 2";
const MOVING: &str = "CREATE MATERIALIZED VIEW moving AS
    SELECT hop(time, INTERVAL '15 seconds', INTERVAL '5 seconds') AS w, labels['host'] AS host,
           count(*) AS n, sum(value) AS sum, max(value) AS max, stddev_pop(value) AS deviation
    FROM points GROUP BY 1, 2 HAVING avg(value) < 60";

pub(crate) fn trials() -> Vec<Trial> {
    vec![Trial::test("rollup::random_points", random_points)]
}

/// A point as a line of JSON. Values are eighths, so that sums are exact, and nulls and few times
/// are common.
pub(crate) fn point() -> impl Strategy<Value = String> {
    let label = |values: &'static [&'static str]| prop::sample::select(values);
    let host = label(&["", "\"host\":\"x\"", "\"host\":\"y\"", "\"host\":\"\\u00e4 z,=\""]);
    let core = label(&["", "\"core\":\"0\"", "\"core\":\"1\""]);
    (label(&["a", "b"]), host, core, -40_000_i64..40_000, 0_i32..800).prop_map(
        |(name, host, core, milliseconds, eighths)| {
            let comma = if host.is_empty() || core.is_empty() { "" } else { "," };
            // Midnight of a night with a change of the clocks, in Berlin.
            let time = 1_774_738_800.0 + milliseconds as f64 / 1_000.0;
            let value = f64::from(eighths) / 8.0;
            format!(
                "{{\"name\":\"{name}\",\"labels\":{{{host}{comma}{core}}},\"ts\":{time:.3},\"value\":{value}}}\n"
            )
        },
    )
}

fn random_points() -> Result<(), Failed> {
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let files: Vec<(String, String)> = [("load.sql", LOAD), ("moving.sql", MOVING), ("names.sql", NAMES)]
        .map(|(file, sql)| (file.to_owned(), sql.to_owned()))
        .into();
    let inputs = (prop::collection::vec(point(), 1..120), any::<u64>());
    TestRunner::new(config)
        .run(&inputs, |(points, seed)| {
            let fail = |error: String| TestCaseError::fail(error);
            let mut case = Case::new(&files, points.concat().as_bytes()).map_err(fail)?;
            let batch = batch_tables(&mut case).map_err(|error| fail(format!("{error:?}")))?;
            let differences = differences(&batch, &stream::run(&mut case, seed), None);
            if differences.is_empty() { Ok(()) } else { Err(fail(differences)) }
        })
        .map_err(|error| error.to_string().into())
}
