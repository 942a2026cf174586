//! The state as records of a compacted topic: the newest record of each key is all there is to
//! know.
//!
//! Keys are `alert/<alert>`, `group/<group>`, `member/<group>/<alert>`, `dispatch/<id>` and
//! `command/<key>`; values are JSON. Other releases read them: names are only ever added, and have
//! a default.

use super::digest::Digest;
use super::group::{Group, Member};
use super::policy::{Policy, Target};
use super::queue::Queued;
use super::silence::Stored;
use super::{Alert, Dispatcher};
use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Key {
    Alert(Digest),
    Group(Digest),
    Member(Digest, Digest),
    Dispatch(String),
    Command(String),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alert(alert) => write!(f, "alert/{alert}"),
            Self::Group(group) => write!(f, "group/{group}"),
            Self::Member(group, alert) => write!(f, "member/{group}/{alert}"),
            Self::Dispatch(id) => write!(f, "dispatch/{id}"),
            Self::Command(key) => write!(f, "command/{key}"),
        }
    }
}

impl Key {
    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once('/')?;
        Some(match kind {
            "alert" => Self::Alert(rest.parse().ok()?),
            "group" => Self::Group(rest.parse().ok()?),
            "member" => {
                let (group, alert) = rest.split_once('/')?;
                Self::Member(group.parse().ok()?, alert.parse().ok()?)
            }
            "dispatch" => Self::Dispatch(rest.to_owned()),
            "command" => Self::Command(rest.to_owned()),
            _ => return None,
        })
    }
}

/// A group without its members. Its dispatches are records of their own.
#[derive(Debug, Deserialize, Serialize)]
struct GroupRecord {
    target: Target,
    labels: BTreeMap<String, String>,
    last: Option<i64>,
    due: Option<i64>,
    repeat_at: Option<i64>,
    /// The ids of the dispatches, in order.
    queue: Vec<String>,
}

impl Dispatcher {
    /// The records that have changed since the last call, in the order of their keys. None deletes
    /// one.
    pub fn changes(&mut self) -> Vec<(String, Option<Vec<u8>>)> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|key| (key.to_string(), self.record(&key))).collect()
    }

    fn record(&self, key: &Key) -> Option<Vec<u8>> {
        match key {
            Key::Alert(alert) => self.alerts.get(alert).map(json),
            Key::Group(hash) => self.groups.get(hash).map(|group| {
                json(&GroupRecord {
                    target: group.target.clone(),
                    labels: group.labels.clone(),
                    last: group.last,
                    due: group.due,
                    repeat_at: group.repeat_at,
                    queue: group.queue.iter().map(|queued| queued.dispatch.id.clone()).collect(),
                })
            }),
            Key::Member(hash, alert) => self.groups.get(hash)?.members().get(alert).map(json),
            Key::Dispatch(id) => {
                let group = self.groups.get(self.dispatches.get(id)?)?;
                group.queue.iter().find(|queued| queued.dispatch.id == *id).map(json)
            }
            Key::Command(key) => self.commands.get(key).map(json),
        }
    }

    /// A machine that goes on as the one did that gave these records, in whatever order they come.
    /// Follow it with [`Dispatcher::resume`].
    ///
    /// The policy may be another one. Groups of routes that are gone tell what is unsettled, and
    /// that alerts are over, if their receivers still exist; new receivers are notified of what
    /// fires.
    pub fn restore(policy: Policy, records: impl Iterator<Item = (String, Vec<u8>)>) -> Result<Self> {
        let mut dispatcher = Self::new(policy);
        dispatcher.is_restored = true;
        let (mut groups, mut members, mut dispatches) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        for (text, value) in records {
            match Key::parse(&text) {
                Some(Key::Alert(alert)) => {
                    dispatcher.alerts.insert(alert, read::<Alert>(&text, &value)?);
                }
                Some(Key::Group(hash)) => {
                    groups.insert(hash, read::<GroupRecord>(&text, &value)?);
                }
                Some(Key::Member(hash, alert)) => members.push((hash, alert, read::<Member>(&text, &value)?)),
                Some(Key::Dispatch(id)) => {
                    dispatches.insert(id, read::<Queued>(&text, &value)?);
                }
                Some(Key::Command(key)) => dispatcher.commands.restore(&key, read::<Stored>(&text, &value)?),
                None => return Err(damaged(&text, "the key is of no known kind")),
            }
        }

        for (alert, known) in &dispatcher.alerts {
            if !known.transition.incident.is_empty() {
                dispatcher.incidents.insert(known.transition.incident.clone(), *alert);
            }
            dispatcher.inhibitors.insert(*alert, &known.transition);
        }
        for (hash, record) in groups {
            let mut group = Group::new(record.target, record.labels);
            (group.last, group.due, group.repeat_at) = (record.last, record.due, record.repeat_at);
            for id in record.queue {
                let key = Key::Dispatch(id.clone()).to_string();
                let queued = dispatches
                    .remove(&id)
                    .ok_or_else(|| damaged(&key, "a group has it, and it is not there"))?;
                group.queue.push(queued);
                dispatcher.dispatches.insert(id, hash);
            }
            dispatcher.groups.insert(hash, group);
        }
        if let Some(id) = dispatches.into_keys().next() {
            return Err(damaged(&Key::Dispatch(id).to_string(), "it is in no group"));
        }
        for (hash, alert, member) in members {
            if !dispatcher.groups.contains_key(&hash) {
                return Err(damaged(&Key::Member(hash, alert).to_string(), "its group is not there"));
            }
            dispatcher.put_member(hash, alert, member);
        }
        let hashes: Vec<Digest> = dispatcher.groups.keys().copied().collect();
        for hash in hashes {
            dispatcher.schedule(hash);
        }
        dispatcher.changed.clear();
        Ok(dispatcher)
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("maps with string keys, strings and numbers are all JSON")
}

fn read<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T> {
    serde_json::from_slice(value).map_err(|error| damaged(key, &error.to_string()))
}

fn damaged(key: &str, problem: &str) -> Error {
    Error::format("state of the alerts' dispatcher", format!("record `{key}`: {problem}"))
}
