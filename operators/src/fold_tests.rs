use arrow::array::{Float64Array, StringViewArray, TimestampNanosecondArray};
use arrow::util::pretty::pretty_format_batches;

use super::*;
use crate::partial::{aggregate, points_schema};
use crate::sql::compile;
use crate::watermark::{EpochFacts, PartitionFacts};

const SECOND: i64 = 1_000_000_000;
const OPTIONS: WatermarkOptions =
    WatermarkOptions { max_out_of_orderness: 0, idle_timeout: 60 * SECOND, owner_timeout: 60 * SECOND };
const SQL: &str = "CREATE MATERIALIZED VIEW cpu WITH (allowed_lateness = '1 minute') AS
    SELECT tumble(time, INTERVAL '10 seconds') AS w, labels['host'] AS host,
           avg(value) AS avg, max(value) + 1 AS m, count(*) AS n
    FROM points WHERE name = 'cpu' GROUP BY 1, 2 HAVING avg(value) < 100";

fn rollups() -> Vec<Arc<Rollup>> {
    let catalog = compile(&[("cpu.sql".into(), SQL.into())]);
    assert_eq!(catalog.errors, []);
    catalog.rollups
}

/// Points are (host, seconds, value).
fn message(rollups: &[Arc<Rollup>], points: &[(&str, i64, f64)]) -> Partials {
    let times = points.iter().map(|(_, time, _)| time * SECOND);
    let batch = RecordBatch::try_new(
        points_schema(&["host".to_owned()]),
        vec![
            Arc::new(StringViewArray::from_iter_values(points.iter().map(|_| "cpu"))),
            Arc::new(TimestampNanosecondArray::from_iter_values(times.clone())),
            Arc::new(Float64Array::from_iter_values(points.iter().map(|(.., value)| *value))),
            Arc::new(StringViewArray::from_iter_values(points.iter().map(|(host, ..)| host))),
        ],
    )
    .unwrap();
    let facts = EpochFacts {
        wall: 0,
        topics: BTreeMap::from([("points".into(), 1)]),
        partitions: vec![PartitionFacts {
            topic: "points".into(),
            partition: 0,
            from: 0,
            to: 1,
            high: times.max(),
            at_end: false,
            silent: 0,
        }],
    };
    let message = aggregate(rollups, &[batch], &facts, 1).messages.remove(0);
    Partials::decode(&message.encode().unwrap()).unwrap()
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
