//! Parquet on a directory or an object store.
//!
//! | file | what |
//! |---|---|
//! | `store.rs` | a directory or URL to the object store behind it |
//! | `durable.rs` | a local directory whose files survive a power cut |
//! | `points.rs` | raw points to the bytes of one file, pure |
//! | `raw.rs` | the archive of raw points, each exactly once |
//! | `rollup.rs` | rollups, the store when no InfluxDB is configured |

mod durable;
mod points;
pub mod raw;
pub mod rollup;
pub mod store;

pub use raw::{RawArchive, RawChunk, Written};
pub use rollup::{RollupParquet, latest_rows_sql, versions_table};
