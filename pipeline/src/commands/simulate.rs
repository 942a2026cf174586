//! What people would have been notified: the rules and routes of a configuration over the rows of
//! windows, by the threshold operator and the dispatcher of the live roles, without Kafka, a clock,
//! or anyone to tell.
//!
//! Wall time is an argument: who has no other lets it be ahead of the watermark by the bound on
//! disorder, as it is where points come without delay. Between two steps the dispatcher is advanced
//! to every moment at which it has something to do, and each notification is delivered at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use alerts::dispatch::{Command, Dispatch, DispatchAlert, Dispatcher, Effect, Entry, GroupBy, Reason};
use alerts::{Cause, StageTimes, Status, Transition};
use operators::sql::Catalog;
use operators::threshold::{Threshold, WindowRows};
use serde::Serialize;

use crate::alerting::compile_rules;
use crate::config::{AlertsConfig, ConfigError};
use crate::time::Time;

/// A rollup and one of its tiers, by their names.
pub(crate) type Source = (String, String);

#[derive(Debug)]
pub(crate) struct Simulation {
    threshold: Threshold,
    dispatcher: Dispatcher,
    sources: BTreeSet<Source>,
    /// The longest that the first alert of a group waits for others, nanoseconds.
    longest_wait: i64,
    /// Wall time.
    now: i64,
    /// Alerts that are pending or fire: the newest transition of each.
    active: BTreeMap<AlertKey, Transition>,
    outcome: Outcome,
}

/// What came of it since it was taken last.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// In the order in which it was notified.
    pub(crate) notified: Vec<Notified>,
    pub(crate) ledger: Vec<Entry>,
    /// Rules that rows could not be judged by, and why.
    pub(crate) failures: BTreeSet<(String, String)>,
}

/// An alert over all of its incidents.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub(crate) struct AlertKey {
    pub(crate) rule: String,
    pub(crate) labels: BTreeMap<String, String>,
}

/// A notification.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Notified {
    /// Wall time.
    pub(crate) at: Time,
    pub(crate) receiver: String,
    pub(crate) reason: Reason,
    pub(crate) group: String,
    /// Those that fire come first.
    pub(crate) alerts: Vec<NotifiedAlert>,
    /// Sentences for people.
    pub(crate) notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct NotifiedAlert {
    #[serde(flatten)]
    pub(crate) alert: AlertKey,
    pub(crate) status: Status,
    pub(crate) severity: String,
    pub(crate) starts_at: Time,
    pub(crate) ends_at: Option<Time>,
    pub(crate) summary: String,
    pub(crate) cause: Cause,
    /// The ids of what is notified by it, as in the webhooks of the pipeline.
    pub(crate) transitions: Vec<String>,
}

impl Simulation {
    /// # Errors
    /// Every mistake in a rule's SQL or templates.
    pub(crate) fn new(config: &AlertsConfig, catalog: &Catalog) -> Result<Self, Vec<ConfigError>> {
        let (rules, problems) = compile_rules(config, catalog);
        if !problems.is_empty() {
            return Err(problems);
        }
        let sources = rules.iter().flat_map(operators::threshold::Rule::sources);
        let groups = config.policy.routes.iter().filter(|route| route.group_by != GroupBy::None);
        Ok(Self {
            sources: sources.map(|(rollup, tier)| (rollup.to_owned(), tier.to_owned())).collect(),
            longest_wait: groups.map(|route| route.group_wait).max().unwrap_or(0),
            threshold: Threshold::new(rules),
            dispatcher: Dispatcher::new(config.policy.clone()),
            now: i64::MIN,
            active: BTreeMap::new(),
            outcome: Outcome::default(),
        })
    }

    /// What its rules look at.
    pub(crate) fn sources(&self) -> &BTreeSet<Source> {
        &self.sources
    }

    /// Alerts that are pending or fire, with the newest transition of each.
    pub(crate) fn active(&self) -> &BTreeMap<AlertKey, Transition> {
        &self.active
    }

    /// Whether some rule wants to see the open windows of a tier of a rollup.
    pub(crate) fn watches_open(&self, rollup: &str, tier: &str) -> bool {
        self.threshold.watches_open(rollup, tier)
    }

    /// Takes in, at wall time `now`, what one message leads to: windows that are still open, for
    /// rules that look at them, then rows of corrected windows and of those that close as event
    /// time comes to `watermark`.
    pub(crate) fn step(
        &mut self,
        open: &[WindowRows<'_>],
        rows: &[WindowRows<'_>],
        watermark: Option<i64>,
        now: i64,
    ) {
        self.advance(now);
        let now = self.now;
        let times = StageTimes { evaluated: Some(now), ..StageTimes::default() };
        let mut transitions = self.threshold.look(open, times);
        transitions.extend(self.threshold.apply(rows, watermark, times));
        let failures = self.threshold.take_failures().into_iter();
        self.outcome.failures.extend(failures.map(|failure| (failure.rule, failure.message)));
        for transition in transitions {
            self.dispatcher.transition(&transition, now);
            self.settle(now);
            let key = AlertKey::of(&transition);
            match transition.status {
                Status::Pending | Status::Firing => {
                    self.active.insert(key, transition);
                }
                // A correction may end an incident of the past while another one goes on.
                Status::Resolved | Status::Inactive => {
                    if self.active.get(&key).is_some_and(|active| active.incident == transition.incident) {
                        self.active.remove(&key);
                    }
                }
            }
        }
    }

    /// A silence or an acknowledgement, at a moment of wall time.
    pub(crate) fn command(&mut self, key: &str, command: &Command, at: i64) {
        self.advance(at);
        self.dispatcher.command(key, Some(command), self.now);
        self.settle(self.now);
    }

    /// Lets wall time pass without event time: what is due by `until` is notified at its own
    /// moment.
    pub(crate) fn advance(&mut self, until: i64) {
        while let Some(due) = self.dispatcher.next_due().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.dispatcher.advance(self.now);
            self.settle(self.now);
        }
        self.now = self.now.max(until);
    }

    /// Lets so much time pass that the last alerts have waited for others of their group.
    pub(crate) fn finish(&mut self) {
        self.advance(self.now.saturating_add(self.longest_wait));
    }

    /// What came of it since the last call.
    pub(crate) fn take(&mut self) -> Outcome {
        std::mem::take(&mut self.outcome)
    }

    /// Delivers what is to be sent, and what that makes way for.
    fn settle(&mut self, now: i64) {
        loop {
            let effects = self.dispatcher.take_effects();
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                match effect {
                    Effect::Log(entry) => self.outcome.ledger.push(entry),
                    Effect::Send(dispatch) | Effect::Replaced { by: dispatch, .. } => {
                        self.outcome.notified.push(Notified::of(&dispatch, now));
                        self.dispatcher.sent(&dispatch.id, now);
                    }
                }
            }
        }
    }
}

impl Outcome {
    pub(crate) fn extend(&mut self, later: Self) {
        self.notified.extend(later.notified);
        self.ledger.extend(later.ledger);
        self.failures.extend(later.failures);
    }
}

impl AlertKey {
    pub(crate) fn of(transition: &Transition) -> Self {
        Self { rule: transition.rule.clone(), labels: transition.labels.clone() }
    }
}

/// As Prometheus writes a series: `cpu_high{host="a",region="eu"}`.
impl fmt::Display for AlertKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rule)?;
        for (position, (name, value)) in self.labels.iter().enumerate() {
            write!(f, "{}{name}={value:?}", if position == 0 { '{' } else { ',' })?;
        }
        f.write_str(if self.labels.is_empty() { "" } else { "}" })
    }
}

impl Notified {
    fn of(dispatch: &Dispatch, now: i64) -> Self {
        let mut alerts: Vec<NotifiedAlert> = dispatch.alerts.iter().map(NotifiedAlert::of).collect();
        // The order of equals stays as it is.
        alerts.sort_by_key(|alert| alert.status == Status::Resolved);
        Self {
            at: Time(now),
            receiver: dispatch.receiver.clone(),
            reason: dispatch.reason,
            group: dispatch.group.clone(),
            alerts,
            notes: dispatch.notes.clone(),
        }
    }

    /// Firing as long as one of its alerts is.
    pub(crate) fn status(&self) -> Status {
        let fires = self.alerts.iter().any(|alert| alert.status == Status::Firing);
        if fires { Status::Firing } else { Status::Resolved }
    }
}

impl NotifiedAlert {
    fn of(notified: &DispatchAlert) -> Self {
        let transition = &notified.transition;
        Self {
            alert: AlertKey::of(transition),
            status: transition.status,
            severity: transition.severity.clone(),
            starts_at: Time(transition.starts_at),
            ends_at: transition.ends_at.map(Time),
            summary: transition.summary.clone(),
            cause: transition.cause,
            transitions: notified.transitions.clone(),
        }
    }
}

#[cfg(test)]
#[path = "simulate_tests.rs"]
mod tests;
