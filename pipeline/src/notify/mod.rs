//! The `notify` role: transitions of alerts to people and programs.
//!
//! Every transition of the alerts topic goes to each of its receivers, at least once, and once under its id. The
//! offset of a message is committed when all of its receivers have settled it: it was delivered, or failed for good
//! and an ERROR says so. A receiver that is away holds the commit and nothing else: the others get what is theirs, and
//! the text that is committed with the offset says who has what already.
//!
//! - `session`: the consumer's loop, from joining the group to leaving it
//! - `share`: the owned partitions, the deliveries under way
//! - `ledger`: which message is settled by whom, which offset that allows to commit
//! - `progress`: what receivers settled ahead of the committed offset, and its text
//! - `delivery`: the queue and the task of each receiver
//! - `message`: from the JSON of the topic to what the sinks take
//! - `receivers`: from configuration to sinks

mod delivery;
mod ledger;
mod message;
mod progress;
mod receivers;
mod session;
mod share;
#[cfg(test)]
mod sink_fake;

use std::time::Duration;

use crate::alerting::Alerting;
use crate::error::Result;
use crate::roles::Context;

/// Runs the role on the calling thread, which must not be one of the runtime's, until shutdown. A session that fails
/// for a passing reason starts again from the committed offsets.
///
/// # Errors
/// A receiver whose configuration cannot work, and what trying again does not mend.
pub fn run(context: &Context, alerting: &Alerting) -> Result<()> {
    let receivers = alerting.config().receivers.clone();
    // Connection pools start tasks of their own, when they are made and when they are dropped.
    let receivers = context.runtime.block_on(async { receivers::connect(receivers) })?;
    let outcome = crate::roles::keep_running("notify", context, Duration::from_secs(1), || {
        session::run(context, &receivers)
    });
    context.runtime.block_on(async { drop(receivers) });
    outcome
}
