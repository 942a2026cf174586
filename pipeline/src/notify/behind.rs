//! The alert about the pipeline itself: event time stands still, so no rule is judged.

use std::collections::BTreeMap;

use operators::dispatch::Dispatcher;
use operators::threshold::{Status, SystemAlert, Transition};

use crate::alerting::progress::{Progress, Stall, partition_of, stall};
use crate::compacted::Record;
use crate::config::BehindConfig;

/// Its name, for routes and silences.
pub(crate) const RULE: &str = "TidemarkBehind";

/// Follows the progress of all `rollup` partitions.
pub(super) struct Behind {
    config: BehindConfig,
    progress: BTreeMap<i32, Progress>,
}

impl Behind {
    pub(super) fn new(config: BehindConfig) -> Self {
        Self { config, progress: BTreeMap::new() }
    }

    /// Takes in a record of the topic of alert states.
    pub(super) fn note(&mut self, record: &Record) {
        let Some(partition) = partition_of(&record.key) else { return };
        match record.value.as_deref().map(serde_json::from_slice) {
            Some(Ok(progress)) => self.progress.insert(partition, progress),
            _ => self.progress.remove(&partition),
        };
    }

    pub(super) fn stall(&self, now: i64) -> Option<Stall> {
        stall(&self.progress, now, crate::clock::nanoseconds(self.config.after))
    }

    /// The transition that is due: it fires when a partition has stood still for too long, and resolves when all go on.
    pub(super) fn due(&self, dispatcher: &Dispatcher, now: i64) -> Option<Transition> {
        let firing = dispatcher.firing(RULE, &BTreeMap::new());
        let alert = |status, since| SystemAlert {
            rule: RULE,
            status,
            severity: &self.config.severity,
            receivers: &self.config.receivers,
            since,
            at: now,
        };
        match (self.stall(now), firing) {
            (Some(stall), None) => {
                let summary = "the alerts' data are incomplete: event time stands still".to_owned();
                Some(alert(Status::Firing, stall.since.0).transition(summary, stall.describe()))
            }
            (None, Some(firing)) => {
                let summary = "the alerts' data are complete again".to_owned();
                Some(alert(Status::Resolved, firing.starts_at).transition(summary, String::new()))
            }
            _ => None,
        }
    }
}
