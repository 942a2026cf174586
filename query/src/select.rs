//! Anybody's SELECT over all that is stored.
//!
//! `points` is the cold storage with the columns that rollups are written over (`name`, `labels`,
//! `time`, `value`), so a rollup's SELECT runs here as it is. Each rollup in files is a view of its
//! newest rows, and so is each of its coarser tiers, called `<rollup>_<tier>`.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement as DFStatement;
use operators::sql::Catalog;
use sinks::parquet::live::retry_while_missing;
use sinks::parquet::{latest_rows_sql, versions_table};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::cold::{Cold, POINTS, VERSIONS};
use crate::error::{Error, Result};
use crate::statement::allowed;
use crate::target::tables_of;

/// Of the thread that plans.
const STACK: usize = 64 << 20;

/// The answer of a SELECT.
#[derive(Debug)]
pub struct Selected {
    pub rows: Vec<RecordBatch>,
    /// What of the storage was left out, and why: files that cannot be read, tables whose files
    /// have other columns than their rollup.
    pub left_out: Vec<String>,
}

/// Runs one SELECT.
///
/// # Errors
/// Text that is no query or cannot be planned, DataFusion's errors, and storage that cannot be
/// read.
///
/// # Panics
/// Outside of a runtime of tokio.
pub async fn select(cold: &Cold, catalog: &Catalog, sql: &str) -> Result<Selected> {
    retry_while_missing(|| attempt(cold, catalog, sql)).await
}

async fn attempt(cold: &Cold, catalog: &Catalog, sql: &str) -> Result<Selected> {
    let session = cold.session(None)?;
    let files = cold.hours(None).await?.into_values().flatten().collect();
    // Without a file yet there is no such table yet.
    let mut left_out = Vec::new();
    if let Some(points) = cold.table(&session, files, &POINTS, Some(&mut left_out)).await? {
        session.register_table("points", points)?;
    }
    register_rollups(&session, cold, catalog, &mut left_out).await?;
    let plan = planned(session.clone(), sql.to_owned()).await?;
    Ok(Selected { rows: collect(plan, session.task_ctx()).await?, left_out })
}

/// The plan of a statement. Parser and planner recurse over it, so they have a thread of their own:
/// the bounds of [`crate::statement`] are for its stack.
async fn planned(session: SessionContext, sql: String) -> Result<Arc<dyn ExecutionPlan>> {
    let (done, plan) = oneshot::channel();
    let runtime = Handle::current();
    let work = move || {
        // Nobody waits for it any more when the query was cancelled.
        let _ = done.send(runtime.block_on(plan_of(&session, &sql)));
    };
    std::thread::Builder::new()
        .name("query-plan".to_owned())
        .stack_size(STACK)
        .spawn(work)
        .map_err(|error| Error::Run(Box::new(DataFusionError::IoError(error))))?;
    plan.await.unwrap_or_else(|_| Err(Error::Statement("planning the query panicked".to_owned())))
}

async fn plan_of(session: &SessionContext, sql: &str) -> Result<Arc<dyn ExecutionPlan>> {
    let statement = DFStatement::Statement(Box::new(allowed(sql)?));
    let plan = session.state().statement_to_plan(statement).await.map_err(unplanned)?;
    let nothing_else =
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    nothing_else.verify_plan(&plan).map_err(unplanned)?;
    let frame = session.execute_logical_plan(plan).await.map_err(unplanned)?;
    frame.create_physical_plan().await.map_err(unplanned)
}

fn unplanned(source: DataFusionError) -> Error {
    Error::Plan(Box::new(source))
}

async fn register_rollups(
    session: &SessionContext,
    cold: &Cold,
    catalog: &Catalog,
    left_out: &mut Vec<String>,
) -> Result<()> {
    for rollup in &catalog.rollups {
        let names: Vec<&str> = rollup.schema.fields().iter().map(|field| field.name().as_str()).collect();
        for table in tables_of(rollup) {
            let files = cold.rollup_files(&table.name).await?;
            let versions = cold.table(session, files, &VERSIONS, Some(left_out)).await?;
            let Some(versions) = versions else { continue };
            session.register_table(versions_table(&table), versions)?;
            let latest = latest_rows_sql(&table, &names);
            let made = session.sql(&format!("CREATE VIEW {} AS {latest}", table.name)).await;
            if let Err(error) = made {
                // Its files have other columns than its SQL file: another rollup's query may do
                // without.
                left_out.push(format!("rollup `{}`: {}", table.name, error.strip_backtrace()));
            }
        }
    }
    Ok(())
}
