use arrow::util::pretty::pretty_format_batches;
use proptest::prelude::*;

use super::*;
use crate::rebuild::Change;
use crate::sql::compile;
use crate::testing::{OPTIONS, SECOND, message};

const SQL: &str = "CREATE MATERIALIZED VIEW cpu WITH (allowed_lateness = '1 minute') AS
    SELECT tumble(time, INTERVAL '10 seconds') AS w, labels['host'] AS host,
           avg(value) AS avg, max(value) + 1 AS m, count(*) AS n
    FROM points WHERE name = 'cpu' GROUP BY 1, 2 HAVING avg(value) < 100";

fn rollups() -> Vec<Arc<Rollup>> {
    let catalog = compile(&[("cpu.sql".into(), SQL.into())]);
    assert_eq!(catalog.errors, []);
    catalog.rollups
}

fn rows(applied: &Applied, kind: ResultKind) -> String {
    let batches: Vec<_> = applied.results.iter().filter(|r| r.kind == kind).map(|r| r.rows.clone()).collect();
    pretty_format_batches(&batches).unwrap().to_string()
}

#[test]
fn closes_corrects_and_gives_out_late_rows() {
    let rollups = rollups();
    let mut fold = Fold::new(&rollups, OPTIONS);
    let first = fold.apply(&message(&rollups, &[("a", 1, 1.0), ("a", 2, 3.0), ("b", 3, 5.0)]));
    assert!(first.results.is_empty());

    let closed = fold.apply(&message(&rollups, &[("a", 10, 1.0)]));
    let table = rows(&closed, ResultKind::Closed);
    assert!(
        table.contains("| a    | 2.0 | 4.0 | 2 |") && table.contains("| b    | 5.0 | 6.0 | 1 |"),
        "{table}"
    );

    let corrected = fold.apply(&message(&rollups, &[("a", 5, 8.0)]));
    let table = rows(&corrected, ResultKind::Corrected);
    assert!(table.contains("| a    | 4.0 | 9.0 | 3 |") && !table.contains("| b "), "{table}");

    // HAVING refuses the group now: what was written must go.
    let withdrawn = fold.apply(&message(&rollups, &[("b", 6, 1_000.0)]));
    assert_eq!(withdrawn.results[0].rows.num_rows(), 0);
    let keys = withdrawn.results[0].withdrawn.as_ref().unwrap();
    let table = pretty_format_batches(std::slice::from_ref(keys)).unwrap().to_string();
    assert!(table.contains("| b    |     |   |   |"), "{table}");

    fold.apply(&message(&rollups, &[("a", 70, 1.0)]));
    let late = fold.apply(&message(&rollups, &[("a", 7, 1.0), ("a", 8, 1.0)]));
    assert_eq!((late.late[0].points, late.late[0].age), (2, 60 * SECOND));
    assert!(late.results.is_empty());
}

#[test]
fn a_corrected_row_that_lost_a_field_is_withdrawn_before_it_is_written() {
    let sql = "CREATE MATERIALIZED VIEW calm WITH (allowed_lateness = '1 minute') AS
        SELECT tumble(time, INTERVAL '10 seconds') AS w, labels['host'] AS host,
               CASE WHEN max(value) < 100 THEN avg(value) END AS calm, count(*) AS n
        FROM points GROUP BY 1, 2";
    let rollups = compile(&[("calm.sql".into(), sql.into())]).rollups;
    let mut fold = Fold::new(&rollups, OPTIONS);
    fold.apply(&message(&rollups, &[("a", 1, 50.0), ("b", 2, 50.0)]));
    fold.apply(&message(&rollups, &[("a", 12, 1.0)]));
    let corrected = fold.apply(&message(&rollups, &[("a", 3, 150.0), ("b", 3, 60.0)]));
    let results = &corrected.results[0];
    assert_eq!(results.rows.num_rows(), 2);
    let withdrawn = pretty_format_batches(std::slice::from_ref(results.withdrawn.as_ref().unwrap())).unwrap();
    let withdrawn = withdrawn.to_string();
    assert!(withdrawn.contains("| a ") && !withdrawn.contains("| b "), "{withdrawn}");
}

#[test]
fn a_restored_fold_goes_on_as_the_first_would_have() {
    let rollups = rollups();
    let mut fold = Fold::new(&rollups, OPTIONS);
    fold.apply(&message(&rollups, &[("a", 1, 1.0), ("b", 3, 5.0)]));
    fold.apply(&message(&rollups, &[("a", 12, 1.0)]));
    let bytes = fold.snapshot("alerts".into()).unwrap();
    let Restored { fold: mut restored, alerts, changes, .. } =
        Fold::restore(&rollups, OPTIONS, &bytes).unwrap();
    let kept = Change::Kept { lateness_before: None, other_results: false, new_tiers: Vec::new() };
    assert_eq!((alerts.as_str(), changes), ("alerts", BTreeMap::from([("cpu".to_owned(), kept)])));
    for next in [message(&rollups, &[("a", 2, 7.0)]), message(&rollups, &[("a", 25, 7.0)])] {
        let (one, two) = (fold.apply(&next), restored.apply(&next));
        for kind in [ResultKind::Closed, ResultKind::Corrected] {
            assert_eq!(rows(&one, kind), rows(&two, kind));
        }
    }
    assert_eq!(fold.watermark(), restored.watermark());
}

/// The table that a tier's rows make when each replaces what was written of it before.
#[derive(Debug, Default, PartialEq)]
struct Stored(BTreeMap<(String, i64, String), (i64, f64)>);

impl Stored {
    fn take(&mut self, applied: &Applied) {
        assert!(
            applied.failures.is_empty() && applied.set_aside.iter().all(|(_, points)| *points == 0),
            "{applied:?}"
        );
        for results in &applied.results {
            let keys = |rows: &RecordBatch| {
                let starts = rows.column(0).as_primitive::<TimestampNanosecondType>();
                let hosts = rows.column(1).as_string_view();
                let keys = (0..rows.num_rows()).map(|row| {
                    (results.tier().table.clone(), starts.value(row), hosts.value(row).to_owned())
                });
                keys.collect::<Vec<_>>()
            };
            for key in results.withdrawn.iter().flat_map(&keys) {
                self.0.remove(&key);
            }
            let counts = results.rows.column(2).as_primitive::<arrow::datatypes::Int64Type>();
            let sums = results.rows.column(3).as_primitive::<arrow::datatypes::Float64Type>();
            for (row, key) in keys(&results.rows).into_iter().enumerate() {
                self.0.insert(key, (counts.value(row), sums.value(row)));
            }
        }
    }
}

const LATENESS: i64 = 20 * SECOND;

fn bounded_rollups() -> Vec<Arc<Rollup>> {
    let sql = |name: &str, tiers: &str, window: &str| {
        let text = format!(
            "CREATE MATERIALIZED VIEW {name} WITH (allowed_lateness = '20 seconds'{tiers}) AS
             SELECT {window} AS w, labels['host'] AS host, count(*) AS n, sum(value) AS sum
             FROM points GROUP BY 1, 2"
        );
        (format!("{name}.sql"), text)
    };
    let catalog = compile(&[
        sql("tiered", ", tiers = '10s, 30s, 2m'", "tumble(time, INTERVAL '10 seconds')"),
        sql("moving", "", "hop(time, INTERVAL '30 seconds', INTERVAL '10 seconds')"),
    ]);
    assert_eq!(catalog.errors, []);
    catalog.rollups
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// With a lateness that ends: each window of each tier holds exactly the points that came
    /// before it was final, a point that a finest window missed is counted as late, once, and every
    /// other as merged. Restores change nothing.
    #[test]
    fn each_window_is_final_by_itself_and_each_point_is_counted_once(
        epochs in prop::collection::vec(prop::collection::vec((0_usize..2, 0_i64..60, 1_i32..8), 1..6), 1..40),
        restores in prop::collection::vec(any::<bool>(), 40),
    ) {
        let rollups = bounded_rollups();
        let mut fold = Fold::new(&rollups, OPTIONS);
        let (mut stored, mut expected) = (Stored::default(), Stored::default());
        let (mut counted, mut counts) = (BTreeMap::new(), BTreeMap::new());
        for (epoch, points) in epochs.iter().enumerate() {
            // Event time goes on by five seconds an epoch; points are up to a minute behind it, and
            // sometimes ahead.
            let now = 5 * epoch as i64;
            let points: Vec<(&str, i64, f64)> = points
                .iter()
                .map(|(host, behind, value)| (["a", "b"][*host], now + 5 - behind, f64::from(*value)))
                .collect();
            let watermark = fold.watermark();
            for rollup in &rollups {
                for (host, time, value) in &points {
                    let mut misses = 0;
                    for (position, tier) in rollup.tiers().iter().enumerate() {
                        for start in tier.windows.holding(tier.windows.start(time * SECOND)) {
                            if watermark.is_some_and(|at| tier.windows.end(start) + LATENESS <= at) {
                                misses += u64::from(position == 0);
                                continue;
                            }
                            let key = (tier.table.clone(), start, (*host).to_owned());
                            let row = expected.0.entry(key).or_insert((0, 0.0));
                            *row = (row.0 + 1, row.1 + value);
                        }
                    }
                    *counts.entry((rollup.name.clone(), misses > 0)).or_insert(0_u64) += 1;
                }
            }
            let applied = fold.apply(&message(&rollups, &points));
            stored.take(&applied);
            for (rollup, points) in &applied.points {
                *counted.entry((rollup.clone(), false)).or_insert(0) += points;
            }
            for late in &applied.late {
                *counted.entry((late.rollup.name.clone(), true)).or_insert(0) += late.points;
                prop_assert!(late.rows.num_rows() > 0 && late.age >= LATENESS);
            }
            if restores[epoch] {
                let bytes = fold.snapshot(String::new()).unwrap();
                fold = Fold::restore(&rollups, OPTIONS, &bytes).unwrap().fold;
            }
        }
        stored.take(&fold.apply(&message(&rollups, &[("z", 10_000, 0.0)])));
        counted.retain(|_, points| *points > 0);
        prop_assert_eq!(counted, counts);
        stored.0.retain(|key, _| key.2 != "z");
        prop_assert_eq!(stored, expected);
    }
}

#[test]
fn what_is_too_late_for_a_short_window_still_corrects_a_long_one() {
    let rollups = bounded_rollups();
    let tiered = &rollups[1..];
    let mut fold = Fold::new(tiered, OPTIONS);
    fold.apply(&message(tiered, &[("a", 1, 2.0)]));
    fold.apply(&message(tiered, &[("a", 125, 4.0)]));
    let late = fold.apply(&message(tiered, &[("a", 3, 8.0)]));
    assert_eq!((late.late.len(), late.late[0].points, late.late[0].age), (1, 1, 115 * SECOND));
    assert_eq!(late.points, [("tiered".to_owned(), 0)]);
    let [results] = &late.results[..] else { panic!("only the tier of two minutes is corrected: {late:?}") };
    assert_eq!((results.tier().name.as_str(), results.kind), ("2m", ResultKind::Corrected));
    let table = pretty_format_batches(std::slice::from_ref(&results.rows)).unwrap().to_string();
    assert!(table.contains("| a    | 2 | 10.0 |"), "{table}");
}

#[test]
fn a_tier_that_a_snapshot_does_not_know_begins_anew() {
    let with = |tiers: &str| {
        let sql = SQL.replace("(allowed_lateness", &format!("(tiers = '{tiers}', allowed_lateness"));
        compile(&[("cpu.sql".into(), sql)]).rollups
    };
    let (two, three) = (with("10s, 1m"), with("10s, 1m, 1h"));
    let mut fold = Fold::new(&two, OPTIONS);
    fold.apply(&message(&two, &[("a", 1, 1.0), ("a", 60, 1.0)]));
    let bytes = fold.snapshot(String::new()).unwrap();
    let restored = |rollups: &[Arc<Rollup>]| {
        let Restored { fold, changes, .. } = Fold::restore(rollups, OPTIONS, &bytes).unwrap();
        let Change::Kept { new_tiers, .. } = &changes["cpu"] else { panic!("{changes:?}") };
        let sizes: Vec<_> = fold.sizes().map(|(_, rows, panes)| (rows, panes)).collect();
        let left_out: Vec<String> =
            fold.rebuilds().iter().map(|rebuild| rebuild.tier().name.clone()).collect();
        assert_eq!(&left_out, new_tiers);
        (sizes, left_out)
    };
    assert_eq!(restored(&two), (vec![(4, 4)], vec![]));
    assert_eq!(restored(&three), (vec![(4, 4)], vec!["1h".to_owned()]));
    // A tier that is gone takes nothing with it.
    assert_eq!(restored(&with("10s")), (vec![(2, 2)], vec![]));
}
