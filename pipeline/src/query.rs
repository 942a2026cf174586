//! `tidemark query`: SQL over what is stored, the raw points and, without InfluxDB, the rollups.
//!
//! `points` is the cold storage with the columns that rollups are written over (`name`, `labels`, `time`,
//! `value`), so a rollup's SELECT runs here as it is. Each rollup is a view of its newest rows, and so is each of its
//! coarser tiers, called `<rollup>_<tier>`.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use arrow::util::pretty::pretty_format_batches;
use clap::Args;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::prelude::SessionContext;
use operators::sql::{Catalog, batch_functions};

use crate::check::load_catalog;
use crate::config::Config;
use crate::rollup::tables_of;

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
    let session = SessionContext::new();
    for function in batch_functions() {
        session.register_udf(function);
    }
    let (store, _) = sinks::parquet::store::open(config.storage.url.as_str())?;
    if config.storage.url.scheme() != "file" {
        session.register_object_store(&config.storage.url, store);
    }
    // A folder without a file yet is a table that does not exist yet.
    let _ = register(&session, "points", config.storage.url.join("raw/")?.as_str()).await;
    let catalog = load_catalog(&config.rollup.sql)?;
    register_rollups(&session, config, &catalog).await?;
    let frame = session.sql(&args.sql).await.context("the query cannot be run")?;
    let batches = frame.collect().await.context("the query failed")?;
    Ok(pretty_format_batches(&batches)?.to_string())
}

async fn register_rollups(session: &SessionContext, config: &Config, catalog: &Catalog) -> Result<()> {
    for rollup in &catalog.rollups {
        let names: Vec<&str> = rollup.schema.fields().iter().map(|field| field.name().as_str()).collect();
        for table in tables_of(rollup) {
            let folder = config.storage.url.join(&format!("rollups/{}/", table.name))?;
            let versions = sinks::parquet::versions_table(&table);
            if register(session, &versions, folder.as_str()).await.is_err() {
                continue;
            }
            let latest = sinks::parquet::latest_rows_sql(&table, &names);
            session.sql(&format!("CREATE VIEW {} AS {latest}", table.name)).await?;
        }
    }
    Ok(())
}

async fn register(session: &SessionContext, name: &str, folder: &str) -> Result<()> {
    let url = ListingTableUrl::parse(folder)?;
    let options = ListingOptions::new(Arc::new(ParquetFormat::default())).with_file_extension(".parquet");
    let schema = options.infer_schema(&session.state(), &url).await?;
    anyhow::ensure!(!schema.fields().is_empty(), "no file yet");
    let table = ListingTable::try_new(
        ListingTableConfig::new(url).with_listing_options(options).with_schema(schema),
    )?;
    session.register_table(name, Arc::new(table))?;
    Ok(())
}
