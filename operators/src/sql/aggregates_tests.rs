//! Aggregates over values that they may not take, and sums that do not fit.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int64Type, UInt64Type};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::SessionConfig;
use futures::executor::block_on;
use proptest::prelude::*;
use std::sync::Arc;

use super::{batch_session, compile};
use crate::testing::{points, rollup, stored_points};

const ODD: [f64; 12] = [0.0, -0.0, 1.5, -1.0, 1e308, 1e308, -1e308, 5e-324, 9.3e18, -9.3e18, 170.0, 1e17];

/// Every aggregate that a rollup may have gives a value or null, whatever its points hold.
#[test]
fn no_aggregate_fails_or_panics_whatever_it_is_given() {
    let session = super::rule_session();
    let state = session.state();
    let mut names: Vec<&String> = state.aggregate_functions().keys().collect();
    names.sort();
    let whole = "CAST(value AS BIGINT)";
    let arguments = [
        "value".to_owned(),
        whole.to_owned(),
        "labels['host']".to_owned(),
        "time".to_owned(),
        "value > 0".to_owned(),
        "CAST(value AS DECIMAL(28, 4))".to_owned(),
        "CAST(value AS INT)".to_owned(),
        "time - date_trunc('hour', time)".to_owned(),
        format!("CAST({whole} AS BIGINT UNSIGNED)"),
        "value, value".to_owned(),
        "value, -value".to_owned(),
        format!("value, {whole}"),
        "value, 0.5".to_owned(),
        "value, 0.999, 10".to_owned(),
        format!("{whole}, 0.5"),
        format!("value, {whole}, 0.5"),
        "value, value, 0.5".to_owned(),
        "labels['host'] ORDER BY value".to_owned(),
        "value ORDER BY time".to_owned(),
        "value, 2 ORDER BY time".to_owned(),
    ];
    let hosts = ["", "ä😀", "-1", "x"];
    let given: Vec<_> =
        ODD.iter().enumerate().map(|(row, value)| (hosts[row % 4], row as i64, *value)).collect();
    let mut ran = 0;
    for name in names {
        for arguments in &arguments {
            // Also as text, for types that are not stored.
            for field in [format!("{name}({arguments})"), format!("CAST({name}({arguments}) AS VARCHAR)")] {
                let sql = format!(
                    "CREATE MATERIALIZED VIEW r AS SELECT tumble(time, INTERVAL '1 minute') AS w, {field} AS a
                     FROM points GROUP BY 1"
                );
                let catalog = compile(&[("r.sql".to_owned(), sql)]);
                let Some(rollup) = catalog.rollups.first() else { continue };
                ran += 1;
                let states = given.chunks(5).map(|part| {
                    rollup.partial([points(part)]).unwrap_or_else(|error| panic!("{field}: {error}")).0
                });
                let reduced = rollup.reduce(states.collect()).unwrap();
                assert!(reduced.left.is_empty(), "{field}");
                let finished = rollup.finish(vec![reduced.merged]).unwrap();
                assert_eq!(finished.failures, [], "{field}");
                let values = finished.rows.column(1);
                if let Some(floats) = values.as_primitive_opt::<Float64Type>() {
                    assert!(floats.iter().flatten().all(f64::is_finite), "{field}: {floats:?}");
                }
            }
        }
    }
    assert!(ran > 80, "{ran}");
}

#[test]
fn decimals_that_may_overflow_are_refused() {
    for (field, refused) in [
        ("sum(CAST(value AS DECIMAL(38, 2)))", true),
        ("avg(CAST(value AS DECIMAL(30, 2)))", true),
        ("sum(CAST(value AS DECIMAL(28, 2)))", false),
    ] {
        let sql = format!(
            "CREATE MATERIALIZED VIEW r AS SELECT tumble(time, INTERVAL '1 minute') AS w, {field} AS a FROM points GROUP BY 1"
        );
        let errors = compile(&[("r.sql".to_owned(), sql)]).errors;
        assert_eq!(!errors.is_empty(), refused, "{errors:?}");
        assert!(
            errors.iter().all(|error| error.to_string().contains("cast them to DECIMAL(28, …) or DOUBLE")),
            "{errors:?}"
        );
    }
}

fn batch_sums(sql: &str, given: &[(&str, i64, f64)]) -> arrow::array::RecordBatch {
    let session =
        batch_session(SessionConfig::new().with_target_partitions(1), Arc::new(RuntimeEnv::default()));
    session.register_batch("points", stored_points(given)).unwrap();
    let rows = block_on(block_on(session.sql(sql)).unwrap().collect()).unwrap();
    arrow::compute::concat_batches(&rows[0].schema(), &rows).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// A sum of whole numbers is right, or null when it does not fit: in a stream, in batch, and
    /// over windows of rows.
    #[test]
    fn sums_of_whole_numbers_never_wrap_around(
        values in prop::collection::vec(prop::sample::select(vec![
            0.0, 1.0, -1.0, 9e18, -9e18, 4_611_686_018_427_387_904.0, -4_611_686_018_427_387_904.0, 123_456_789.0,
        ]), 1..20),
    ) {
        let whole = |value: f64| value as i128;
        let exact: i128 = values.iter().copied().map(whole).sum();
        let positive = values.iter().copied().filter(|value| *value >= 0.0).map(whole).reduce(|a, b| a + b);
        let rollup = rollup("CREATE MATERIALIZED VIEW r AS SELECT tumble(time, INTERVAL '1 minute') AS w,
            sum(CAST(value AS BIGINT)) AS s, sum(CAST(value AS BIGINT UNSIGNED)) FILTER (WHERE value >= 0) AS u,
            sum(CAST(value AS BIGINT)) / 2 AS half, count(*) AS n
            FROM points GROUP BY 1 HAVING sum(CAST(value AS BIGINT)) IS NULL OR sum(CAST(value AS BIGINT)) > -1e30");
        let given: Vec<_> = values.iter().enumerate().map(|(row, value)| ("a", row as i64, *value)).collect();
        let states: Vec<_> = given.chunks(7).map(|part| rollup.partial([points(part)]).unwrap().0).collect();
        let reduced = rollup.reduce(states).unwrap();
        let stream = rollup.finish(vec![reduced.merged]).unwrap().rows;
        for rows in [&stream, &batch_sums(&rollup.finest().batch_sql, &given)] {
            let signed = rows.column(1).as_primitive::<Int64Type>();
            let value = signed.is_valid(0).then(|| signed.value(0));
            prop_assert_eq!(value, i64::try_from(exact).ok());
            let unsigned = rows.column(2).as_primitive::<UInt64Type>();
            prop_assert_eq!(unsigned.is_valid(0).then(|| unsigned.value(0)), positive.and_then(|sum| u64::try_from(sum).ok()));
            let half = rows.column(3).as_primitive::<Int64Type>();
            prop_assert_eq!(half.is_valid(0).then(|| half.value(0)), i64::try_from(exact).ok().map(|sum| sum / 2));
        }
        let over = batch_sums("SELECT sum(CAST(value AS BIGINT)) OVER () AS s FROM points", &given);
        let over = over.column(0).as_primitive::<Int64Type>();
        prop_assert_eq!(over.is_valid(0).then(|| over.value(0)), i64::try_from(exact).ok());
    }
}

#[test]
fn an_empty_text_in_a_computed_group_column_is_null() {
    let given = [("a.x", 0, 1.0), ("a", 1, 2.0), ("b.x", 2, 4.0), (".x", 3, 8.0), ("", 4, 16.0)];
    for (column, group, expected) in [
        ("split_part(labels['host'], '.', 1)", "1, 2", vec![" 24.0", "a 3.0", "b 4.0"]),
        (
            "split_part(labels['host'], '.', 2)",
            "1, split_part(labels['host'], '.', 2)",
            vec![" 18.0", "x 13.0"],
        ),
        (
            "Split_Part(labels['host'], '.', 2)",
            "1, split_part(labels['host'], '.', 2)",
            vec![" 18.0", "x 13.0"],
        ),
        ("nullif(split_part(labels['host'], '.', 2), '')", "1, part", vec![" 18.0", "x 13.0"]),
        ("(trim(split_part(labels['host'], '.', 2)))", "1, part", vec![" 18.0", "x 13.0"]),
    ] {
        let sql = format!(
            "CREATE MATERIALIZED VIEW r AS SELECT tumble(time, INTERVAL '1 minute') AS w, {column} AS part,
             sum(value) AS s, max(split_part(labels['host'], '.', 2)) AS largest FROM points GROUP BY {group}"
        );
        let rollup = rollup(&sql);
        let states = rollup.partial([points(&given)]).unwrap().0;
        let stream = rollup.finish(vec![states]).unwrap().rows;
        for rows in [&stream, &batch_sums(&rollup.finest().batch_sql, &given)] {
            let parts = arrow::compute::cast(rows.column(1), &arrow::datatypes::DataType::Utf8).unwrap();
            let sums = rows.column(2).as_primitive::<Float64Type>();
            let line = |row: usize| {
                let part = parts.as_string::<i32>();
                format!("{} {:?}", if part.is_null(row) { "" } else { part.value(row) }, sums.value(row))
            };
            let mut lines: Vec<String> = (0..rows.num_rows()).map(line).collect();
            lines.sort();
            assert_eq!(lines, expected, "{column} {}", rollup.finest().batch_sql);
        }
    }
}

/// What an aggregate sees of a text that is also a group column stays as it is.
#[test]
fn only_group_columns_have_null_in_place_of_an_empty_text() {
    let rollup = rollup(
        "CREATE MATERIALIZED VIEW r AS SELECT tumble(time, INTERVAL '1 minute') AS w,
        split_part(labels['host'], '.', 2), count(split_part(labels['host'], '.', 2)) AS n,
        upper(split_part(labels['host'], '.', 2)) AS field FROM points
        GROUP BY 1, 2 HAVING coalesce(split_part(labels['host'], '.', 2), 'none') <> 'y'",
    );
    let given = [("a.x", 0, 1.0), ("a", 1, 2.0), ("a.y", 1, 2.0)];
    let states = rollup.partial([points(&given)]).unwrap().0;
    let stream = rollup.finish(vec![states]).unwrap().rows;
    assert_eq!(rollup.schema.field(1).name(), "split_part(points.labels['host'],Utf8(\".\"),Int64(2))");
    assert_eq!(stream.num_rows(), 2);
    let counts = stream.column(2).as_primitive::<Int64Type>();
    assert_eq!(counts.values().as_ref(), [1, 1], "an empty text is one");
    let batch = batch_sums(&rollup.finest().batch_sql, &given);
    assert_eq!((batch.num_rows(), batch.schema().field(1).name()), (2, rollup.schema.field(1).name()));
}
