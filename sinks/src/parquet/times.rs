//! Times in files are instants (`isAdjustedToUTC`), in memory they have no zone: the same
//! nanoseconds since the epoch.
//!
//! Without the mark, readers take a time for that of a clock somewhere, and show or compare it in
//! their own zone. Files of releases before this one lack it; both kinds are read.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampNanosecondType};
use arrow::error::ArrowError;

const UTC: &str = "UTC";

/// The schema with times as instants.
pub(crate) fn marked_schema(schema: &Schema) -> SchemaRef {
    mapped(schema, |kind| match kind {
        DataType::Timestamp(TimeUnit::Nanosecond, None) => {
            DataType::Timestamp(TimeUnit::Nanosecond, Some(UTC.into()))
        }
        other => other.clone(),
    })
}

/// The schema with times without a zone.
pub fn unmarked_schema(schema: &Schema) -> SchemaRef {
    mapped(schema, |kind| match kind {
        DataType::Timestamp(TimeUnit::Nanosecond, Some(_)) => DataType::Timestamp(TimeUnit::Nanosecond, None),
        other => other.clone(),
    })
}

fn mapped(schema: &Schema, kind: impl Fn(&DataType) -> DataType) -> SchemaRef {
    let fields =
        schema.fields().iter().map(|field| Field::clone(field).with_data_type(kind(field.data_type())));
    Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()))
}

/// The rows under a schema of [`marked_schema`] or [`unmarked_schema`].
pub(crate) fn under(schema: &SchemaRef, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = rows.columns().iter().zip(schema.fields()).map(|(column, field)| match field.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, zone) if column.data_type() != field.data_type() => {
            let times = column.as_primitive::<TimestampNanosecondType>().clone();
            Arc::new(times.with_timezone_opt(zone.clone())) as ArrayRef
        }
        _ => Arc::clone(column),
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect())
}
