//! Parquet on a directory or an object store.
//!
//! | file | what |
//! |---|---|
//! | `store.rs` | a directory or URL to its object store |
//! | `durable.rs` | a local directory whose files survive a power cut |
//! | `by_series.rs` | raw points in memory, and their order |
//! | `points.rs` | raw points to the bytes of one file, pure |
//! | `raw.rs` | the archive of raw points, each exactly once |
//! | `live.rs` | which of its files count, at every instant of a compaction |
//! | `compact.rs` | small files of the archive to one an hour |
//! | `rollup.rs` | rollups, the store when no InfluxDB is configured |
//! | `compact_rollups.rs` | small files of rollups to larger ones |
//! | `ledger.rs` | the ledger of alerts, each entry exactly once |

mod by_series;
pub mod compact;
pub mod compact_rollups;
mod durable;
#[cfg(test)]
mod failing_store;
pub mod ledger;
pub mod live;
mod points;
pub mod raw;
pub mod rollup;
pub mod store;
mod times;

pub use by_series::PointsBySeries;
pub use compact::{CompactOptions, Compaction, RawCompactor, SafeOffsets};
pub use compact_rollups::RollupCompactor;
pub use ledger::{LedgerChunk, LedgerParquet, LedgerRow};
pub use live::live_files;
pub use raw::{RawArchive, RawChunk, Written};
pub use rollup::{RollupParquet, VERSION, WITHDRAWN, latest_rows_sql, latest_versions_sql, versions_table};
pub use times::unmarked_schema;
