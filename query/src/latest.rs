//! Rows of a rollup's table in files, of each key the newest version.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use datafusion::prelude::ident;
use sinks::parquet::live::retry_while_missing;
use sinks::parquet::{latest_versions_sql, versions_table};

use crate::cold::{Cold, MEMORY, VERSIONS, within};
use crate::error::Result;
use crate::target::Target;

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
    let of_range = within(ident(names[target.table.time]), from, to);
    let frame = session.sql(&latest_versions_sql(&target.table, &names)).await?.filter(of_range)?;
    let schema = Arc::clone(frame.schema().inner());
    Ok(Some(concat_batches(&schema, &frame.collect().await?)?))
}
