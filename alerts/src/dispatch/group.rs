//! A group: what a receiver is notified together, and what it was notified.

use super::digest::Digest;
use super::inhibit::Place;
use super::policy::Target;
use super::queue::Queue;
use crate::{Status, Transition};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Incidents of one alert that may wait untold. Beyond it the oldest one takes the next ones in.
const MOST_UNTOLD: usize = 20;

/// Where a group is, who is notified, and which timers run.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) target: Target,
    pub(super) labels: BTreeMap<String, String>,
    /// When the newest dispatch of changes was made.
    pub(super) last: Option<i64>,
    /// When the changes are notified.
    pub(super) due: Option<i64>,
    /// When what still fires is notified again.
    pub(super) repeat_at: Option<i64>,
    pub(super) queue: Queue,
    members: BTreeMap<Digest, Member>,
    /// Members with something to tell when it is due.
    pub(super) fresh: BTreeSet<Digest>,
    /// Members that are held back, by when that ends. Without a known end it is [`i64::MAX`].
    pub(super) held: BTreeSet<(i64, Digest)>,
    /// Members that are to be escalated, by when.
    pub(super) waiting: BTreeSet<(i64, Digest)>,
    /// How many members are firing for all that the receiver knows.
    open: usize,
    /// Where the group stands among the timers.
    pub(super) timer: Option<i64>,
}

/// An alert in a group.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Member {
    /// What the receiver knows to be firing.
    pub(super) open: Option<Open>,
    /// In the order in which it began.
    pub(super) untold: Vec<Untold>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Open {
    pub(super) transition: Transition,
    pub(super) at: i64,
    pub(super) dispatch: String,
}

/// An incident of which there is something to tell.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Untold {
    /// The newest.
    pub(super) transition: Transition,
    /// All that are not notified.
    pub(super) ids: Vec<String>,
    /// When it is to be escalated. 0 in groups that are notified first.
    pub(super) eligible: i64,
    pub(super) held: Option<Hold>,
    /// How many of the ids the ledger has as held by this.
    pub(super) noted: usize,
    /// How many further incidents it stands for.
    pub(super) merged: usize,
}

/// Why something is not notified now.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Hold {
    pub(super) by: Suppression,
    /// None if no moment is known.
    pub(super) until: Option<i64>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Suppression {
    Silence(String),
    Inhibition { place: Place, source: String },
    Mute(String),
    Acknowledged { incident: String, by: String },
}

impl Untold {
    pub(super) fn new(transition: &Transition, ids: Vec<String>, eligible: i64) -> Self {
        Self { transition: transition.clone(), ids, eligible, held: None, noted: 0, merged: 0 }
    }

    pub(super) fn is_firing(&self) -> bool {
        self.transition.status == Status::Firing
    }
}

impl Member {
    pub(super) fn is_open(&self, incident: &str) -> bool {
        self.open.as_ref().is_some_and(|open| open.transition.incident == incident)
    }

    /// The one untold incident that still fires. An alert has one at a time.
    pub(super) fn firing(&self) -> Option<&Untold> {
        self.untold.iter().find(|untold| untold.is_firing())
    }

    pub(super) fn hold(&self) -> Option<&Hold> {
        self.firing()?.held.as_ref()
    }

    pub(super) fn push(&mut self, untold: Untold) {
        self.untold.push(untold);
        if self.untold.len() > MOST_UNTOLD {
            let second = self.untold.remove(1);
            let oldest = &mut self.untold[0];
            oldest.ids.extend(second.ids);
            oldest.merged += 1 + second.merged;
        }
    }

    fn is_done(&self) -> bool {
        self.open.is_none() && self.untold.is_empty()
    }
}

impl Group {
    pub(super) fn new(target: Target, labels: BTreeMap<String, String>) -> Self {
        Self {
            target,
            labels,
            last: None,
            due: None,
            repeat_at: None,
            queue: Queue::default(),
            members: BTreeMap::new(),
            fresh: BTreeSet::new(),
            held: BTreeSet::new(),
            waiting: BTreeSet::new(),
            open: 0,
            timer: None,
        }
    }

    pub(super) fn members(&self) -> &BTreeMap<Digest, Member> {
        &self.members
    }

    /// Takes a member out to change it. [`Group::put`] brings it back.
    pub(super) fn take(&mut self, alert: Digest) -> Option<Member> {
        let member = self.members.remove(&alert)?;
        self.fresh.remove(&alert);
        if let Some(hold) = member.hold() {
            self.held.remove(&(hold.until.unwrap_or(i64::MAX), alert));
        }
        if let Some(untold) = member.firing() {
            self.waiting.remove(&(untold.eligible, alert));
        }
        self.open -= usize::from(member.open.is_some());
        Some(member)
    }

    /// A member of which there is nothing left to tell is forgotten.
    pub(super) fn put(&mut self, alert: Digest, member: Member) {
        if member.is_done() {
            return;
        }
        for untold in &member.untold {
            match &untold.held {
                Some(hold) if untold.is_firing() => {
                    self.held.insert((hold.until.unwrap_or(i64::MAX), alert));
                }
                None if untold.is_firing() && untold.eligible > 0 => {
                    self.waiting.insert((untold.eligible, alert));
                }
                _ => {
                    self.fresh.insert(alert);
                }
            }
        }
        self.open += usize::from(member.open.is_some());
        self.members.insert(alert, member);
    }

    /// Notes by which dispatch the receiver knows that an incident fires.
    pub(super) fn told_by(&mut self, alert: Digest, incident: &str, dispatch: &str) {
        if let Some(open) = self.members.get_mut(&alert).and_then(|member| member.open.as_mut())
            && open.transition.incident == incident
        {
            dispatch.clone_into(&mut open.dispatch);
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.members.is_empty() && self.queue.is_empty()
    }

    /// The next moment at which there may be something to do.
    pub(super) fn next(&self) -> Option<i64> {
        let due = self.due.filter(|_| !self.fresh.is_empty());
        let held = self.held.first().map(|(until, _)| *until).filter(|until| *until < i64::MAX);
        let waiting = self.waiting.first().map(|(eligible, _)| *eligible);
        let repeat = self.repeat_at.filter(|_| self.open > 0 && self.queue.is_empty());
        [due, held, waiting, repeat].into_iter().flatten().min()
    }
}
