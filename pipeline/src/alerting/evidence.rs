//! What the topics say of alerts: read by whoever asks, whichever processes run.

use std::collections::BTreeMap;
use std::time::Duration;

use operators::dispatch::{Command, Dispatcher, Entry, Silence};
use operators::threshold::Transition;

use super::progress::{Progress, Stall, partition_of, stall};
use crate::clock::nanoseconds;
use crate::compacted::{Reader, read_state};
use crate::config::{AlertsConfig, Config};
use crate::error::Result;

/// A rule as far as an answer needs it.
#[derive(Debug, Clone)]
pub(crate) struct KnownRule {
    pub(crate) name: String,
    pub(crate) hold_for: Duration,
}

/// Everything that is known about alerts.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    pub(crate) now: i64,
    pub(crate) rules: Vec<KnownRule>,
    /// How long event time may stand still.
    pub(crate) behind_after: i64,
    /// The newest transition of each alert that is pending or fires.
    pub(crate) active: Vec<Transition>,
    pub(crate) progress: BTreeMap<i32, Progress>,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) commands: BTreeMap<String, Command>,
    /// In order of time.
    pub(crate) ledger: Vec<Entry>,
    /// All there are in the topic, in order.
    pub(crate) transitions: Vec<Transition>,
}

impl Evidence {
    /// Reads all topics of the alerting side. Blocks.
    ///
    /// # Errors
    /// When a topic does not exist, or no broker answers.
    pub(crate) fn gather(config: &Config, alerts: &AlertsConfig, now: i64) -> Result<Self> {
        let (kafka, topics) = (&config.kafka, &config.topics);
        let mut evidence = Self {
            now,
            rules: known_rules(alerts),
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
        evidence.ledger = read_log(config, &topics.alert_log())?;
        evidence.transitions = read_log(config, &topics.alerts)?;
        Ok(evidence)
    }

    /// Whether event time stands still, and with it everything that is judged.
    pub(crate) fn stall(&self) -> Option<Stall> {
        stall(&self.progress, self.now, self.behind_after)
    }

    pub(crate) fn silence(&self, id: &str) -> Option<&Silence> {
        self.commands.values().find_map(|command| match command {
            Command::Silence(silence) if silence.id == id => Some(silence),
            _ => None,
        })
    }
}

fn known_rules(alerts: &AlertsConfig) -> Vec<KnownRule> {
    let known =
        alerts.rules.iter().map(|rule| KnownRule { name: rule.name.clone(), hold_for: rule.hold_for });
    let of_pipeline = KnownRule { name: crate::notify::behind::RULE.to_owned(), hold_for: Duration::ZERO };
    known.chain([of_pipeline]).collect()
}

/// Silences and acknowledgements, by their keys.
pub(crate) fn read_commands(config: &Config) -> Result<BTreeMap<String, Command>> {
    let records = read_state(&config.kafka, &config.topics.alert_commands(), None)?;
    let commands = records.into_iter();
    Ok(commands.filter_map(|(key, value)| Some((key, serde_json::from_slice(&value).ok()?))).collect())
}

/// Every record of a topic that can be read, in the order in which they were written.
fn read_log<T: serde::de::DeserializeOwned>(config: &Config, topic: &str) -> Result<Vec<T>> {
    let mut records = Vec::new();
    Reader::new(&config.kafka, topic, None)?.read_to_end(|record| {
        let value = record.value.and_then(|value| serde_json::from_slice(&value).ok());
        records.extend(value);
    })?;
    Ok(records)
}
