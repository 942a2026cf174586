//! The `rollup` role: partial states to closed windows, corrections and alerts.
//!
//! Each partition of the partials topic is a deterministic fold over its log. A checkpoint stores a
//! partition's state as of an offset; only when that is durable, and every result before it
//! acknowledged by the sinks, is the offset committed. The next owner of the partition loads the
//! snapshot of the committed offset and goes on from there; what it writes again is the same.
//!
//! - `session`: the consumer's loop, from joining the group to leaving it
//! - `share`: the owned partitions, each a fold
//! - `outputs`: results to the sinks, in order, within a bound; checkpoints after them
//! - `tell`: what operators are notified of states, left out windows and overflow
//! - `announce`: late rows and alert transitions to their topics
//! - `snapshots`: where states are kept
//! - `rebuild`: windows that the stream had to leave out, computed from archived points

mod announce;
mod outputs;
mod rebuild;
mod reconcile;
mod session;
mod share;
mod tell;

use std::time::Duration;

use alerts::Transition;
use arrow::array::RecordBatch;
use tokio::sync::broadcast;

use crate::alerting::Alerting;
use crate::error::Result;
use crate::roles::context::Context;

pub(crate) use session::influx_config;
pub(crate) use share::window_rows;

/// What a watcher in the same process sees, the demo above all.
#[derive(Debug, Clone)]
pub enum Event {
    /// Rows of a tier of a rollup, closed or corrected, and what the tier's table is called.
    Rows {
        table: String,
        rows: RecordBatch,
        is_correction: bool,
    },
    Alert(Box<Transition>),
}

/// Runs the role on the calling thread until shutdown. `events` gets the rows and alerts that were
/// emitted; it may have no listener.
///
/// # Errors
/// What trying again does not mend.
pub fn run(context: &Context, alerting: &Alerting, events: Option<&broadcast::Sender<Event>>) -> Result<()> {
    crate::roles::context::keep_running("rollup", context, Duration::from_secs(1), || {
        session::run(context, alerting, events.cloned())
    })
}
