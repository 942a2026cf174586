//! The oracle: a rollup's SELECT in batch, over all points at once.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use datafusion::error::Result;
use datafusion::prelude::{SessionConfig, SessionContext};
use operators::sql::batch_functions;

/// Runs `sql` over a table `points` as it is stored. One partition: sums are added in the order of the points.
pub(crate) fn run(sql: &str, points: &RecordBatch) -> Result<RecordBatch> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        for function in batch_functions() {
            session.register_udf(function);
        }
        session.register_batch("points", points.clone())?;
        let frame = session.sql(sql).await?;
        let schema = frame.schema().inner().clone();
        Ok(concat_batches(&schema, &frame.collect().await?)?)
    })
}
