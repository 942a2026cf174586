//! What a partition has announced of alerts by the time it is taken over, compared with what is
//! held once its log is replayed.

use std::collections::{BTreeMap, BTreeSet};

use alerts::Transition;
use operators::threshold::{Announced, Threshold};
use uuid::Uuid;

use crate::alerting::progress::{Progress, partition_of};
use crate::error::Result;
use crate::kafka::state_topic::read_state;
use crate::roles::context::Context;

/// What decides the verdicts of each rule, see [`Threshold::deciders`].
pub(super) type Deciders = BTreeMap<String, String>;

/// What is kept of the last comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Compared {
    pub(super) deciders: Deciders,
    /// See [`Progress::held_back`].
    pub(super) held_back: BTreeSet<String>,
    pub(super) until: i64,
    /// The first message of which nothing was announced. A replay does not set it back.
    pub(super) next: i64,
}

/// Alerts of a partition, from its take-over until the end of its replay.
pub(super) struct Replay {
    /// The first offset after the replay: what a former owner has read lies before it.
    until: i64,
    announced: Announced,
    /// Rules that are other ones since, or are gone.
    changed: BTreeSet<String>,
}

impl Replay {
    /// Whether a transition of the replay is held back until its end.
    pub(super) fn holds_back(&self, transition: &Transition) -> bool {
        self.changed.contains(&transition.rule)
    }

    /// Whether the replay has come to its end, before the message `next`.
    pub(super) fn is_due(&self, next: i64) -> bool {
        next >= self.until
    }

    /// What is to be kept of the comparison once all of its transitions are announced. `next`: the
    /// first message after it, which may be later than it was due.
    pub(super) fn compared(&self, deciders: Deciders, next: i64) -> Compared {
        let until = self.until.max(next);
        Compared { deciders, held_back: self.changed.clone(), until, next: until }
    }

    /// What is to be kept until then: some may be announced and others not, so the next owner
    /// compares again, by whatever rules.
    pub(super) fn undecided(&self, mut deciders: Deciders, next: i64) -> Compared {
        deciders.extend(self.changed.iter().map(|rule| (rule.clone(), String::new())));
        self.compared(deciders, next)
    }

    /// The transitions to emit at the end. `watermark`: event time there.
    pub(super) fn difference(
        &self,
        threshold: &Threshold,
        partition: i32,
        watermark: Option<i64>,
    ) -> Vec<Transition> {
        let place = format!("{partition}/{}/{}", self.until, Uuid::new_v4());
        threshold.reconcile(&self.announced, &self.changed, watermark.unwrap_or(i64::MIN), &place)
    }
}

/// What the topic of alert states has, by partition.
#[derive(Default)]
pub(super) struct States {
    announced: BTreeMap<i32, Announced>,
    progress: BTreeMap<i32, Progress>,
}

impl States {
    pub(super) fn read(context: &Context) -> Result<Self> {
        let mut states = Self::default();
        for (key, value) in read_state(&context.config.kafka, &context.config.topics.alert_states(), None)? {
            if let Some(partition) = partition_of(&key) {
                states
                    .progress
                    .extend(serde_json::from_slice(&value).ok().map(|progress| (partition, progress)));
            } else if let Ok(transition) = serde_json::from_slice::<Transition>(&value)
                && let Some(partition) = transition.partition
            {
                states.announced.entry(partition).or_default().note(&transition);
            }
        }
        Ok(states)
    }

    /// The last comparison. `end`: of the log, beyond which nothing of it can have been announced.
    pub(super) fn compared(&self, partition: i32, end: i64) -> Compared {
        let compared = |progress: &Progress| Compared {
            deciders: progress.rules.clone(),
            held_back: progress.held_back.clone(),
            until: progress.until,
            next: progress.next.unwrap_or_default().min(end),
        };
        self.progress.get(&partition).map(compared).unwrap_or_default()
    }

    /// What is to be compared in a partition that is replayed from the message `from` on, and whose
    /// log ends before `end`; nothing when all rules are as they were.
    pub(super) fn of(&self, partition: i32, from: i64, end: i64, deciders: &Deciders) -> Option<Replay> {
        // Where nothing was announced, or by a release that did not record the rules, there is
        // nothing to compare with.
        let until = self.progress.get(&partition)?.next?.min(end);
        let compared = self.compared(partition, end);
        let names = compared.deciders.keys().chain(deciders.keys());
        let differs = |name: &&String| compared.deciders.get(*name) != deciders.get(*name);
        let mut changed: BTreeSet<String> = names.filter(differs).cloned().collect();
        // What was held back then is so again: its ids would come between those that were
        // announced.
        if from < compared.until {
            changed.extend(compared.held_back);
        }
        if changed.is_empty() {
            return None;
        }
        let announced = self.announced.get(&partition).cloned().unwrap_or_default();
        Some(Replay { until, announced, changed })
    }
}

pub(super) fn deciders_of(context: &Context, threshold: &Threshold) -> Deciders {
    threshold.deciders(&|name| {
        let rollup = context.catalog.rollups.iter().find(|rollup| rollup.name == name);
        rollup.map_or(String::new(), |rollup| {
            let (results, lateness) = (rollup.results_fingerprint, rollup.allowed_lateness);
            format!("{:016x} {results:016x} {lateness}", rollup.fingerprint)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Time;

    fn deciders(rules: &[(&str, &str)]) -> Deciders {
        rules.iter().map(|(rule, decider)| ((*rule).to_owned(), (*decider).to_owned())).collect()
    }

    fn recorded(compared: Compared) -> States {
        let progress = Progress {
            watermark: Time(0),
            moved_at: Time(0),
            held_by: None,
            rules: compared.deciders,
            held_back: compared.held_back,
            until: compared.until,
            next: Some(compared.next),
        };
        States { announced: BTreeMap::new(), progress: BTreeMap::from([(0, progress)]) }
    }

    /// Due from message 5 on. Whether it is, is asked only after a message: 5 is part of it.
    fn replay() -> Replay {
        Replay { until: 5, announced: Announced::default(), changed: BTreeSet::from(["a".to_owned()]) }
    }

    #[test]
    fn a_comparison_that_was_cut_short_is_made_again_by_whatever_rules() {
        let (former, present) = (deciders(&[("a", "0"), ("b", "0")]), deciders(&[("a", "1"), ("b", "0")]));
        let states = recorded(replay().undecided(present.clone(), 6));
        for rules in [former, present, deciders(&[("b", "0")])] {
            let again = states.of(0, 6, 10, &rules).expect("another comparison");
            assert_eq!(again.changed, BTreeSet::from(["a".to_owned()]), "{rules:?}");
        }
    }

    #[test]
    fn what_was_held_back_up_to_a_comparison_is_so_again() {
        let present = deciders(&[("a", "1"), ("b", "0")]);
        let states = recorded(replay().compared(present.clone(), 6));
        assert!(states.of(0, 6, 10, &present).is_none());
        let again = states.of(0, 5, 10, &present).expect("message 5 was part of the comparison");
        assert!(again.changed.contains("a") && !again.changed.contains("b"));
    }
}
