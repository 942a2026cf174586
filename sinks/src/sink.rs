//! The one shape of all sinks, and the rows that the rollup stores take.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;

use crate::Error;

/// Somewhere results go.
///
/// A caller writes, flushes, and only after `Ok` from `flush` moves the offset that would make it
/// write the same again. So a sink may see an input twice, and what it stores must not change by
/// that.
///
/// ```
/// use std::sync::Mutex;
///
/// use sinks::{Error, Sink};
///
/// /// Keeps lines in memory: nothing survives a crash, so it is good for tests alone.
/// #[derive(Debug, Default)]
/// struct Lines(Mutex<Vec<String>>);
///
/// #[async_trait::async_trait]
/// impl Sink<String> for Lines {
///     async fn write(&self, line: String) -> Result<(), Error> {
///         let mut lines = self.0.lock().expect("no writer panics");
///         // The same input may come again after a crash of the caller.
///         if !lines.contains(&line) {
///             lines.push(line);
///         }
///         Ok(())
///     }
///
///     async fn flush(&self) -> Result<(), Error> {
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait Sink<Input>: Send + Sync + Debug {
    /// Hands over `input`; it may be buffered. Waits while the sink has no room, so memory stays
    /// bounded.
    ///
    /// On an error the input may have been taken in part: write the same input again, or give up on
    /// it.
    async fn write(&self, input: Input) -> Result<(), Error>;

    /// Ok means everything written before survives a crash.
    async fn flush(&self) -> Result<(), Error>;
}

/// Rows of one tier of a rollup, and what their columns mean to a store. Indices count the columns
/// of [`RollupRows::rows`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Unlike that of any other rollup and tier: the folder of the Parquet store.
    pub name: String,
    /// The rollup's name, the same for all of its tiers: InfluxDB's measurement.
    pub rollup: String,
    /// The length of the windows, such as `1h`.
    pub tier: String,
    /// Whether these are the shortest windows of the rollup. InfluxDB has a bucket for each length
    /// of longer ones.
    pub is_finest: bool,
    /// The column with the start of the window.
    pub time: usize,
    /// The group columns. Together with `time` they are the key of a row.
    pub tags: Vec<usize>,
    /// The aggregates.
    pub fields: Vec<usize>,
}

/// Rows of one tier of a rollup, each the whole result of one group in one window.
///
/// A later write of the same key replaces the earlier one. One offset writes a key at most once.
#[derive(Debug, Clone)]
pub struct RollupRows {
    pub table: Arc<Table>,
    /// The new content of the rows. Columns that `table` does not name are not stored.
    pub rows: RecordBatch,
    /// Keys (time and tags set, fields may be null) of rows once written that no longer exist,
    /// because HAVING fails after a correction. They are removed before `rows` are written.
    pub withdrawn: Option<RecordBatch>,
    /// The partition of the partials topic that produced the rows.
    pub partition: i32,
    /// The offset in that partition. Rows of a higher offset are newer.
    pub offset: i64,
}
