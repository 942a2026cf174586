//! What the topics have about alerts: read for each question, whichever processes run.
//!
//! Of the topics that grow, only what the question is about is kept, and of that the newest.

use std::collections::BTreeMap;
use std::time::Duration;

use alerts::Transition;
use alerts::dispatch::{Command, Dispatcher, Silence, State};
use operators::sql::Catalog;

use super::ledger::{Ledger, Question, read_transitions};
use crate::alerting::compile_each;
use crate::alerting::progress::{BEHIND_RULE, Progress, Stall, partition_of, stall};
use crate::config::{AlertsConfig, Config};
use crate::error::Result;
use crate::kafka::state_topic::read_state;
use crate::time::nanoseconds;

/// A rule as far as an answer needs it.
#[derive(Debug, Clone, Default)]
pub(crate) struct KnownRule {
    pub(crate) name: String,
    pub(crate) hold_for: Duration,
    /// The first mistake in it, for which it is left out of use.
    pub(crate) mistake: Option<String>,
}

/// The rules' file as it is read for a question.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) rules: Vec<KnownRule>,
    /// What is wrong with the file itself. Rules that it concerns are not among the others.
    pub(crate) problems: Vec<String>,
}

impl Rules {
    /// Without a catalog nothing is compiled, and every rule counts as usable.
    pub(crate) fn of(alerts: &AlertsConfig, catalog: Option<&Catalog>, problems: Vec<String>) -> Self {
        let left_out = catalog.map(|catalog| compile_each(alerts, catalog).1).unwrap_or_default();
        let mistake = |name: &str| {
            let (_, mistakes) = left_out.iter().find(|(rule, _)| *rule == name)?;
            mistakes.first().map(ToString::to_string)
        };
        let known = alerts.rules.iter().map(|rule| KnownRule {
            name: rule.spec.name.clone(),
            hold_for: rule.spec.for_,
            mistake: mistake(&rule.spec.name),
        });
        let of_pipeline = KnownRule { name: BEHIND_RULE.to_owned(), ..KnownRule::default() };
        Self { rules: known.chain([of_pipeline]).collect(), problems }
    }
}

/// Everything that is known about what was asked.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    pub(crate) now: i64,
    pub(crate) rules: Rules,
    /// How long event time may stand still.
    pub(crate) behind_after: i64,
    /// The newest transition of each alert that is pending or fires.
    pub(crate) active: Vec<Transition>,
    pub(crate) progress: BTreeMap<i32, Progress>,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) commands: BTreeMap<String, Command>,
    /// Of the alerts in question, in order of time.
    pub(crate) ledger: Ledger,
    /// Of the alerts in question, in order.
    pub(crate) transitions: Vec<Transition>,
}

impl Evidence {
    /// Reads the topics of the alerting side. Blocks.
    ///
    /// # Errors
    /// When a topic does not exist, or no broker answers.
    pub(crate) fn gather(
        config: &Config,
        alerts: &AlertsConfig,
        rules: Rules,
        question: &Question,
        now: i64,
    ) -> Result<Self> {
        let (kafka, topics) = (&config.kafka, &config.topics);
        let mut evidence = Self {
            now,
            rules,
            behind_after: nanoseconds(alerts.behind.after),
            commands: read_commands(config)?,
            ..Self::default()
        };
        for (key, value) in read_state(kafka, &topics.alert_states(), None)? {
            match partition_of(&key) {
                Some(partition) => {
                    evidence
                        .progress
                        .extend(serde_json::from_slice(&value).ok().map(|progress| (partition, progress)));
                }
                None => evidence.active.extend(serde_json::from_slice::<Transition>(&value).ok()),
            }
        }
        let records = read_state(kafka, &topics.alert_manager(), None)?;
        evidence.dispatcher = Dispatcher::restore(alerts.policy.clone(), records.into_iter())?;
        // `rollup` does not know of it.
        let of_pipeline = evidence.dispatcher.alerts().filter(|alert| alert.rule == BEHIND_RULE);
        evidence.active.extend(of_pipeline.cloned().collect::<Vec<_>>());
        let notified = evidence.notified(question);
        evidence.ledger = Ledger::read(config, question, &notified)?;
        evidence.transitions = read_transitions(config, question, &evidence.ledger)?;
        Ok(evidence)
    }

    /// The dispatches that the alerts in question stand with, and when they were made. The ledger
    /// has what became of them.
    fn notified(&self, question: &Question) -> BTreeMap<String, i64> {
        let alerts = self.active.iter().filter(|alert| question.is_about(&alert.rule, &alert.labels));
        let all = self.dispatcher.standings();
        let standings = alerts.flat_map(|alert| all.of(&alert.rule, &alert.labels, self.now));
        standings
            .filter_map(|standing| match standing.state {
                State::Notified { at, dispatch } => Some((dispatch, at)),
                // Here and now its attempts are in the standing.
                State::Sending { dispatch, .. } if !matches!(question, Question::Now) => Some((dispatch, 0)),
                _ => None,
            })
            .collect()
    }

    /// Whether event time stands still, and with it everything that is judged.
    pub(crate) fn stall(&self) -> Option<Stall> {
        stall(&self.progress, self.now, self.behind_after)
    }

    pub(crate) fn silence(&self, id: &str) -> Option<&Silence> {
        self.silences().find(|silence| silence.id == id)
    }

    /// The silence that keeps an alert from being notified now. Of several, the one that ends last.
    pub(crate) fn silence_of(&self, alert: &Transition) -> Option<&Silence> {
        self.silences()
            .filter(|silence| silence.covers(alert, self.now))
            .max_by_key(|silence| silence.ends_at)
    }

    fn silences(&self) -> impl Iterator<Item = &Silence> {
        self.commands.values().filter_map(|command| match command {
            Command::Silence(silence) => Some(silence),
            Command::Acknowledge(_) => None,
        })
    }
}

/// Silences and acknowledgements, by their keys.
pub(crate) fn read_commands(config: &Config) -> Result<BTreeMap<String, Command>> {
    let records = read_state(&config.kafka, &config.topics.alert_commands(), None)?;
    let commands = records.into_iter();
    Ok(commands.filter_map(|(key, value)| Some((key, serde_json::from_slice(&value).ok()?))).collect())
}
