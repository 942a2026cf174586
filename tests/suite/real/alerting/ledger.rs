//! What is written down of a site's alerts: transitions, and the ledger of what became of them.

use alerts::Transition;
use alerts::dispatch::{Command, Entry};
use serde::de::DeserializeOwned;
use tidemark_tests::kafka::{Kafka, Message};
use tidemark_tests::wait_until;

use super::super::PATIENCE;
use super::feed::window;

/// The topics of one deployment's alerts.
#[derive(Debug, Clone)]
pub(super) struct Ledger {
    kafka: &'static Kafka,
    alerts: String,
}

impl Ledger {
    pub(super) fn new(kafka: &'static Kafka, deployment: &str) -> Self {
        Self { kafka, alerts: format!("{deployment}-alerts") }
    }

    /// Every transition so far, repetitions left out.
    pub(super) fn transitions(&self) -> Vec<Transition> {
        let mut transitions: Vec<Transition> = Vec::new();
        for transition in self.read::<Transition>(&self.alerts) {
            if !transitions.iter().any(|known| known.id == transition.id) {
                transitions.push(transition);
            }
        }
        transitions
    }

    /// Every entry so far.
    pub(super) fn entries(&self) -> Vec<Entry> {
        self.read(&format!("{}-log", self.alerts))
    }

    /// Waits for an entry like this.
    #[track_caller]
    pub(super) fn wait_for(&self, what: &str, is_it: impl Fn(&Entry) -> bool) -> Entry {
        wait_until(PATIENCE, &format!("the ledger to say: {what}"), || {
            let entries = self.entries();
            entries.iter().find(|entry| is_it(entry)).cloned().ok_or_else(|| format!("{entries:#?}"))
        })
    }

    /// Writes what somebody says of the alerts.
    pub(super) fn command(&self, key: &str, command: &Command) {
        let payload = serde_json::to_vec(command).unwrap();
        let message = Message { key: Some(key.as_bytes().to_vec()), payload, ..Message::default() };
        self.kafka.produce(&format!("{}-commands", self.alerts), [message]);
    }

    fn read<T: DeserializeOwned>(&self, topic: &str) -> Vec<T> {
        let parse = |message: &Message| serde_json::from_slice(&message.payload).unwrap();
        self.kafka.consume_all(topic).iter().map(parse).collect()
    }
}

/// `a: 3 firing since 2`, windows by their numbers: the window that made the change, and the one
/// with which it began.
pub(super) fn told(transition: &Transition) -> String {
    let host = transition.labels.get("host").map_or("", String::as_str);
    let (at, since) = (window(transition.window_end), window(transition.starts_at));
    let absence = if transition.labels.contains_key("no_data") { " no_data" } else { "" };
    format!("{host}{absence}: {at} {} since {since}", transition.status)
}
