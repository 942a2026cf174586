//! `tidemark query`: SQL over what is stored, the raw points and, without InfluxDB, the rollups.
//!
//! `points` is the cold storage with the columns that rollups are written over (`name`, `labels`,
//! `time`, `value`), so a rollup's SELECT runs here as it is. Each rollup is a view of its newest
//! rows, and so is each of its coarser tiers, called `<rollup>_<tier>`.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow::util::pretty::pretty_format_batches;
use clap::Args;
use datafusion::execution::context::SQLOptions;
use datafusion::prelude::SessionContext;
use operators::sql::Catalog;
use sinks::parquet::live::is_missing;
use sinks::plain;

use crate::catalog::load_catalog;
use crate::config::Config;
use crate::roles::rollup::tables_of;
use crate::storage::cold::{Cold, POINTS, VERSIONS};

/// How often a query starts over because compaction has deleted what it was about to read, which
/// takes a query that lasts longer than the grace of the compaction.
const ATTEMPTS: usize = 10;

#[derive(Debug, Args)]
pub struct QueryArgs {
    /// One SELECT, such as "SELECT name, count(*) FROM points GROUP BY name"
    pub sql: String,
}

/// Runs one query and returns its rows as a table for people.
///
/// # Errors
/// DataFusion's errors, and storage that cannot be read.
pub async fn run(config: &Config, args: &QueryArgs) -> Result<String> {
    let catalog = load_catalog(&config.rollup.sql)?;
    let cold = Cold::open(config)?;
    let mut attempt = 1;
    loop {
        match attempt_at(&cold, &catalog, &args.sql).await {
            Err(error) if is_missing(&*error) && attempt < ATTEMPTS => attempt += 1,
            done => return done,
        }
    }
}

async fn attempt_at(cold: &Cold, catalog: &Catalog, sql: &str) -> Result<String> {
    let session = cold.session(None)?;
    let files = cold.hours(None).await?.into_values().flatten().collect();
    // Without a file yet there is no such table yet.
    let mut set_aside = Vec::new();
    if let Some(points) = cold.table(&session, files, &POINTS, Some(&mut set_aside)).await? {
        session.register_table("points", points)?;
    }
    register_rollups(&session, cold, catalog, &mut set_aside).await?;
    for problem in set_aside {
        tracing::warn!("left out of the query: {problem}");
    }
    let only_queries =
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let frame = session
        .sql_with_options(sql, only_queries)
        .await
        .context("the query cannot be run: only a SELECT can")?;
    let batches = frame.collect().await.context("the query failed")?;
    Ok(as_table(&batches)?)
}

/// A table of texts in which no value acts on the terminal or begins a row of its own.
fn as_table(batches: &[RecordBatch]) -> Result<String, ArrowError> {
    let options = FormatOptions::new();
    let mut tables = Vec::new();
    for batch in batches {
        let mut columns = Vec::new();
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            let formatter = ArrayFormatter::try_new(column, &options)?;
            let values = (0..batch.num_rows())
                .map(|row| Ok(plain(&formatter.value(row).try_to_string()?).into_owned()));
            let values: StringArray = values.collect::<Result<Vec<String>, ArrowError>>()?.into();
            columns.push((plain(field.name()).into_owned(), Arc::new(values) as ArrayRef));
        }
        tables.push(RecordBatch::try_from_iter(columns)?);
    }
    Ok(pretty_format_batches(&tables)?.to_string())
}

async fn register_rollups(
    session: &SessionContext,
    cold: &Cold,
    catalog: &Catalog,
    set_aside: &mut Vec<String>,
) -> Result<()> {
    for rollup in &catalog.rollups {
        let names: Vec<&str> = rollup.schema.fields().iter().map(|field| field.name().as_str()).collect();
        for table in tables_of(rollup) {
            let files = cold.rollup_files(&table.name).await?;
            let versions = cold.table(session, files, &VERSIONS, Some(set_aside)).await?;
            let Some(versions) = versions else { continue };
            session.register_table(sinks::parquet::versions_table(&table), versions)?;
            let latest = sinks::parquet::latest_rows_sql(&table, &names);
            let made = session.sql(&format!("CREATE VIEW {} AS {latest}", table.name)).await;
            if let Err(error) = made {
                // Its files have other columns than its SQL file: another rollup's query may do
                // without.
                set_aside.push(format!("rollup `{}`: {}", table.name, error.strip_backtrace()));
            }
        }
    }
    Ok(())
}
