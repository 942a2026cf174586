//! The `notify` role, the alert manager: transitions of alerts to people and programs.
//!
//! Who is notified of what and when is decided by [`alerts::dispatch`], a state machine without
//! clock and I/O. This role gives it the transitions of the alerts topic, people's commands, the
//! time and what became of deliveries; it keeps its state in a compacted topic, records what it
//! decided in the ledger, and does the delivering. What has been decided is committed before it is
//! sent, together with the offset of the transitions, so every transition is notified at least
//! once, and once under the id of its notification.
//!
//! - `session`: the consumer's loop, from joining the group to leaving it
//! - `share`: the owned partitions; `desk`: one of them, its dispatcher and its transactions;
//!   `seen`: what it has taken in
//! - `delivery`: dispatches until they are settled; `attempts`: each attempt
//! - `behind`: the alert about the pipeline itself
//! - `message`: from the JSON of the topics to what the sinks take
//! - `receivers`: from configuration to sinks
//! - `archive`: the ledger as Parquet files, on a thread of its own

mod archive;
mod attempts;
mod behind;
mod delivery;
mod desk;
mod message;
mod receivers;
mod seen;
mod session;
mod share;
#[cfg(test)]
mod sink_fake;

use std::time::Duration;

use crate::alerting::Alerting;
use crate::error::Result;
use crate::roles::context::Context;

/// Runs the role on the calling thread, which must not be one of the runtime's, until shutdown. A
/// session that fails for a passing reason starts again from what is committed.
///
/// # Errors
/// What trying again does not mend.
pub fn run(context: &Context, alerting: &Alerting) -> Result<()> {
    let archive = archive::Archive::start(context);
    let outcome = crate::roles::context::keep_running("notify", context, Duration::from_secs(1), || {
        let generation = alerting.generation();
        let config = alerting.config();
        // Connection pools start tasks of their own, when they are made and when they are dropped.
        let receivers = context.runtime.block_on(async { receivers::connect(config.receivers.clone()) });
        let unchanged = || alerting.generation() == generation;
        let outcome = session::run(context, &config, &receivers, delivery::Retry::default(), unchanged);
        context.runtime.block_on(async { drop(receivers) });
        outcome
    });
    archive.end();
    outcome
}
