//! `tidemark query`: SQL over what is stored, the raw points and, without InfluxDB, the rollups.
//!
//! `points` is the cold storage with the columns that rollups are written over (`name`, `labels`, `time`,
//! `value`), so a rollup's SELECT runs here as it is. Each rollup is a view of its newest rows, and so is each of its
//! coarser tiers, called `<rollup>_<tier>`.

use anyhow::{Context as _, Result};
use arrow::util::pretty::pretty_format_batches;
use clap::Args;
use datafusion::prelude::SessionContext;
use operators::sql::Catalog;
use sinks::parquet::live::is_missing;

use crate::check::load_catalog;
use crate::cold::Cold;
use crate::config::Config;
use crate::rollup::tables_of;

/// How often a query starts anew because compaction has deleted what it was about to read, which takes a query
/// that lasts longer than the grace of the compaction.
const ATTEMPTS: usize = 10;

#[derive(Debug, Args)]
pub struct QueryArgs {
    /// One SELECT, such as "SELECT name, count(*) FROM points GROUP BY name"
    pub sql: String,
}

/// Runs one query and returns its rows as a table for people.
///
/// # Errors
/// What DataFusion says of the query, and storage that cannot be read.
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
    if let Some(points) = cold.table(&session, files, true).await? {
        session.register_table("points", points)?;
    }
    register_rollups(&session, cold, catalog).await?;
    let frame = session.sql(sql).await.context("the query cannot be run")?;
    let batches = frame.collect().await.context("the query failed")?;
    Ok(pretty_format_batches(&batches)?.to_string())
}

async fn register_rollups(session: &SessionContext, cold: &Cold, catalog: &Catalog) -> Result<()> {
    for rollup in &catalog.rollups {
        let names: Vec<&str> = rollup.schema.fields().iter().map(|field| field.name().as_str()).collect();
        for table in tables_of(rollup) {
            let files = cold.rollup_files(&table.name).await?;
            let Some(versions) = cold.table(session, files, false).await? else { continue };
            session.register_table(sinks::parquet::versions_table(&table), versions)?;
            let latest = sinks::parquet::latest_rows_sql(&table, &names);
            session.sql(&format!("CREATE VIEW {} AS {latest}", table.name)).await?;
        }
    }
    Ok(())
}
