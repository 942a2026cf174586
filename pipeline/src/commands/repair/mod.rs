//! Repair: results against the archive, and the archive's files.
//!
//! - `reconcile`: compares what a store holds with batch SQL over the archive, and lists every
//!   difference
//! - `recompute`: rebuilds final windows from the archive, and writes what differs
//! - `compact`: merges small files of the archive and of the embedded store
//! - `ready`: whether windows are final, and the archive complete
//! - `stored`: rows of InfluxDB or of the embedded store, read and replaced
//! - `compare`: the differences between two sets of rows; `report`: the same for people and
//!   programs
//! - `range`: times, whole windows, chunks of bounded size

mod compact;
mod compare;
mod range;
mod ready;
mod recompute;
mod reconcile;
mod report;
mod stored;

use std::sync::Arc;

use operators::sql::{Catalog, Rollup};

use crate::catalog::{rollup_names, suggest_rollup};
use crate::error::{Error, Result};

pub use compact::{CompactArgs, CompactReport, compact, compact_periodically};
pub(crate) use range::{CHUNK_BYTES, first_window, next_start};
pub use recompute::{Progress, RecomputeArgs, RecomputeOptions, Recomputed, recompute, recompute_range};
pub use reconcile::{ReconcileArgs, Reconciled, reconcile};

fn find<'a>(catalog: &'a Catalog, name: &str) -> Result<&'a Arc<Rollup>> {
    catalog.rollups.iter().find(|rollup| rollup.name == name).ok_or_else(|| {
        let suggestion = suggest_rollup(name, &rollup_names(&catalog.rollups));
        Error::Refused(format!("unknown rollup `{name}`: {suggestion}"))
    })
}
