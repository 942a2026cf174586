use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringViewArray, TimestampNanosecondArray,
};
use arrow::compute::concat_batches;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::DFSchema;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::executor::block_on;
use proptest::prelude::*;

use super::*;
use crate::failure::Cause;
use crate::sql::{Rollup, batch_session, compile, plan_expression, rule_session};
use crate::testing::{rollup, stored_points};

/// Points of some hosts, given as (host, seconds, value).
type Points<'a> = &'a [(&'a str, i64, f64)];

/// The rows of `SELECT window, host, <fields> … GROUP BY window, host` as text, computed in a
/// stream from two epochs and in batch, which must agree; and how many values were lost. An error
/// when the SELECT is refused.
fn rows_of(fields: &str, rest: &str, points: Points<'_>) -> Result<(Vec<String>, u64), String> {
    let sql = format!(
        "CREATE MATERIALIZED VIEW r AS SELECT tumble(time, INTERVAL '1 minute') AS w, labels['host'] AS host,
         {fields} FROM points {rest}"
    );
    let catalog = compile(&[("r.sql".to_owned(), sql)]);
    if let Some(error) = catalog.errors.first() {
        return Err(error.to_string());
    }
    let rollup = &catalog.rollups[0];
    let half = points.len() / 2;
    let (mut states, mut failed) = (Vec::new(), 0);
    for part in [&points[..half], &points[half..]] {
        let (part, lost) = rollup.partial([crate::testing::points(part)]).unwrap();
        states.push(part);
        failed += lost.rows;
    }
    let reduced = rollup.reduce(states).unwrap();
    assert!(reduced.left.is_empty(), "{fields} {rest}");
    let finished = rollup.finish(vec![reduced.merged]).unwrap();
    let (stream, batch) = (lines(&finished.rows), lines(&in_batch(rollup, points)));
    assert_eq!(stream, batch, "{fields} {rest}");
    failed += finished.failures.iter().map(|failure| failure.count).sum::<u64>();
    assert!(finished.failures.iter().all(|failure| failure.cause == Cause::Value), "{fields} {rest}");
    Ok((stream, failed))
}

fn rows(fields: &str, rest: &str, points: Points<'_>) -> (Vec<String>, u64) {
    rows_of(fields, rest, points).unwrap()
}

fn in_batch(rollup: &Rollup, points: Points<'_>) -> RecordBatch {
    let config = SessionConfig::new().with_target_partitions(1);
    let session = batch_session(config, Arc::new(RuntimeEnv::default()));
    session.register_batch("points", stored_points(points)).unwrap();
    let frame = block_on(session.sql(&rollup.finest().batch_sql)).unwrap();
    let rows = block_on(frame.collect()).unwrap();
    match rows.first() {
        Some(first) => concat_batches(&first.schema(), &rows).unwrap(),
        None => RecordBatch::new_empty(Arc::clone(&rollup.schema)),
    }
}

/// The rows without their window, sorted: `host | field | …`. What is null is empty.
fn lines(rows: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::new().with_null("");
    let columns = rows.columns().iter().skip(1).filter(|column| !column.data_type().is_nested());
    let columns: Vec<_> = columns.map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
    let line =
        |row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join(" | ");
    let mut lines: Vec<String> = (0..rows.num_rows()).map(line).collect();
    lines.sort();
    lines
}

const GROUPED: &str = "GROUP BY 1, 2";

/// Two hosts; the variance of `even` comes out a little below zero.
const HOSTS: Points<'_> = &[
    ("even", 0, 0.7),
    ("even", 1, 0.7),
    ("even", 2, 0.7),
    ("odd", 0, 1.0),
    ("odd", 1, 4.0),
    ("odd", 2, 9.0),
];

#[test]
fn an_operation_that_fails_gives_null_for_its_row_alone() {
    for (field, even, odd, failed) in [
        ("sqrt(avg(value) - 1) AS a", "", "1.9148542155126762", 1),
        ("factorial(CAST(max(value) * 3 AS BIGINT)) AS a", "2", "", 1),
        ("100 / (count(*) - 3) AS a", "", "", 0),
        ("100 % (CAST(max(value) AS BIGINT) - 9) AS a", "1", "", 0),
        ("9223372036854775807 + count(*) AS a", "", "", 2),
        ("-9223372036854775807 - count(*) AS a", "", "", 2),
        ("count(*) * 9223372036854775807 AS a", "", "", 2),
        ("substr('abc', 1, CAST(-abs(min(value)) AS BIGINT) - 1) AS a", "", "", 2),
        ("chr(CAST(max(value) * -1 AS BIGINT)) AS a", "\u{0}", "", 1),
        ("CAST(labels['host'] || '1' AS BIGINT) + 0 AS a", "", "", 2),
        ("TRY_CAST(labels['host'] AS DOUBLE) AS a", "", "", 0),
        ("log(sum(value) - sum(value)) AS a", "", "", 0),
        ("sum(value) / (count(*) - 3) AS a", "", "", 0),
        ("TRY_CAST('NaN' AS DOUBLE) + sum(value) AS a", "", "", 0),
        ("exp(sum(value) * 1e9) AS a", "", "", 0),
        // The part that takes the place of a null, and the other side of an AND, are seen.
        ("coalesce(100 / (count(*) - 3), -1) AS a", "-1", "-1", 0),
        ("coalesce(TRY_CAST(min(labels['host']) AS DOUBLE), -1) AS a", "-1.0", "-1.0", 0),
        ("CASE WHEN count(*) > 5 AND sqrt(avg(value) - 1) > 1 THEN 1 ELSE 0 END AS a", "0", "0", 0),
        ("coalesce(sum(value) / (count(*) - 3), -1) AS a", "-1.0", "-1.0", 0),
        ("(100 / (count(*) - 3)) IS NULL AS a", "true", "true", 0),
        ("CASE WHEN count(*) <> 3 AND 100 / (count(*) - 3) > 1 THEN 1 ELSE 0 END AS a", "0", "0", 0),
        ("CASE WHEN sum(value) / (count(*) - 3) < 5 THEN 1 ELSE 0 END AS a", "0", "0", 0),
        // Of points.
        ("sum(sqrt(value - 1)) AS a", "", "4.5604779323150675", 3),
        ("count(CAST(labels['host'] AS DOUBLE)) AS a", "0", "0", 6),
        ("min(log(value - 1)) AS a", "", "0.47712125471966244", 0),
        ("max(value) FILTER (WHERE value / 0 > 1) AS a", "", "", 0),
        ("sum(1 / (value - 1)) AS a", "-10.0", "0.4583333333333333", 0),
        ("count(*) FILTER (WHERE NOT (value / (value - value) < 1)) AS a", "0", "0", 0),
        ("corr(value, 0 * value) AS a", "", "", 0),
    ] {
        let (found, lost) = rows(field, GROUPED, HOSTS);
        assert_eq!(found, [format!("even | {even}"), format!("odd | {odd}")], "{field}");
        assert_eq!(lost, failed, "{field}");
    }
}

#[test]
fn conditions_over_what_is_no_number_are_neither_true_nor_false() {
    for (rest, expected) in [
        ("WHERE value / (value - value) < 1 GROUP BY 1, 2", vec![]),
        ("WHERE NOT (value / (value - value) < 1) GROUP BY 1, 2", vec![]),
        ("WHERE value > 1 OR value / 0 < 1 GROUP BY 1, 2", vec!["odd | 2"]),
        ("WHERE (value / 0) IS NULL GROUP BY 1, 2", vec!["even | 3", "odd | 3"]),
        ("WHERE CAST(labels['host'] AS DOUBLE) > 1 GROUP BY 1, 2", vec![]),
        ("GROUP BY 1, 2 HAVING (sum(value) - sum(value)) / (count(*) - 3) < 1", vec![]),
        ("GROUP BY 1, 2 HAVING NOT ((sum(value) - sum(value)) / (count(*) - 3) < 1)", vec![]),
        ("GROUP BY 1, 2 HAVING sqrt(avg(value) - 1) > 0", vec!["odd | 3"]),
        ("GROUP BY 1, 2 HAVING sum(value * 1e308) > 1", vec!["odd | 3"]),
    ] {
        assert_eq!(rows("count(*) AS n", rest, HOSTS).0, expected, "{rest}");
    }
}

/// A group column that cannot be computed is null, as TRY_CAST would make it.
#[test]
fn a_point_whose_group_cannot_be_computed_is_in_the_group_without_it() {
    let points: Points<'_> = &[("3", 0, 1.0), ("x", 1, 1.0), ("99999999999999999999", 2, 1.0)];
    let sql = "CREATE MATERIALIZED VIEW r AS SELECT tumble(time, INTERVAL '1 minute') AS w,
        CAST(CAST(labels['host'] AS BIGINT) AS VARCHAR) AS host, count(*) AS n FROM points GROUP BY 1, 2";
    let rollup = rollup(sql);
    let (states, failed) = rollup.partial([crate::testing::points(points)]).unwrap();
    let stream = rollup.finish(vec![states]).unwrap().rows;
    assert_eq!((lines(&stream), failed.rows), (vec![" | 2".to_owned(), "3 | 1".to_owned()], 2));
    assert_eq!(lines(&stream), lines(&in_batch(&rollup, points)));
    let first = failed.first.unwrap();
    assert!(first.contains("Cannot cast string 'x' to value of Int64"), "{first}");
}

#[test]
fn rows_that_fail_are_found_wherever_they_are() {
    let rows = 9_001;
    let fails = |row: usize| row % 997 == 3 || (4_000..4_100).contains(&row) || row == rows - 1;
    let values = (0..rows).map(|row| if fails(row) { -1.0 } else { row as f64 });
    let batch =
        RecordBatch::try_from_iter([("v", Arc::new(Float64Array::from_iter_values(values)) as ArrayRef)]);
    let batch = batch.unwrap();
    let (found, failed) = counted(|| evaluate("sqrt(v) + 1", &batch));
    assert_eq!(failed.rows as usize, (0..rows).filter(|row| fails(*row)).count());
    assert_eq!(failed.first.as_deref().map(|text| text.split(':').next().unwrap()), Some("sqrt(v)"));
    let found = found.as_primitive::<Float64Type>();
    for row in 0..rows {
        assert_eq!(found.is_null(row), fails(row), "{row}");
        assert!(fails(row) || found.value(row) == (row as f64).sqrt() + 1.0, "{row}");
    }
}

fn evaluate(sql: &str, batch: &RecordBatch) -> ArrayRef {
    let expr = planned(&rule_session(), sql, batch).unwrap();
    expr.evaluate(batch).unwrap().into_array(batch.num_rows()).unwrap()
}

fn planned(session: &SessionContext, sql: &str, batch: &RecordBatch) -> Result<Arc<dyn PhysicalExpr>> {
    let schema = DFSchema::try_from(batch.schema())?;
    plan_expression(session, session.parse_sql_expr(sql, &schema)?, &schema)
}

/// Values of each kind of column that functions may not take.
fn odd_rows() -> RecordBatch {
    let texts = [
        "",
        "a",
        "ä\u{301}😀",
        "-1",
        "1.5",
        "2024-02-30",
        "(",
        "%",
        "\0",
        "9999999999999999999",
        "NaN",
        "x,y",
    ];
    let floats = [0.0, -0.0, 1.5, -1.0, 1e308, -1e308, 5e-324, 9.3e18, -9.3e18, 170.0, 0.1, 1e17];
    let whole = [0, 1, -1, i64::MAX, i64::MIN, 2, 20, 21, 64, -64, 1 << 31, 1_114_112];
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("s", Arc::new(StringViewArray::from_iter(texts.into_iter().map(Some).chain([None])))),
        ("t", Arc::new(StringViewArray::from_iter(texts.into_iter().rev().map(Some).chain([None])))),
        ("f", Arc::new(Float64Array::from_iter(floats.into_iter().map(Some).chain([None])))),
        ("i", Arc::new(Int64Array::from_iter(whole.into_iter().map(Some).chain([None])))),
        ("j", Arc::new(Int64Array::from_iter(whole.into_iter().rev().map(Some).chain([None])))),
        ("at", Arc::new(TimestampNanosecondArray::from_iter(whole.into_iter().map(Some).chain([None])))),
        ("b", Arc::new(BooleanArray::from_iter((0..13).map(|row| (row < 12).then_some(row % 2 == 0))))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// Functions whose results grow with the value of a number; SQL may not call them with anything but
/// a small constant.
const SIZED: [&str; 8] =
    ["repeat", "lpad", "rpad", "array_repeat", "list_repeat", "array_resize", "list_resize", "range"];

/// Every function that takes columns of these kinds gives a value or null for each row, whatever is
/// in it.
#[test]
fn no_function_fails_or_panics_whatever_it_is_given() {
    let rows = odd_rows();
    let session = rule_session();
    let state = session.state();
    let mut arguments: Vec<String> = ["s", "f", "i", "at", "b"].map(str::to_owned).to_vec();
    arguments.extend(
        ["s, t", "s, i", "i, j", "f, f", "f, i", "i, at", "s, at", "at, s", "s, b", "at, at"]
            .map(str::to_owned),
    );
    arguments.extend(
        ["s, t, s", "s, t, i", "s, i, j", "s, i, t", "f, f, f", "i, j, i", "at, s, t", "i, j, j"]
            .map(str::to_owned),
    );
    arguments.extend(
        ["s, t, i, s", "s, t, i, j", "s, t, s, t", "f, f, f, i", "make_array(i, j), i"].map(str::to_owned),
    );
    arguments.extend(
        ["make_array(s, t), s", "make_array(f, f)", "make_array(f), make_array(f, 1)"].map(str::to_owned),
    );
    let mut names: Vec<&String> = state.scalar_functions().keys().collect();
    names.sort();
    let mut count = 0;
    for name in names.into_iter().filter(|name| !SIZED.contains(&name.as_str()) && *name != "generate_series")
    {
        for arguments in &arguments {
            let sql = format!("{name}({arguments})");
            let Ok(expr) = planned(&session, &sql, &rows) else { continue };
            count += 1;
            let values = expr.evaluate(&rows).and_then(|values| values.into_array(rows.num_rows()));
            let values = values.unwrap_or_else(|error| panic!("{sql}: {error}"));
            if let Some(floats) = values.as_primitive_opt::<Float64Type>() {
                assert!(floats.iter().flatten().all(f64::is_finite), "{sql}: {floats:?}");
            }
        }
    }
    assert!(count > 500, "{count}");
}

/// Operators, over every pair of kinds of columns that they take.
#[test]
fn no_operator_fails_or_wraps_around() {
    let rows = odd_rows();
    let session = rule_session();
    let columns = ["s", "t", "f", "i", "j", "at", "b"];
    for op in
        ["+", "-", "*", "/", "%", "||", "~", "!~*", "LIKE", "&", "|", "#", "<<", ">>", "<", "=", "SIMILAR TO"]
    {
        for (left, right) in columns.iter().flat_map(|left| columns.iter().map(move |right| (left, right))) {
            let sql = format!("{left} {op} {right}");
            let Ok(expr) = planned(&session, &sql, &rows) else { continue };
            if let Err(error) = expr.evaluate(&rows) {
                panic!("{sql}: {error}");
            }
        }
    }
    let whole = |row: usize| rows["i"].as_primitive::<arrow::datatypes::Int64Type>().value(row);
    let other = |row: usize| rows["j"].as_primitive::<arrow::datatypes::Int64Type>().value(row);
    type Exact = fn(i64, i64) -> Option<i64>;
    let exact: [(&str, Exact); 6] = [
        ("i + j", i64::checked_add),
        ("i - j", i64::checked_sub),
        ("i * j", i64::checked_mul),
        ("i / j", i64::checked_div),
        ("i % j", |i, j| if j == -1 { Some(0) } else { i.checked_rem(j) }),
        ("-i", |i, _| i.checked_neg()),
    ];
    for (sql, exact) in exact {
        let values = evaluate(sql, &rows);
        let values = values.as_primitive::<arrow::datatypes::Int64Type>();
        for row in 0..12 {
            let value = values.is_valid(row).then(|| values.value(row));
            assert_eq!(value, exact(whole(row), other(row)), "{sql} of {} and {}", whole(row), other(row));
        }
    }
}

/// Whether a CASE can be null is found out by evaluating its conditions without any column.
#[test]
fn what_guards_a_branch_is_not_taken_for_constant() {
    let rows = odd_rows();
    for (sql, nulls) in [
        ("CASE WHEN sqrt(f) >= 0 THEN sqrt(f) ELSE 1.5 END", 0),
        ("coalesce(CAST(s AS BIGINT) % j, 3)", 0),
        ("CASE WHEN CAST(s AS DOUBLE) > 0 THEN s ELSE t END", 1),
        ("CASE WHEN s LIKE '%.%' THEN split_part(s, '.', 2) END", 12),
    ] {
        let (values, _) = counted(|| planned(&rule_session(), sql, &rows).unwrap());
        let field = values.return_field(rows.schema_ref()).unwrap();
        let values = evaluate(sql, &rows);
        assert_eq!(values.null_count(), nulls, "{sql}: {values:?}");
        assert!(field.is_nullable() || nulls == 0, "{sql}");
    }
    let (_, failed) =
        counted(|| planned(&rule_session(), "CASE WHEN s LIKE '%.%' THEN s ELSE '' END", &rows));
    assert_eq!(failed, Failed::default());
}

#[test]
fn a_wrapped_expression_reads_as_the_one_in_it() {
    let session = SessionContext::new();
    let rows = odd_rows();
    let schema = DFSchema::try_from(rows.schema()).unwrap();
    let plain = session.parse_sql_expr("sqrt(f) + CAST(s AS DOUBLE) > 1", &schema).unwrap();
    let plain = session.create_physical_expr(plain, &schema).unwrap();
    let wrapped = total_root(&plain, rows.schema_ref()).unwrap();
    assert_eq!(wrapped.to_string(), plain.to_string());
    assert_eq!(fmt_sql(wrapped.as_ref()).to_string(), fmt_sql(plain.as_ref()).to_string());
    assert!(Arc::ptr_eq(&total(&wrapped, rows.schema_ref()).unwrap(), &wrapped), "it is wrapped once");
}

/// DataFusion takes the shared part for one that cannot be null, and then finds that it can.
#[test]
fn a_case_that_several_aggregates_share_is_planned() {
    let case = "CASE WHEN 0 > (value + TRY_CAST(labels['host'] AS BIGINT)) THEN value ELSE 0 END";
    let fields = format!("count({case}) AS n, min({case}) AS low, max({case}) AS high");
    assert_eq!(
        rows(&fields, GROUPED, &[("a", 0, 7.0), ("-9", 0, 1.0)]).0,
        ["-9 | 1 | 1.0 | 1.0", "a | 1 | 0.0 | 0.0"]
    );
}

/// Expressions over `value`, a whole number and a text that is one at times. Many of them fail on
/// some points.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "value",
        "CAST(value AS BIGINT)",
        "CAST(labels['host'] AS DOUBLE)",
        "TRY_CAST(labels['host'] AS BIGINT)",
        "0",
        "1.5",
        "-3",
        "9223372036854775807",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(3, 12, 3, |inner| {
        let two = (inner.clone(), inner.clone(), prop::sample::select(vec!["+", "-", "*", "/", "%"]));
        prop_oneof![
            two.prop_map(|(left, right, op)| format!("({left} {op} {right})")),
            (inner.clone(), prop::sample::select(vec!["sqrt", "ln", "abs", "-"]))
                .prop_map(|(of, function)| format!("{function}({of})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("coalesce({a}, {b})")),
            (inner.clone(), inner.clone(), inner)
                .prop_map(|(a, b, c)| format!("CASE WHEN {a} > {b} THEN {c} ELSE {a} END")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever fails where, a stream gives what one pass over all points gives; and no expression
    /// stops a rollup.
    #[test]
    fn a_stream_and_a_batch_query_agree_on_what_fails(
        of_points in expression(),
        of_rows in expression(),
        condition in expression(),
        points in prop::collection::vec(
            (prop::sample::select(vec!["a", "1", "-2.5", "99999999999999999999", "0"]), 0i64..50,
             prop::sample::select(vec![0.0, 1.0, -1.0, 0.5, 7.0, 1e300, -1e300])),
            1..40,
        ),
    ) {
        // Over aggregates in place of points.
        let over = |expr: &str| {
            expr.replace("labels['host']", "max(labels['host'])").replace("value AS", "min(value) AS").replace("value", "max(value)")
                .replace("min(max(value))", "min(value)")
        };
        let fields = format!(
            "count({of_points}) AS n, min({of_points}) AS low, max({of_points}) AS high, {} AS field,
             count(*) FILTER (WHERE {of_points} > {condition}) AS over", over(&of_rows)
        );
        let rest = format!("WHERE ({condition} > 0) IS NOT FALSE GROUP BY 1, 2");
        if let Err(refused) = rows_of(&fields, &rest, &points) {
            // An operation over constants that fails is a mistake. Two aggregates have one name,
            // when only a cast differs.
            let known = ["cannot be computed", "only a CAST tells two aggregates apart"];
            prop_assert!(known.iter().any(|known| refused.contains(known)), "{}", refused);
        }
    }
}
