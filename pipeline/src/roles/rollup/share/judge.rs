//! Rules over what messages led to, and what is announced of them.

use alerts::StageTimes;
use operators::fold::Applied;
use operators::threshold::Failure;
use operators::watermark::EpochFacts;

use super::{Partition, RollupShare, window_rows};
use crate::alerting::progress::Progress;
use crate::error::Result;
use crate::roles::rollup::Event;
use crate::roles::rollup::reconcile::{Compared, deciders_of};
use crate::telemetry::{AlertLabels, RuleLabels};
use crate::time::Time;

impl RollupShare {
    /// Evaluates the rules on what a message led to, and announces what changed.
    pub(super) fn judge(&mut self, partition: i32, applied: &Applied, facts: &EpochFacts) -> Result<()> {
        let Some(state) = self.partitions.get_mut(&partition) else { return Ok(()) };
        let times = StageTimes {
            sample: facts.newest(),
            ingested: Some(facts.wall),
            evaluated: Some(self.context.clock.now_ns()),
        };
        state.threshold.leave_out(&state.fold.unknown());
        let mut transitions = state.threshold.look(&window_rows(&applied.open), times);
        transitions.extend(state.threshold.apply(
            &window_rows(&applied.results),
            state.fold.watermark(),
            times,
        ));
        for Failure { rule, message } in state.threshold.take_failures() {
            let labels = RuleLabels { rule: rule.clone() };
            self.context.metrics.notify.rule_failures.get_or_create(&labels).inc();
            let key = format!("rule {rule}");
            if let Some(held_back) = self.context.lines.take(&key, self.context.clock.monotonic()) {
                tracing::error!(rule, message, held_back, "a rule could not judge a row; one line a minute");
            }
        }
        transitions.iter_mut().for_each(|transition| transition.partition = Some(partition));
        if let Some(replay) = &state.replay {
            transitions.retain(|transition| !replay.holds_back(transition));
        }
        let mut compared = None;
        if let Some(replay) = state.replay.take_if(|replay| replay.is_due(state.next)) {
            let mut difference = replay.difference(&state.threshold, partition, state.fold.watermark());
            for transition in &mut difference {
                (transition.partition, transition.times) = (Some(partition), times);
            }
            if !difference.is_empty() {
                tracing::warn!(
                    partition,
                    alerts = difference.len(),
                    "alerts that were announced are not what the present rules and rollups make of the log: they are corrected"
                );
            }
            transitions.append(&mut difference);
            let deciders = deciders_of(&self.context, &state.threshold);
            state.compared = replay.undecided(deciders.clone(), state.next);
            compared = Some(replay.compared(deciders, state.next));
        }
        if !transitions.is_empty() {
            self.cover(partition)?;
        }
        for transition in transitions {
            let labels = AlertLabels { rule: transition.rule.clone(), status: transition.status.as_str() };
            self.context.metrics.notify.transitions.get_or_create(&labels).inc();
            self.announcer.alert(&transition)?;
            self.tell(Event::Alert(Box::new(transition)));
        }
        if let Some(compared) = compared {
            self.announcer.flush()?;
            if let Some(state) = self.partitions.get_mut(&partition) {
                state.compared = compared;
            }
            self.record_progress(partition)?;
        }
        Ok(())
    }

    /// Announces how far event time has come, of the partitions in which it moved or stands for another
    /// reason.
    pub(in crate::roles::rollup) fn announce_progress(&mut self) -> Result<()> {
        let partitions: Vec<i32> = self.partitions.keys().copied().collect();
        partitions.into_iter().try_for_each(|partition| self.record_progress(partition))
    }

    /// Has on the topic by which rules and up to where there are transitions, before these are: a
    /// crash may follow them.
    fn cover(&mut self, partition: i32) -> Result<()> {
        let Some(state) = self.partitions.get(&partition) else { return Ok(()) };
        let covering = state.covering();
        if state.covered.as_ref() == Some(&covering) {
            return Ok(());
        }
        self.record_progress(partition)?;
        self.announcer.flush()?;
        if let Some(state) = self.partitions.get_mut(&partition) {
            // Before event time is known there is no record.
            state.covered = state.announced.is_some().then_some(covering);
        }
        Ok(())
    }

    fn record_progress(&mut self, partition: i32) -> Result<()> {
        let Some(state) = self.partitions.get_mut(&partition) else { return Ok(()) };
        let Some(progress) = state.progress(self.context.clock.now_ns()) else { return Ok(()) };
        if state.announced.as_ref() != Some(&progress) {
            self.announcer.progress(partition, &progress)?;
            state.announced = Some(progress);
        }
        Ok(())
    }
}

impl Partition {
    /// What is to be recorded of it at the wall time `now`; nothing before event time is known.
    fn progress(&self, now: i64) -> Option<Progress> {
        let watermark = Time(self.fold.watermark()?);
        let held_by = self.fold.holder().map(|holder| {
            let (topic, number) = holder.source;
            format!("{topic}-{number}: {}", holder.reason)
        });
        let before = self.announced.as_ref().filter(|before| before.watermark == watermark);
        let moved_at = before.map_or(Time(now), |before| before.moved_at);
        let Compared { deciders: rules, held_back, until, next } = self.covering();
        Some(Progress { watermark, moved_at, held_by, rules, held_back, until, next: Some(next) })
    }

    /// By which rules something may have been announced, and up to where.
    fn covering(&self) -> Compared {
        Compared { next: self.compared.next.max(self.next), ..self.compared.clone() }
    }
}
