//! How an alert stands with its receivers, for people who ask why they were or were not notified.

use super::Dispatcher;
use super::digest::Digest;
use super::group::{Group, Hold, Member, Suppression};
use super::policy::fingerprint;
use super::queue::Queued;
use crate::Transition;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing {
    pub receiver: String,
    /// The name of the group in which it is notified.
    pub group: String,
    #[serde(flatten)]
    pub state: State,
}

/// Times are nanoseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum State {
    /// For others of its group, for the group's interval, or to be escalated.
    Waiting {
        until: Option<i64>,
    },
    /// Delivered.
    Notified {
        at: i64,
        dispatch: String,
    },
    /// Under way, or waiting after it.
    Sending {
        dispatch: String,
        attempts: u32,
        last_error: Option<String>,
    },
    Silenced {
        id: String,
        until: Option<i64>,
    },
    Inhibited {
        by: String,
    },
    Muted {
        by: String,
        until: Option<i64>,
    },
    /// Neither repeated nor escalated.
    Acknowledged {
        by: String,
    },
}

impl Dispatcher {
    /// The newest transition of every alert that fires.
    pub fn alerts(&self) -> impl Iterator<Item = &Transition> {
        self.alerts.values().map(|alert| &alert.transition)
    }

    /// The newest transition of an alert, if it fires.
    pub fn firing(&self, rule: &str, labels: &BTreeMap<String, String>) -> Option<&Transition> {
        self.alerts.get(&fingerprint(rule, labels)).map(|alert| &alert.transition)
    }

    /// Empty if nobody is to be notified of the alert, or nothing of it is left to tell.
    pub fn standing(&self, rule: &str, labels: &BTreeMap<String, String>, now: i64) -> Vec<Standing> {
        self.standings().of(rule, labels, now)
    }

    /// How all alerts stand, found by the alert: for those who ask about many.
    pub fn standings(&self) -> Standings<'_> {
        let mut by_alert: HashMap<Digest, Vec<Place<'_>>> = HashMap::new();
        for group in self.groups.values() {
            let mut places: HashMap<Digest, Place<'_>> = HashMap::new();
            let empty = || Place { group, member: None, under_way: None };
            for (alert, member) in group.members() {
                places.entry(*alert).or_insert_with(empty).member = Some(member);
            }
            // The newest counts.
            for queued in group.queue.iter() {
                for alert in &queued.dispatch.alerts {
                    let alert = fingerprint(&alert.transition.rule, &alert.transition.labels);
                    places.entry(alert).or_insert_with(empty).under_way = Some(queued);
                }
            }
            for (alert, place) in places {
                by_alert.entry(alert).or_default().push(place);
            }
        }
        Standings { dispatcher: self, by_alert }
    }
}

/// See [`Dispatcher::standings`].
#[derive(Debug)]
pub struct Standings<'d> {
    dispatcher: &'d Dispatcher,
    by_alert: HashMap<Digest, Vec<Place<'d>>>,
}

/// An alert in a group: as what the group holds of it, or as a part of what is under way.
#[derive(Debug)]
struct Place<'d> {
    group: &'d Group,
    member: Option<&'d Member>,
    under_way: Option<&'d Queued>,
}

impl Standings<'_> {
    /// As [`Dispatcher::standing`].
    pub fn of(&self, rule: &str, labels: &BTreeMap<String, String>, now: i64) -> Vec<Standing> {
        let places = self.by_alert.get(&fingerprint(rule, labels)).map_or(&[][..], Vec::as_slice);
        let mut standings = Vec::new();
        for Place { group, member, under_way } in places {
            let state = match (member, under_way) {
                (Some(member), under_way) => self.dispatcher.state(group, member, *under_way, now),
                (None, Some(queued)) => sending(queued),
                (None, None) => continue,
            };
            let receiver = group.target.receiver.clone();
            standings.push((
                group.target.after,
                Standing { receiver, group: group.target.group_key(&group.labels), state },
            ));
        }
        standings.sort_by(|(left_after, left), (right_after, right)| {
            (left_after, &left.receiver, &left.group).cmp(&(right_after, &right.receiver, &right.group))
        });
        standings.into_iter().map(|(_, standing)| standing).collect()
    }
}

impl Dispatcher {
    fn state(&self, group: &Group, member: &Member, under_way: Option<&Queued>, now: i64) -> State {
        if let Some(Hold { by, until }) = member.hold() {
            let until = until.filter(|until| *until > now);
            return match by {
                Suppression::Silence(id) => State::Silenced { id: id.clone(), until },
                Suppression::Inhibition { source, .. } => State::Inhibited { by: source.clone() },
                Suppression::Mute(name) => State::Muted { by: name.clone(), until },
                Suppression::Acknowledged { by, .. } => State::Acknowledged { by: by.clone() },
            };
        }
        if let Some(untold) = member.untold.last() {
            let until = if untold.eligible > 0 { Some(untold.eligible) } else { group.due };
            return State::Waiting { until };
        }
        if let Some(queued) = under_way {
            return sending(queued);
        }
        let Some(open) = &member.open else { return State::Waiting { until: group.due } };
        match self.commands.acknowledged(&open.transition.incident) {
            Some(acknowledge) => State::Acknowledged { by: acknowledge.by.clone() },
            None => State::Notified { at: open.at, dispatch: open.dispatch.clone() },
        }
    }
}

fn sending(queued: &Queued) -> State {
    State::Sending {
        dispatch: queued.dispatch.id.clone(),
        attempts: queued.attempts,
        last_error: queued.last_error.clone(),
    }
}
