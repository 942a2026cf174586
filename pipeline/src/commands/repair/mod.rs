//! Repair: results against the archive, and the archive's files.
//!
//! - `reconcile`: compares what a store holds with batch SQL over the archive, and lists every
//!   difference
//! - `recompute`: rebuilds final windows from the archive, and writes what differs
//! - `compact`: merges small files of the archive and of the embedded store
//! - `ready`: whether windows are final, and the archive complete
//! - `batch`: a rollup's SELECT over the points of a range; `percentile`: how far a sketch may be
//!   off
//! - `stored`: rows of InfluxDB or of the embedded store, read and replaced
//! - `compare`: the differences between two sets of rows; `report`: the same for people and
//!   programs
//! - `range`: times, whole windows, chunks of bounded size

mod batch;
mod compact;
mod compare;
mod percentile;
mod range;
mod ready;
mod recompute;
mod reconcile;
mod report;
mod stored;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use operators::sql::{Catalog, Rollup};
use operators::window::Windows;
use sinks::Table;

use crate::catalog::{rollup_names, suggest_rollup};
use crate::error::{Error, Result};
use crate::roles::rollup::tables_of;

pub(crate) use batch::Query;
pub use compact::{CompactArgs, CompactReport, compact, compact_periodically};
pub(crate) use range::{CHUNK_BYTES, first_window, next_start};
pub use recompute::{Progress, RecomputeArgs, RecomputeOptions, Recomputed, recompute, recompute_range};
pub use reconcile::{ReconcileArgs, Reconciled, reconcile};

/// One table of a rollup, with the SELECT that gives its rows in batch.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    table: Arc<Table>,
    schema: SchemaRef,
    batch_sql: String,
    pub(crate) windows: Windows,
    /// How long after its end a window is still corrected by the stream, nanoseconds.
    allowed_lateness: i64,
}

/// The tables of a rollup, one for each tier, the finest first.
pub(crate) fn targets(rollup: &Rollup) -> Vec<Target> {
    let targets = tables_of(rollup).into_iter().zip(rollup.tiers()).map(|(table, tier)| Target {
        table: Arc::new(table),
        schema: Arc::clone(&rollup.schema),
        batch_sql: tier.batch_sql.clone(),
        windows: tier.windows,
        allowed_lateness: rollup.allowed_lateness,
    });
    targets.collect()
}

fn find<'a>(catalog: &'a Catalog, name: &str) -> Result<&'a Arc<Rollup>> {
    catalog.rollups.iter().find(|rollup| rollup.name == name).ok_or_else(|| {
        let suggestion = suggest_rollup(name, &rollup_names(&catalog.rollups));
        Error::Refused(format!("unknown rollup `{name}`: {suggestion}"))
    })
}
