//! Rows of a rollup's table in files, of each key the newest version.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use datafusion::common::ScalarValue;
use datafusion::prelude::{ident, lit};
use sinks::parquet::live::retry_while_missing;
use sinks::parquet::{latest_versions_sql, versions_table};

use crate::cold::{Cold, VERSIONS};
use crate::error::Result;
use crate::target::Target;

/// Memory of one query; beyond it DataFusion spills to disk.
const MEMORY: usize = 512 << 20;

/// The rows of the windows that start in `[from, to)`, withdrawn ones as well: the columns of the
/// target's schema, then [`sinks::parquet::VERSION`] and [`sinks::parquet::WITHDRAWN`]. None when
/// the table has no file.
///
/// # Errors
/// Storage that cannot be read, and files that are none of the table's.
pub async fn latest_rows(cold: &Cold, target: &Target, from: i64, to: i64) -> Result<Option<RecordBatch>> {
    retry_while_missing(|| attempt(cold, target, from, to)).await
}

async fn attempt(cold: &Cold, target: &Target, from: i64, to: i64) -> Result<Option<RecordBatch>> {
    let session = cold.session(Some(MEMORY))?;
    let files = cold.rollup_files(&target.table.name).await?;
    let Some(versions) = cold.table(&session, files, &VERSIONS, None).await? else { return Ok(None) };
    session.register_table(versions_table(&target.table), versions)?;
    let names: Vec<&str> = target.schema.fields().iter().map(|field| field.name().as_str()).collect();
    let at = |time| lit(ScalarValue::TimestampNanosecond(Some(time), None));
    let time = ident(names[target.table.time]);
    let within = time.clone().gt_eq(at(from)).and(time.lt(at(to)));
    let frame = session.sql(&latest_versions_sql(&target.table, &names)).await?.filter(within)?;
    let schema = Arc::clone(frame.schema().inner());
    Ok(Some(concat_batches(&schema, &frame.collect().await?)?))
}
