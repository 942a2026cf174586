//! Raw points out of the archive, by event time, as the plans of rollups take them.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::col;
use futures::TryStreamExt;
use operators::partial::points_schema;

use crate::cold::{Cold, POINTS, within};
use crate::error::Result;

/// Points that are computed on at once.
const BATCH: usize = 65_536;

/// The points of the archive, for plans that ask for some of their labels.
#[derive(Debug)]
pub struct ArchivedPoints {
    cold: Cold,
    schema: SchemaRef,
    labels: Vec<String>,
}

impl ArchivedPoints {
    /// The archive in `cold`, for plans that ask for `labels`.
    pub fn new(cold: Cold, labels: &[String]) -> Self {
        Self { cold, schema: points_schema(labels), labels: labels.to_vec() }
    }

    /// Starts of the hours between two times that have files, oldest first.
    ///
    /// # Errors
    /// Storage that cannot be read.
    pub async fn hours(&self, from: i64, to: i64) -> Result<Vec<i64>> {
        Ok(self.cold.hours(Some((from, to))).await?.into_keys().collect())
    }

    /// The points of `from` or later, and before `to`; none when there is no file.
    ///
    /// Files are listed now, as compaction may have replaced those of before.
    ///
    /// # Errors
    /// Storage that cannot be read. A file that goes while it is read is an error of the stream.
    pub async fn read(&self, from: i64, to: i64) -> Result<Option<Points>> {
        let session = self.cold.session(None)?;
        {
            let state = session.state_ref();
            let mut state = state.write();
            let config = state.config().clone().with_target_partitions(1).with_batch_size(BATCH);
            *state.config_mut() = config;
        }
        let files = self.cold.hours(Some((from, to))).await?.into_values().flatten().collect();
        let Some(points) = self.cold.table(&session, files, &POINTS, None).await? else { return Ok(None) };
        let frame = session.read_table(points)?.filter(within(col("time"), from, to))?;
        session.register_table("archived", frame.into_view())?;
        let labels = self.labels.iter().map(|label| format!(", labels['{}']", label.replace('\'', "''")));
        let sql = format!("SELECT name, time, value{} FROM archived", labels.collect::<String>());
        let rows = session.sql(&sql).await?.execute_stream().await?;
        Ok(Some(Points { rows, schema: Arc::clone(&self.schema) }))
    }
}

/// Points of a range of event time, in no order.
pub struct Points {
    rows: SendableRecordBatchStream,
    schema: SchemaRef,
}

impl fmt::Debug for Points {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Points").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl Points {
    /// The next points, in the schema that plans are made for; none at the end.
    ///
    /// # Errors
    /// Storage that cannot be read.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let Some(batch) = self.rows.try_next().await? else { return Ok(None) };
        let mut columns = Vec::new();
        for (column, field) in batch.columns().iter().zip(self.schema.fields()) {
            columns.push(cast(column, field.data_type())?);
        }
        Ok(Some(RecordBatch::try_new(Arc::clone(&self.schema), columns)?))
    }
}
