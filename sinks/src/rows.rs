//! Rows as a store keeps them, in one form for all stores: what is compared when results are
//! checked.

use std::collections::BTreeMap;
use std::fmt;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, UInt64Type};
use arrow::record_batch::RecordBatch;

use crate::{Error, Table};

/// What tells the rows of one table apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowKey {
    /// Start of the window, nanoseconds.
    pub time: i64,
    /// The tags that the row has; a null is no tag.
    pub tags: BTreeMap<String, String>,
}

/// The fields that a row has; a null is no field.
pub type Fields = BTreeMap<String, Value>;

/// One field.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Float(f64),
    Int(i64),
    UInt(u64),
    Bool(bool),
    Text(String),
}

impl Value {
    /// A number of any kind.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            Self::Int(value) => Some(*value as f64),
            Self::UInt(value) => Some(*value as f64),
            Self::Bool(_) | Self::Text(_) => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::UInt(value) => write!(f, "{value}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Text(value) => f.write_str(value),
        }
    }
}

/// The rows of a batch, in its order, with the names and values of its columns as they are: how
/// [`crate::parquet::RollupParquet`] keeps them.
pub fn rows(table: &Table, batch: &RecordBatch) -> Result<Vec<(RowKey, Fields)>, Error> {
    let wrong = |reason: &str| Error::Rows { table: table.name.clone(), reason: reason.into() };
    let columns = table.tags.iter().chain(&table.fields).chain([&table.time]);
    if columns.max().is_some_and(|last| *last >= batch.num_columns()) {
        return Err(wrong("a column is missing"));
    }
    let time = cast(batch.column(table.time), &DataType::Timestamp(TimeUnit::Nanosecond, None))?;
    let time = cast(&time, &DataType::Int64)?;
    if time.null_count() > 0 {
        return Err(wrong("a window without a start"));
    }
    let time = time.as_primitive::<Int64Type>();
    let name = |column: &usize| batch.schema_ref().field(*column).name().clone();
    let mut all: Vec<(RowKey, Fields)> = time
        .values()
        .iter()
        .map(|time| (RowKey { time: *time, tags: BTreeMap::new() }, Fields::new()))
        .collect();
    for column in &table.tags {
        for (row, value) in all.iter_mut().zip(texts(batch.column(*column))?) {
            row.0.tags.extend(value.map(|value| (name(column), value)));
        }
    }
    for column in &table.fields {
        for (row, value) in all.iter_mut().zip(values(batch.column(*column))?) {
            row.1.extend(value.map(|value| (name(column), value)));
        }
    }
    Ok(all)
}

/// The values of a column, none where it is null. Types without a kind of their own become text.
pub fn values(column: &ArrayRef) -> Result<Vec<Option<Value>>, Error> {
    let mut kind = column.data_type();
    if let DataType::Dictionary(_, values) = kind {
        kind = values;
    }
    Ok(match kind {
        DataType::Null => vec![None; column.len()],
        DataType::Boolean => {
            cast(column, &DataType::Boolean)?.as_boolean().iter().map(|v| v.map(Value::Bool)).collect()
        }
        unsigned if unsigned.is_unsigned_integer() => {
            let values = cast(column, &DataType::UInt64)?;
            values.as_primitive::<UInt64Type>().iter().map(|v| v.map(Value::UInt)).collect()
        }
        signed if signed.is_signed_integer() => {
            let values = cast(column, &DataType::Int64)?;
            values.as_primitive::<Int64Type>().iter().map(|v| v.map(Value::Int)).collect()
        }
        number if number.is_floating() || number.is_decimal() => {
            let values = cast(column, &DataType::Float64)?;
            values.as_primitive::<Float64Type>().iter().map(|v| v.map(Value::Float)).collect()
        }
        DataType::Timestamp(..) => {
            let values = cast(column, &DataType::Timestamp(TimeUnit::Nanosecond, None))?;
            let values = cast(&values, &DataType::Int64)?;
            values.as_primitive::<Int64Type>().iter().map(|v| v.map(Value::Int)).collect()
        }
        _ => texts(column)?.into_iter().map(|value| value.map(Value::Text)).collect(),
    })
}

fn texts(column: &ArrayRef) -> Result<Vec<Option<String>>, Error> {
    let texts = cast(column, &DataType::Utf8)?;
    Ok(texts.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect())
}
