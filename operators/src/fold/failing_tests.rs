//! Groups for which an aggregate fails, beside others.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type, TimestampNanosecondType};
use proptest::prelude::*;

use super::*;
use crate::testing::{OPTIONS, message, message_until, rollup};

/// `picky` is an aggregate of tests that fails and panics on some values, see
/// [`crate::testing::picky`].
const SQL: &str = "CREATE MATERIALIZED VIEW cpu WITH (tiers = '10s, 1m', allowed_lateness = '30 seconds') AS
    SELECT tumble(time, INTERVAL '10 seconds') AS w, labels['host'] AS host, picky(value) AS p, count(*) AS n,
           sqrt(picky(value) - 1) AS root
    FROM points GROUP BY 1, 2";

/// Of a host: fails or panics when it is finished, when it is merged, or takes no point.
const FAILING: [(&str, f64); 4] =
    [("unfinished", 60.0), ("panics", 77.0), ("unmerged", 500.0), ("refused", -1.0)];

/// Rows as (kind, tier, window, host, fields), those of failing hosts left out.
type Rows = Vec<(&'static str, usize, i64, String, String)>;

fn rows(kind: &'static str, tier: usize, batch: &RecordBatch, rows: &mut Rows) {
    let starts = batch.column(0).as_primitive::<TimestampNanosecondType>();
    let hosts = batch.column(1).as_string_view();
    let (sums, counts) =
        (batch.column(2).as_primitive::<Float64Type>(), batch.column(3).as_primitive::<Int64Type>());
    for row in 0..batch.num_rows() {
        let host = hosts.value(row).to_owned();
        if FAILING.iter().any(|(failing, _)| *failing == host) {
            assert!(sums.is_null(row), "{kind} {host}: what failed has no value");
            continue;
        }
        let value =
            |column: &dyn Array, value: String| if column.is_null(row) { String::new() } else { value };
        let fields = format!(
            "{} {}",
            value(sums, sums.value(row).to_string()),
            value(counts, counts.value(row).to_string())
        );
        rows.push((kind, tier, starts.value(row), host, fields));
    }
}

/// What a stream gives for the hosts that do not fail, and how many points it counts.
fn given(messages: &[Vec<(&str, i64, f64)>]) -> (Rows, u64, BTreeMap<Cause, u64>) {
    let rollups = [rollup(SQL)];
    let mut fold = Fold::new(&rollups, OPTIONS).watching_open(|_, _| true);
    let (mut found, mut points, mut failures) = (Rows::new(), 0, BTreeMap::new());
    for points_of in messages {
        let high = points_of.iter().map(|(_, at, _)| *at).max();
        let applied = fold.apply(&message_until(&rollups, points_of, high));
        for results in applied.results.iter().chain(&applied.open) {
            let kind = match results.kind {
                ResultKind::Closed => "closed",
                ResultKind::Corrected => "corrected",
                ResultKind::Open => "open",
            };
            rows(kind, results.tier, &results.rows, &mut found);
        }
        for late in &applied.late {
            rows("late", 0, &late.rows, &mut found);
            points += late.points;
        }
        points += applied.points.iter().map(|(_, points)| points).sum::<u64>();
        for failure in applied.failures {
            *failures.entry(failure.cause).or_default() += failure.count;
        }
    }
    (found, points, failures)
}

#[test]
fn a_group_whose_aggregate_fails_costs_itself_alone() {
    let with = |host: &'static str, value: f64| {
        vec![
            vec![("a", 1, 1.0), (host, 2, value), ("b", 3, 5.0)],
            // Closes, with the failing group in the window.
            vec![("a", 11, 2.0), ("b", 12, 3.0)],
            // Corrects, with it.
            vec![(host, 4, value), ("a", 5, 1.0)],
            vec![("a", 101, 1.0), ("b", 55, 1.0)],
            // Late for the finest tier, and not for the other.
            vec![(host, 6, value), ("a", 6, 1.0), ("b", 102, 1.0)],
            vec![("a", 300, 1.0)],
            vec![("a", 301, 1.0)],
        ]
    };
    let (expected, ..) = given(&with("c", 1.0));
    for (host, value) in FAILING {
        let (found, points, failures) = given(&with(host, value));
        let of_others = expected.iter().filter(|row| row.3 != "c").cloned().collect::<Rows>();
        assert_eq!(found, of_others, "{host}");
        let failed = failures.get(&Cause::Group).copied().unwrap_or_default();
        match host {
            // Points that an aggregate does not take are left out in `ingest`, and counted there.
            "refused" => assert_eq!((points, failed), (11, 0)),
            _ => assert!(points == 14 && failed >= 3, "{host}: {points} points, {failures:?}"),
        }
        assert_eq!(failures.get(&Cause::State), None, "{host}");
    }
}

#[test]
fn a_late_point_whose_group_fails_is_counted_and_given_out() {
    let rollups = [rollup(SQL)];
    let mut fold = Fold::new(&rollups, OPTIONS);
    fold.apply(&message(&rollups, &[("a", 100, 1.0)]));
    let applied = fold.apply(&message_until(&rollups, &[("unfinished", 1, 60.0), ("a", 2, 1.0)], None));
    let [late] = applied.late.as_slice() else { panic!("{applied:?}") };
    assert_eq!((late.points, late.rows.num_rows()), (2, 2));
    let hosts = late.rows.column(1).as_string_view();
    let at = hosts.iter().position(|host| host == Some("unfinished")).unwrap();
    assert!(late.rows.column(2).is_null(at) && late.rows.column(3).is_null(at));
}

#[test]
fn what_could_not_be_merged_is_merged_the_same_after_a_restart() {
    let rollups = [rollup(SQL)];
    let mut fold = Fold::new(&rollups, OPTIONS);
    // More batches than a pane leaves unmerged.
    for number in 0..70 {
        fold.apply(&message(&rollups, &[("a", 1, 0.1), ("unmerged", 2, 500.0), ("b", number % 10, 0.1)]));
        let bytes = fold.snapshot(String::new()).unwrap();
        let restored = Fold::restore(&rollups, OPTIONS, &bytes).unwrap().fold;
        assert_eq!(restored.snapshot(String::new()).unwrap(), bytes, "{number}");
        assert_eq!(restored.bytes(), fold.bytes());
    }
    let applied = fold.apply(&message(&rollups, &[("a", 10, 0.1)]));
    assert_eq!(applied.results[0].rows.num_rows(), 2);
    let group = Failure {
        rollup: "cpu".into(),
        cause: Cause::Group,
        count: 1,
        first: "sums beyond 400 do not merge".into(),
    };
    assert_eq!(applied.failures, [group]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Whatever a stream holds of groups that fail, the others get the rows that they get without
    /// these.
    #[test]
    fn groups_that_fail_change_nothing_of_the_others(
        messages in prop::collection::vec(
            prop::collection::vec((0..8usize, 0i64..40, 0..3u8), 0..12),
            1..12,
        ),
    ) {
        let points = |host: &usize, at: i64, value: u8| match FAILING.get(*host) {
            Some((name, value)) => (*name, at, *value),
            None => (["a", "b", "c", "d"][host - 4], at, f64::from(value)),
        };
        let mut all = Vec::new();
        for (number, message) in messages.iter().enumerate() {
            let start = number as i64 * 8;
            let mut of_message: Vec<_> =
                message.iter().map(|(host, at, value)| points(host, start + at, *value)).collect();
            of_message.push(("a", start, 1.0));
            all.push(of_message);
        }
        all.push(vec![("a", 1_000, 1.0)]);
        all.push(vec![("a", 1_001, 1.0)]);
        let is_good = |host: &str| FAILING.iter().all(|(failing, _)| *failing != host);
        // Event time goes as far without the failing points.
        let without: Vec<Vec<_>> = all.iter().map(|message| {
            let newest = message.iter().map(|(_, at, _)| *at).max().unwrap();
            let mut good: Vec<_> = message.iter().filter(|(host, ..)| is_good(host)).copied().collect();
            good.push(("timekeeper", newest, 0.0));
            good
        }).collect();
        let with: Vec<Vec<_>> = all.iter().map(|message| {
            let newest = message.iter().map(|(_, at, _)| *at).max().unwrap();
            let mut message = message.clone();
            message.push(("timekeeper", newest, 0.0));
            message
        }).collect();
        let (found, _, failures) = given(&with);
        let (expected, ..) = given(&without);
        prop_assert_eq!(sorted(found), sorted(expected));
        prop_assert_eq!(failures.get(&Cause::State), None);
    }
}

fn sorted(mut rows: Rows) -> Rows {
    rows.sort();
    rows
}
