//! The states of partitions on their way to storage and back: checkpoints, the offsets that they
//! allow to commit, handing over, and loading at a take-over.

use std::collections::BTreeMap;

use operators::fold::Fold;

use super::{Finished, Partition, RollupShare};
use crate::error::{Error, Result};
use crate::roles::context::HANDOVER;
use crate::roles::group::{Assigned, Commit};
use crate::roles::rollup::outputs::{PartitionState, Settled};
use crate::roles::rollup::tell::tell_changes;

impl RollupShare {
    /// Starts a checkpoint of every partition that moved, unless one is under way or the sink is
    /// behind.
    pub(in crate::roles::rollup) fn checkpoint(&mut self) -> Result<()> {
        if !self.outputs.takes_checkpoint() {
            return Ok(());
        }
        let mut states = Vec::new();
        for (partition, state) in &mut self.partitions {
            if state.next > state.checkpointed {
                states.push(PartitionState {
                    partition: *partition,
                    offset: state.next,
                    state: state.fold.capture(),
                    alerts: state.threshold.capture(),
                });
            }
        }
        if states.is_empty() {
            return Ok(());
        }
        self.outputs.checkpoint(states)
    }

    /// Offsets that may be committed now.
    pub(in crate::roles::rollup) fn committable(&mut self) -> Result<Commit> {
        let durable = self.outputs.durable()?.unwrap_or_default();
        Ok(self.note_durable(durable))
    }

    fn note_durable(&mut self, durable: Vec<(i32, i64)>) -> Commit {
        let topic = &self.context.config.topics.partials;
        let mut commit = Vec::new();
        for (partition, offset) in durable {
            if let Some(state) = self.partitions.get_mut(&partition) {
                state.checkpointed = offset;
                commit.push((topic.clone(), partition, offset, String::new()));
            }
        }
        commit
    }

    /// Removes snapshots that a commit has made unnecessary.
    pub(in crate::roles::rollup) fn clean_up(&self, committed: &Commit) {
        for (_, partition, offset, _) in committed {
            let snapshots = self.snapshots.clone();
            let (partition, offset) = (*partition, *offset);
            self.context.runtime.spawn(async move {
                if let Err(error) = snapshots.remove_before(partition, offset).await {
                    tracing::warn!(partition, %error, "old snapshots not removed");
                }
            });
        }
    }

    /// Waits until everything given out is durable, and returns the offsets to commit. When the
    /// sink or storage does not answer in time, the rest is dropped: the next owner gives it out
    /// again.
    pub(in crate::roles::rollup) fn finish(&mut self) -> Result<(Commit, Finished)> {
        let clock = self.context.clock.clone();
        let until = clock.monotonic() + HANDOVER;
        let mut newest = BTreeMap::new();
        // The first round settles a checkpoint under way, the second takes in what came after it.
        for last in [false, true] {
            match self.outputs.settle(until.saturating_sub(clock.monotonic()))? {
                Settled::Nothing => {}
                Settled::Durable(durable) => {
                    newest.extend(self.note_durable(durable).into_iter().map(|entry| (entry.1, entry)));
                }
                Settled::Unanswered => {
                    tracing::warn!("the sink does not answer: the next owner writes what it did not take");
                    self.abandon();
                    return Ok((newest.into_values().collect(), Finished::InPart));
                }
            }
            if !last {
                self.checkpoint()?;
            }
        }
        Ok((newest.into_values().collect(), Finished::Whole))
    }

    /// The state of a partition as of the committed offset.
    pub(super) fn load(&self, assigned: &Assigned) -> Result<Partition> {
        let options = self.context.config.ingest.watermark();
        let rollups = &self.context.catalog.rollups;
        let bounds = self.context.shares.bounds(&self.context.config, assigned.partition);
        let mut threshold = self.alerting.threshold();
        let mut missed = assigned.log.0 > assigned.offset.unwrap_or(0);
        let Some(offset) = assigned.offset else {
            // Storage that cannot be listed holds the first snapshot, and is reported then.
            let newest = self.context.runtime.block_on(self.snapshots.newest_offset(assigned.partition));
            let (partition, end) = (assigned.partition, assigned.log.1);
            if newest.ok().flatten().is_some_and(|newest| newest > end) {
                tracing::error!(
                    partition,
                    end,
                    "the partials topic was made again, and states of open windows are gone with it: these are rebuilt from raw points"
                );
                missed = true;
            }
            let fold = Fold::new(rollups, options).bounded(bounds);
            let fold = fold.watching_open(|rollup, tier| threshold.watches_open(rollup, tier));
            return Ok(Partition::new(fold, threshold, 0, missed));
        };
        let started = self.context.clock.monotonic();
        let bytes = self.context.runtime.block_on(self.snapshots.get(assigned.partition, offset))?;
        let restored = Fold::restore(rollups, options, &bytes).map_err(|error| {
            Error::Refused(format!(
                "the snapshot of partition {} at offset {offset} cannot be used: {error}: restore it, or run the \
                 release that wrote it; to start from scratch, delete the consumer group",
                assigned.partition
            ))
        })?;
        tell_changes(assigned.partition, &restored);
        threshold
            .restore(restored.alerts.as_bytes())
            .map_err(|error| Error::Refused(format!("unreadable alert states in a snapshot: {error}")))?;
        let took = self.context.clock.monotonic().saturating_sub(started);
        self.context.metrics.rollup.restore_seconds.observe(took.as_secs_f64());
        let fold = restored.fold.bounded(bounds);
        let fold = fold.watching_open(|rollup, tier| threshold.watches_open(rollup, tier));
        Ok(Partition::new(fold, threshold, offset, missed))
    }
}
