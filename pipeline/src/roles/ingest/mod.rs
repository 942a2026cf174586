//! The `ingest` role: raw points to mergeable states and to cold storage.
//!
//! Per epoch, the points of all owned partitions become one message per rollup partition, sent
//! together with the source offsets in one Kafka transaction. Between epochs nothing is kept but
//! the series table and the archive's open files, so a crash or a rebalance loses nothing and
//! repeats nothing.
//!
//! - `session`: the consumer's loop, from joining the group to leaving it
//! - `share`: the owned partitions and the epoch under way
//! - `owned`: one of them; `ends`: which were read to their ends; `look`: what else is asked of the
//!   broker
//! - `bound`: when an epoch is large enough
//! - `archive`: raw points to Parquet, each exactly once
//! - `committer`: aggregation and transaction of an epoch, while the next one is read
//! - `look`: partitions added, and lag; `neighbours`: where the other processes archive
//! - `epoch`: from an epoch's points to its messages

mod archive;
mod bound;
mod committer;
mod dead_letter;
mod ends;
mod epoch;
mod look;
mod neighbours;
mod owned;
mod session;
mod share;

use std::time::Duration;

use crate::error::Result;
use crate::roles::context::Context;

/// Runs the role on the calling thread until shutdown. A session that fails for a passing reason
/// starts again from the committed offsets.
///
/// # Errors
/// What trying again does not mend.
pub fn run(context: &Context) -> Result<()> {
    crate::roles::context::keep_running("ingest", context, Duration::from_secs(1), || session::run(context))
}
