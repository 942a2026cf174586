//! The dispatches of a group that are not settled: one under way, the others after it.

use super::digest::Parts;
use super::policy::Target;
use crate::rfc3339;
use crate::{Status, Transition};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

/// Alerts of one dispatch. More are several.
const MOST_ALERTS: usize = 100;

/// Dispatches of a group from which on they are made fewer even while an attempt is under way.
const LONG: usize = 64;

/// What a receiver is sent in one piece. Its id is the key by which a receiver tells repeated
/// deliveries.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Dispatch {
    pub id: String,
    pub receiver: String,
    /// The group's name: its route and labels. Another receiver's group may have the same one.
    pub group: String,
    pub group_labels: BTreeMap<String, String>,
    pub reason: Reason,
    pub alerts: Vec<DispatchAlert>,
    /// Sentences for people.
    pub notes: Vec<String>,
    /// Nanoseconds since the epoch.
    pub made_at: i64,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct DispatchAlert {
    /// The newest of its incident.
    pub transition: Transition,
    /// The ids of those that the receiver is notified with it for the first time.
    pub transitions: Vec<String>,
}

/// In the order of what counts most when several become one.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    Repeated,
    Changed,
    Escalated,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Repeated => "repeated",
            Self::Changed => "changed",
            Self::Escalated => "escalated",
        }
    }
}

/// What dispatches of a group have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'a> {
    pub(super) target: &'a Target,
    pub(super) labels: &'a BTreeMap<String, String>,
}

impl Origin<'_> {
    /// `replaced` are the ids of those in whose place it is.
    fn dispatch(
        self,
        reason: Reason,
        alerts: Vec<DispatchAlert>,
        notes: Vec<String>,
        replaced: &[String],
        now: i64,
    ) -> Dispatch {
        let receiver = &self.target.receiver;
        let group = self.target.group_key(self.labels);
        let mut transitions: Vec<&str> =
            alerts.iter().flat_map(|alert| &alert.transitions).map(String::as_str).collect();
        transitions.sort_unstable();
        let mut parts = Parts::of(&["dispatch", &group, receiver, reason.as_str()]);
        for transition in transitions {
            parts.push(transition);
        }
        if reason != Reason::Changed || !replaced.is_empty() {
            parts.push("at");
            parts.push(&now.to_string());
            // Repeats bring no transitions, and what was cut in several has one time.
            for alert in &alerts {
                parts.push(&alert.transition.id);
            }
        }
        for id in replaced {
            parts.push(id);
        }
        Dispatch {
            id: parts.uuid().to_string(),
            receiver: receiver.clone(),
            group,
            group_labels: self.labels.clone(),
            reason,
            alerts,
            notes,
            made_at: now,
        }
    }

    /// Dispatches of these alerts, as many as it takes.
    pub(super) fn dispatches(
        self,
        reason: Reason,
        alerts: Vec<(DispatchAlert, Option<String>)>,
        replaced: &[String],
        now: i64,
    ) -> Vec<Dispatch> {
        let mut dispatches = Vec::new();
        let mut rest = alerts.into_iter().peekable();
        while rest.peek().is_some() {
            let (alerts, notes): (Vec<_>, Vec<_>) = rest.by_ref().take(MOST_ALERTS).unzip();
            let notes = notes.into_iter().flatten().collect();
            dispatches.push(self.dispatch(reason, alerts, notes, replaced, now));
        }
        dispatches
    }

    /// One piece of news from several, the oldest first: of each incident the newest state.
    fn merged(self, dispatches: &[Dispatch], now: i64) -> Vec<Dispatch> {
        let mut reason = Reason::Repeated;
        let mut positions = BTreeMap::new();
        let mut merged: Vec<(DispatchAlert, Option<String>)> = Vec::new();
        // A note about several incidents stays true.
        let mut kept = Vec::new();
        for dispatch in dispatches {
            reason = reason.max(dispatch.reason);
            kept.extend(dispatch.notes.iter().filter(|note| !note.starts_with(LATE)).cloned());
            for alert in &dispatch.alerts {
                let transition = &alert.transition;
                let key = (&transition.incident, &transition.rule, &transition.labels);
                let Some(position) = positions.get(&key) else {
                    positions.insert(key, merged.len());
                    let note = dispatch.notes.iter().find(|note| **note == late(transition)).cloned();
                    merged.push((alert.clone(), note));
                    continue;
                };
                let (known, note) = &mut merged[*position];
                let was_firing = known.transition.status == Status::Firing;
                known.transition = transition.clone();
                known.transitions.extend(alert.transitions.iter().cloned());
                *note = match transition.status {
                    Status::Resolved if was_firing || note.is_some() => Some(late(transition)),
                    _ => None,
                };
            }
        }
        let replaced: Vec<String> = dispatches.iter().map(|dispatch| dispatch.id.clone()).collect();
        let mut dispatches = self.dispatches(reason, merged, &replaced, now);
        if let Some(first) = dispatches.first_mut() {
            kept.dedup();
            kept.append(&mut first.notes);
            first.notes = kept;
        }
        dispatches
    }
}

const LATE: &str = "sent late, the receiver was away: ";

fn late(transition: &Transition) -> String {
    let ended = transition.ends_at.unwrap_or(transition.window_end);
    format!("{LATE}{} began {}, ended {}", name(transition), rfc3339(transition.starts_at), rfc3339(ended))
}

/// An alert for people: its rule and labels.
pub(super) fn name(transition: &Transition) -> String {
    let mut name = transition.rule.clone();
    for (label, value) in &transition.labels {
        let _ = write!(name, " {label}={value}");
    }
    name
}

/// A dispatch that is not settled.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Queued {
    pub(super) dispatch: Dispatch,
    /// How many failed.
    pub(super) attempts: u32,
    /// After one of them the receiver may have it. It must stay what it is, under its key, for
    /// ever.
    pub(super) doubtful: bool,
    pub(super) last_error: Option<String>,
}

impl Queued {
    pub(super) fn new(dispatch: Dispatch) -> Self {
        Self { dispatch, attempts: 0, doubtful: false, last_error: None }
    }
}

/// The first one is under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue(VecDeque<Queued>);

/// Which dispatches were replaced by which.
#[derive(Debug)]
pub(super) struct Coalesced {
    pub(super) old: Vec<Dispatch>,
    pub(super) new: Vec<Dispatch>,
    /// Whether the one under way is among the old ones.
    pub(super) with_head: bool,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Queued> {
        self.0.iter()
    }

    pub(super) fn head(&self) -> Option<&Queued> {
        self.0.front()
    }

    pub(super) fn head_mut(&mut self) -> Option<&mut Queued> {
        self.0.front_mut()
    }

    pub(super) fn push(&mut self, queued: Queued) {
        self.0.push_back(queued);
    }

    pub(super) fn pop(&mut self) -> Option<Queued> {
        self.0.pop_front()
    }

    /// Whether so many wait that it is time to make them fewer. At powers of two, as it may not
    /// help.
    pub(super) fn is_long(&self) -> bool {
        self.0.len() >= LONG && self.0.len().is_power_of_two()
    }

    /// Makes as few of what waits as there can be; with the one under way, if it is not being tried
    /// just now. What an attempt may have brought to the receiver is left alone.
    pub(super) fn coalesce(&mut self, origin: Origin<'_>, is_tried: bool, now: i64) -> Option<Coalesced> {
        let with_head = !is_tried && !self.head()?.doubtful;
        let start = usize::from(!with_head);
        if self.0.len() < start + 2 {
            return None;
        }
        let old: Vec<Dispatch> = self.0.iter().skip(start).map(|queued| queued.dispatch.clone()).collect();
        let new = origin.merged(&old, now);
        if new.len() >= old.len() {
            return None;
        }
        let head = self.0.front().cloned();
        self.0.truncate(start);
        self.0.extend(new.iter().cloned().map(Queued::new));
        if let (true, Some(before), Some(head)) = (with_head, head, self.0.front_mut()) {
            head.attempts = before.attempts;
            head.last_error = before.last_error;
        }
        Some(Coalesced { old, new, with_head })
    }
}
