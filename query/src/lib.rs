//! SQL over what is stored: archived points, and rollups in files. The one way to read them.
//!
//! - `cold`: the storage, and its files as tables
//! - `select`: a SELECT of anybody's over all tables; `statement`: what is no such SELECT
//! - `target`: the tables of a rollup; `batch`: a rollup's SELECT over the points of a range;
//!   `percentile`: how far a sketch may be off
//! - `latest`: rows of a rollup's table with their versions
//! - `archived`: points by event time, as the plans of rollups take them
//!
//! Files that compaction replaces while they are read are listed again.

mod archived;
mod batch;
mod cold;
mod error;
mod latest;
mod percentile;
mod select;
mod statement;
mod target;

pub use archived::{ArchivedPoints, Points};
pub use batch::{Batch, BatchQuery};
pub use cold::Cold;
pub use error::{Error, Result};
pub use latest::latest_rows;
pub use percentile::Judged;
pub use select::{Selected, select};
pub use target::{Target, tables_of, targets};
