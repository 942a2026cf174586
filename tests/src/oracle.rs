//! The oracle: a rollup's SELECT in batch, over all points at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, MapBuilder, RecordBatch, StringArray, StringBuilder,
    TimestampNanosecondArray,
};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{
    DataType, Field as ArrowField, Float64Type, Int64Type, Schema, TimestampNanosecondType, UInt64Type,
};
use datafusion::error::Result;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::{SessionConfig, SessionContext};
use operators::sql::{Rollup, Tier, batch_functions, batch_session, compile};

use crate::influx::{Field, Key};
use crate::input::Point;

/// Rows of a rollup, by window and tags.
pub type Rows = BTreeMap<Key, BTreeMap<String, Field>>;

/// Runs `sql` over a table `points` as it is stored. One partition: sums are added in the order of
/// the points.
///
/// By plain DataFusion, which shares nothing with the product but the functions for windows. Where
/// an operation fails, or gives a float that is not finite, it has no answer; then the product's
/// own session gives it.
pub fn run(sql: &str, points: &RecordBatch) -> Result<RecordBatch> {
    let config = SessionConfig::new().with_target_partitions(1);
    let plain = SessionContext::new_with_config(config.clone());
    for function in batch_functions() {
        plain.register_udf(function);
    }
    match run_in(&plain, sql, points) {
        Ok(rows) if rows.columns().iter().all(is_finite) => Ok(rows),
        _ => run_in(&batch_session(config, Arc::new(RuntimeEnv::default())), sql, points),
    }
}

fn run_in(session: &SessionContext, sql: &str, points: &RecordBatch) -> Result<RecordBatch> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        session.register_batch("points", points.clone())?;
        let frame = session.sql(sql).await?;
        let fields = frame.schema().fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(concat_batches(&schema, &frame.collect().await?)?)
    })
}

fn is_finite(column: &ArrayRef) -> bool {
    let floats = column.as_primitive_opt::<Float64Type>();
    floats.is_none_or(|floats| floats.iter().flatten().all(f64::is_finite))
}

/// The rows of a rollup's SELECT, run by DataFusion in one pass over all points. `sql` is the text
/// of the rollup's file.
pub fn rows(sql: &str, points: &[Point]) -> Rows {
    let catalog = compile(&[("batch.sql".to_owned(), sql.to_owned())]);
    assert_eq!(catalog.errors, []);
    let rollup = &catalog.rollups[0];
    rows_of_tier(rollup, rollup.finest(), points)
}

/// The same for one tier of a rollup.
pub fn rows_of_tier(rollup: &Rollup, tier: &Tier, points: &[Point]) -> Rows {
    let batch = run(&tier.batch_sql, &batch_of(points)).unwrap();
    let tags: Vec<(String, ArrayRef)> = rollup
        .shape
        .tags
        .iter()
        .map(|column| {
            let values = cast(batch.column(*column), &DataType::Utf8).unwrap();
            (batch.schema().field(*column).name().clone(), values)
        })
        .collect();
    let mut rows = Rows::new();
    for row in 0..batch.num_rows() {
        let tag = |(name, values): &(String, ArrayRef)| {
            values.is_valid(row).then(|| (name.clone(), values.as_string::<i32>().value(row).to_owned()))
        };
        let time = batch.column(rollup.shape.time).as_primitive::<TimestampNanosecondType>().value(row);
        let key = Key { time, tags: tags.iter().filter_map(tag).collect() };
        let mut fields = BTreeMap::new();
        for column in &rollup.shape.fields {
            let values = batch.column(*column);
            let value = match values.data_type() {
                DataType::Float64 => Field::Float(values.as_primitive::<Float64Type>().value(row)),
                DataType::UInt64 => Field::Unsigned(values.as_primitive::<UInt64Type>().value(row)),
                _ => Field::Integer(values.as_primitive::<Int64Type>().value(row)),
            };
            fields.insert(batch.schema().field(*column).name().clone(), value);
        }
        rows.insert(key, fields);
    }
    rows
}

/// What `found` has otherwise than `expected`, a line each; floats are equal to 1e-9 of their size.
pub fn differences(found: &Rows, expected: &Rows) -> Vec<String> {
    let mut differences = Vec::new();
    for (key, fields) in expected {
        match found.get(key) {
            None => differences.push(format!("missing {key:?}: {fields:?}")),
            Some(other) if !same(fields, other) => {
                differences.push(format!("{key:?}: {other:?} instead of {fields:?}"));
            }
            Some(_) => {}
        }
    }
    let extra = found.iter().filter(|(key, _)| !expected.contains_key(key));
    differences.extend(extra.map(|(key, fields)| format!("not expected {key:?}: {fields:?}")));
    differences
}

fn same(expected: &BTreeMap<String, Field>, found: &BTreeMap<String, Field>) -> bool {
    let equal = |(name, value): (&String, &Field)| match found.get(name) {
        None => false,
        Some(other) => match (value.as_f64(), other.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
            _ => value == other,
        },
    };
    expected.len() == found.len() && expected.iter().all(equal)
}

fn batch_of(points: &[Point]) -> RecordBatch {
    let mut labels = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    for point in points {
        for (key, value) in &point.series.labels {
            labels.keys().append_value(key);
            labels.values().append_value(value);
        }
        labels.append(true).unwrap();
    }
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("name", Arc::new(StringArray::from_iter_values(points.iter().map(|point| &point.series.name)))),
        ("labels", Arc::new(labels.finish())),
        ("time", Arc::new(TimestampNanosecondArray::from_iter_values(points.iter().map(|p| p.time)))),
        ("value", Arc::new(Float64Array::from_iter_values(points.iter().map(|point| point.value)))),
    ];
    let fields: Vec<ArrowField> =
        columns.iter().map(|(name, array)| ArrowField::new(*name, array.data_type().clone(), true)).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}
