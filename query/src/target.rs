//! The tables of a rollup, and the SELECT that gives the rows of each in batch.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use operators::sql::Rollup;
use operators::window::Windows;
use sinks::Table;

/// One table of a rollup, with the SELECT that gives its rows in batch.
#[derive(Debug, Clone)]
pub struct Target {
    pub table: Arc<Table>,
    pub schema: SchemaRef,
    pub(crate) batch_sql: String,
    pub windows: Windows,
    /// How long after its end a window is still corrected by the stream, nanoseconds.
    pub allowed_lateness: i64,
}

/// The tables of a rollup, one for each tier, the finest first.
pub fn targets(rollup: &Rollup) -> Vec<Target> {
    let targets = tables_of(rollup).into_iter().zip(rollup.tiers()).map(|(table, tier)| Target {
        table: Arc::new(table),
        schema: Arc::clone(&rollup.schema),
        batch_sql: tier.batch_sql.clone(),
        windows: tier.windows,
        allowed_lateness: rollup.allowed_lateness,
    });
    targets.collect()
}

/// What the columns of each of a rollup's tiers mean to the stores, the finest first.
pub fn tables_of(rollup: &Rollup) -> Vec<Table> {
    let tables = rollup.tiers().iter().enumerate().map(|(position, tier)| Table {
        name: tier.table.clone(),
        rollup: rollup.name.clone(),
        tier: tier.name.clone(),
        is_finest: position == 0,
        time: rollup.shape.time,
        tags: rollup.shape.tags.clone(),
        fields: rollup.shape.fields.clone(),
    });
    tables.collect()
}
