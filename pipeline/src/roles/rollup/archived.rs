//! Raw points out of the archive, by event time, as the plans of rollups take them.

use std::sync::Arc;

use anyhow::Result;
use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::{col, lit};
use operators::partial::points_schema;

use crate::config::Config;
use crate::storage::cold::{Cold, POINTS};

/// Points that are computed on at once.
const BATCH: usize = 65_536;

/// The files under `raw/` that count.
pub(super) struct ArchivedPoints {
    cold: Cold,
    schema: SchemaRef,
    labels: Vec<String>,
}

impl ArchivedPoints {
    /// The archive, for plans that ask for `labels`.
    pub(super) fn open(config: &Config, labels: &[String]) -> Result<Self> {
        Ok(Self { cold: Cold::open(config)?, schema: points_schema(labels), labels: labels.to_vec() })
    }

    /// Starts of the hours between two times that have files, oldest first.
    pub(super) async fn hours(&self, from: i64, to: i64) -> Result<Vec<i64>> {
        Ok(self.cold.hours(Some((from, to))).await?.into_keys().collect())
    }

    /// The points of `from` or later, and before `to`; none when there is no file.
    ///
    /// Files are listed now, as compaction may have replaced those of before. One that goes while
    /// it is read is an error.
    pub(super) async fn read(&self, from: i64, to: i64) -> Result<Option<SendableRecordBatchStream>> {
        let session = self.cold.session(None)?;
        {
            let state = session.state_ref();
            let mut state = state.write();
            let config = state.config().clone().with_target_partitions(1).with_batch_size(BATCH);
            *state.config_mut() = config;
        }
        let files = self.cold.hours(Some((from, to))).await?.into_values().flatten().collect();
        let Some(points) = self.cold.table(&session, files, &POINTS, None).await? else { return Ok(None) };
        let at = |time| lit(ScalarValue::TimestampNanosecond(Some(time), None));
        let within = col("time").gt_eq(at(from)).and(col("time").lt(at(to)));
        let frame = session.read_table(points)?.filter(within)?;
        session.register_table("archived", frame.into_view())?;
        let labels = self.labels.iter().map(|label| format!(", labels['{}']", label.replace('\'', "''")));
        let sql = format!("SELECT name, time, value{} FROM archived", labels.collect::<String>());
        Ok(Some(session.sql(&sql).await?.execute_stream().await?))
    }

    /// A batch of [`Self::read`] in the types that plans are made for.
    pub(super) fn typed(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut columns = Vec::new();
        for (column, field) in batch.columns().iter().zip(self.schema.fields()) {
            columns.push(cast(column, field.data_type())?);
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}
