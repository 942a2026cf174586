//! `tidemark query`: SQL over what is stored, the raw points and, without InfluxDB, the rollups.

use std::sync::Arc;

use anyhow::Result;
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow::util::pretty::pretty_format_batches;
use clap::Args;
use query::{Cold, select};
use sinks::plain;

use crate::catalog::load_catalog;
use crate::config::Config;

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
    let cold = Cold::open(config.storage.url.as_str())?;
    let answer = select(&cold, &catalog, &args.sql).await?;
    for problem in answer.left_out {
        tracing::warn!("left out of the query: {problem}");
    }
    Ok(as_table(&answer.rows)?)
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
