//! Commands of people: silences and acknowledgements, by the keys of their topic.

use super::matcher::{Matcher, all_match};
use super::policy::AlertLabels;
use crate::Transition;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How long a command outlives its effect. A clock that goes a little back, and an acknowledgement
/// that is read before the alert it is about, find it still there.
const KEPT: i64 = 3_600_000_000_000;

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    Silence(Silence),
    Acknowledge(Acknowledge),
}

/// Alerts that match are not notified. Times are nanoseconds since the epoch.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Silence {
    pub id: String,
    /// All must hold. A silence without any silences nothing.
    pub matchers: Vec<Matcher>,
    pub starts_at: i64,
    /// The first moment at which it is over.
    pub ends_at: i64,
    pub created_by: String,
    pub comment: String,
    pub created_at: i64,
}

impl Silence {
    /// Whether it keeps the alert from being notified now.
    pub fn covers(&self, alert: &Transition, now: i64) -> bool {
        let is_active = self.starts_at <= now && now < self.ends_at;
        is_active && !self.matchers.is_empty() && all_match(&self.matchers, AlertLabels(alert))
    }
}

/// Somebody has taken an incident on: it is neither repeated nor escalated.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Acknowledge {
    pub incident: String,
    pub by: String,
    pub comment: String,
    /// Nanoseconds since the epoch.
    pub at: i64,
}

/// A command as it is kept.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Stored {
    pub(super) command: Command,
    /// None while an acknowledged incident goes on.
    drop_at: Option<i64>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Commands {
    stored: BTreeMap<String, Stored>,
    silences: BTreeSet<String>,
    /// The keys of the acknowledgements of an incident.
    acknowledged: BTreeMap<String, BTreeSet<String>>,
    expiry: BTreeSet<(i64, String)>,
}

impl Commands {
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.stored.keys().map(String::as_str)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Stored> {
        self.stored.get(key)
    }

    pub(super) fn insert(&mut self, key: &str, command: &Command, now: i64) {
        let drop_at = match command {
            Command::Silence(silence) => silence.ends_at.saturating_add(KEPT),
            Command::Acknowledge(acknowledge) => acknowledge.at.max(now).saturating_add(KEPT),
        };
        self.restore(key, Stored { command: command.clone(), drop_at: Some(drop_at) });
    }

    pub(super) fn restore(&mut self, key: &str, stored: Stored) {
        self.remove(key);
        match &stored.command {
            Command::Silence(_) => {
                self.silences.insert(key.to_owned());
            }
            Command::Acknowledge(acknowledge) => {
                let keys = self.acknowledged.entry(acknowledge.incident.clone()).or_default();
                keys.insert(key.to_owned());
            }
        }
        self.expiry.extend(stored.drop_at.map(|at| (at, key.to_owned())));
        self.stored.insert(key.to_owned(), stored);
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<Command> {
        let stored = self.stored.remove(key)?;
        match &stored.command {
            Command::Silence(_) => {
                self.silences.remove(key);
            }
            Command::Acknowledge(acknowledge) => {
                if let Some(keys) = self.acknowledged.get_mut(&acknowledge.incident) {
                    keys.remove(key);
                    if keys.is_empty() {
                        self.acknowledged.remove(&acknowledge.incident);
                    }
                }
            }
        }
        if let Some(at) = stored.drop_at {
            self.expiry.remove(&(at, key.to_owned()));
        }
        Some(stored.command)
    }

    /// The active silence that covers the alert. Of several, the one that ends last.
    pub(super) fn silence(&self, alert: &Transition, now: i64) -> Option<&Silence> {
        let silences = self.silences.iter().filter_map(|key| match &self.stored.get(key)?.command {
            Command::Silence(silence) => Some(silence),
            Command::Acknowledge(_) => None,
        });
        silences
            .filter(|silence| silence.covers(alert, now))
            .max_by(|left, right| (left.ends_at, &right.id).cmp(&(right.ends_at, &left.id)))
    }

    pub(super) fn acknowledged(&self, incident: &str) -> Option<&Acknowledge> {
        let key = self.acknowledged.get(incident)?.first()?;
        match &self.stored.get(key)?.command {
            Command::Acknowledge(acknowledge) => Some(acknowledge),
            Command::Silence(_) => None,
        }
    }

    /// The incident is over: its commands are kept a little longer. Returns the keys that changed.
    pub(super) fn ended(&mut self, incident: &str, now: i64) -> Vec<String> {
        self.postpone(incident, Some(now.saturating_add(KEPT)))
    }

    /// The incident goes on: its commands are kept. Returns the keys that changed.
    pub(super) fn goes_on(&mut self, incident: &str) -> Vec<String> {
        self.postpone(incident, None)
    }

    fn postpone(&mut self, incident: &str, drop_at: Option<i64>) -> Vec<String> {
        let keys: Vec<String> = self.acknowledged.get(incident).into_iter().flatten().cloned().collect();
        for key in &keys {
            if let Some(stored) = self.stored.get_mut(key) {
                self.expiry.extend(drop_at.map(|at| (at, key.clone())));
                if let Some(at) = std::mem::replace(&mut stored.drop_at, drop_at)
                    && drop_at != Some(at)
                {
                    self.expiry.remove(&(at, key.clone()));
                }
            }
        }
        keys
    }

    pub(super) fn next_expiry(&self) -> Option<i64> {
        self.expiry.first().map(|(at, _)| *at)
    }

    /// Drops what has no effect any more, and returns the keys.
    pub(super) fn expire(&mut self, now: i64) -> Vec<String> {
        let mut dropped = Vec::new();
        while let Some((at, key)) = self.expiry.first().cloned()
            && at <= now
        {
            self.remove(&key);
            dropped.push(key);
        }
        dropped
    }
}
