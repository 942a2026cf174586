//! The alert about the pipeline itself: event time stands still, so no rule is judged.

use std::collections::BTreeMap;

use alerts::dispatch::Dispatcher;
use alerts::{Status, SystemAlert, Transition};

use crate::alerting::progress::{BEHIND_RULE, Progress, Stall, partition_of, stall};
use crate::config::BehindConfig;
use crate::kafka::state_topic::Record;

/// Follows the progress of all `rollup` partitions.
pub(super) struct Behind {
    config: BehindConfig,
    progress: BTreeMap<i32, Progress>,
    /// Wall time from which on it looks: before, nobody may have been there to move anything.
    since: i64,
}

impl Behind {
    pub(super) fn new(config: BehindConfig, now: i64) -> Self {
        Self { config, progress: BTreeMap::new(), since: now }
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
        stall(&self.progress, now, crate::time::nanoseconds(self.config.after))
    }

    /// The transition that is due: it fires when a partition has stood still for too long, and
    /// resolves when all go on.
    pub(super) fn due(&self, dispatcher: &Dispatcher, now: i64) -> Option<Transition> {
        let firing = dispatcher.firing(BEHIND_RULE, &BTreeMap::new());
        let alert = |status, since| SystemAlert {
            rule: BEHIND_RULE,
            status,
            severity: &self.config.severity,
            receivers: &self.config.receivers,
            since,
            at: now,
        };
        let has_waited = now.saturating_sub(self.since) > crate::time::nanoseconds(self.config.after);
        match (self.stall(now), firing) {
            (Some(stall), None) if has_waited => {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use alerts::dispatch::Policy;

    use super::*;
    use crate::alerting::progress::key;
    use crate::time::Time;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn it_fires_once_and_resolves_when_event_time_goes_on() {
        let config = BehindConfig { after: Duration::from_secs(60), ..BehindConfig::default() };
        let mut behind = Behind::new(config, 1_000 * SECOND);
        let mut dispatcher = Dispatcher::new(Policy::default());
        let moved = |at: i64| {
            let progress = Progress {
                watermark: Time(0),
                moved_at: Time(at * SECOND),
                held_by: None,
                rules: BTreeMap::new(),
                held_back: std::collections::BTreeSet::new(),
                until: 0,
                next: None,
            };
            Record {
                partition: 0,
                offset: 0,
                timestamp: 0,
                key: key(3),
                value: Some(serde_json::to_vec(&progress).expect("JSON")),
            }
        };
        // (what moved at which second, now, what is emitted)
        for (record, now, expected) in [
            (Some(10), 1_001, None),
            // Nobody may have been there before.
            (None, 1_060, None),
            (None, 1_061, Some(Status::Firing)),
            (None, 1_200, None),
            (Some(1_300), 1_300, Some(Status::Resolved)),
            (None, 1_360, None),
            (None, 1_361, Some(Status::Firing)),
        ] {
            if let Some(at) = record {
                behind.note(&moved(at));
            }
            let due = behind.due(&dispatcher, now * SECOND);
            assert_eq!(due.as_ref().map(|due| due.status), expected, "at {now}");
            if let Some(due) = due {
                dispatcher.transition(&due, now * SECOND);
            }
        }
    }
}
