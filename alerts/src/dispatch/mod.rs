//! The dispatcher: who is notified of which alerts, and when.
//!
//! A state machine without clock and I/O. Transitions, commands of people, the outcomes of
//! deliveries and the time come in; what is to be sent and what is to be recorded comes out. Equal
//! inputs give equal outputs, ids included, so the live role, a replay of history and a test of a
//! configuration run the same code.
//!
//! - Every firing and resolved transition ends, for each receiver that it is routed to, in exactly
//!   one dispatch, or in a ledger entry with the reason why that receiver is not notified.
//! - Of a group, one dispatch is under way at a time. The next is given out when it has been
//!   settled.
//! - A receiver that was notified of an alert is notified of its end, silenced or not, if it takes
//!   that at all.
//! - [`Dispatcher::restore`] from all records that [`Dispatcher::changes`] gave makes a machine
//!   that goes on as this one.
//!
//! In the order in which an alert meets them:
//! - `policy`, `matcher`: routes, receivers and which alerts they are for
//! - `intake`: transitions and commands, into the groups that they belong to
//! - `group`: the transitions of each alert that a receiver has, and those that it is still to get
//! - `silence`, `inhibit`, `mute`: what holds alerts back
//! - `flush`: due groups to dispatches, escalation, repetition
//! - `queue`, `settle`: dispatches under way and waiting, their outcomes, and many made one when a
//!   receiver is away
//! - `log`: the ledger; `standing`: how an alert stands with its receivers
//! - `record`: the state as records of a compacted topic

mod digest;
mod flush;
mod group;
mod inhibit;
mod intake;
mod log;
mod matcher;
mod mute;
mod policy;
mod queue;
mod record;
mod settle;
mod silence;
mod standing;
#[cfg(test)]
mod tests;

pub use log::{Entry, What};
pub use matcher::Matcher;
pub use mute::{Mute, Range, TimeRange, Window};
pub use policy::{Escalation, GroupBy, Inhibition, Policy, ReceiverPolicy, Route};
pub use queue::{Dispatch, DispatchAlert, Reason};
pub use silence::{Acknowledge, Command, Silence};
pub use standing::{Standing, Standings, State};

use crate::Transition;
use digest::Digest;
use group::{Group, Member, Suppression};
use inhibit::{Inhibitors, Place};
use record::Key;
use serde::{Deserialize, Serialize};
use silence::Commands;
use std::collections::{BTreeMap, BTreeSet};

/// What the dispatcher wants to happen, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// To be sent, and settled by [`Dispatcher::sent`] or [`Dispatcher::gave_up`].
    Send(Dispatch),
    /// Instead of the dispatch with the old id, which is under way and not to be tried again, this
    /// one is to be sent.
    Replaced { old: String, by: Dispatch },
    /// To be recorded.
    Log(Entry),
}

/// The state machine, see the module. Times are nanoseconds since the epoch, and do not go back.
///
/// ```
/// use std::collections::BTreeMap;
///
/// use alerts::dispatch::{Dispatcher, Effect, Policy, ReceiverPolicy};
/// use alerts::{Status, SystemAlert};
///
/// let receivers = BTreeMap::from([("oncall".to_owned(), ReceiverPolicy { send_resolved: true })]);
/// let mut dispatcher = Dispatcher::new(Policy { receivers, ..Policy::default() });
///
/// let now = 60_000_000_000;
/// let to = ["oncall".to_owned()];
/// let (rule, status, severity) = ("Behind", Status::Firing, "page");
/// let alert = SystemAlert { rule, status, severity, receivers: &to, since: 0, at: now };
/// dispatcher.transition(&alert.transition("event time stands still".to_owned(), String::new()), now);
/// let sent = dispatcher.take_effects().into_iter().find_map(|effect| match effect {
///     Effect::Send(dispatch) => Some(dispatch),
///     _ => None,
/// });
/// let sent = sent.expect("the rule names a receiver that the policy has");
/// assert_eq!(sent.receiver, "oncall");
/// assert_eq!(sent.alerts[0].transition.summary, "event time stands still");
/// // Once the receiver has it, the ledger has an entry.
/// dispatcher.sent(&sent.id, now);
/// assert!(matches!(dispatcher.take_effects().as_slice(), [Effect::Log(_), ..]));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Dispatcher {
    policy: Policy,
    /// Those that fire.
    alerts: BTreeMap<Digest, Alert>,
    /// The incidents of those that fire.
    incidents: BTreeMap<String, Digest>,
    groups: BTreeMap<Digest, Group>,
    /// The group of each dispatch that is not settled.
    dispatches: BTreeMap<String, Digest>,
    commands: Commands,
    inhibitors: Inhibitors,
    /// Members that are held back by inhibition, as group and alert.
    inhibited: BTreeMap<Place, BTreeSet<(Digest, Digest)>>,
    timers: BTreeSet<(i64, Digest)>,
    effects: Vec<Effect>,
    changed: BTreeSet<Key>,
    /// The policy may be another one than when the state was written.
    is_restored: bool,
}

/// An alert that fires.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Alert {
    transition: Transition,
    /// Where it is to be notified.
    groups: BTreeSet<Digest>,
}

impl Dispatcher {
    pub fn new(policy: Policy) -> Self {
        let inhibitors = Inhibitors::new(policy.inhibitions.clone());
        Self { policy, inhibitors, ..Self::default() }
    }

    /// Does what is due by now.
    pub fn advance(&mut self, now: i64) {
        if std::mem::take(&mut self.is_restored) {
            self.adopt(now);
        }
        for key in self.commands.expire(now) {
            self.changed.insert(Key::Command(key));
        }
        self.run_due(now);
    }

    /// When [`Dispatcher::advance`] has something to do, if nothing else comes before.
    pub fn next_due(&self) -> Option<i64> {
        let timer = self.timers.first().map(|(at, _)| *at);
        [timer, self.commands.next_expiry()].into_iter().flatten().min()
    }

    /// What is to be done since the last call.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Gives out what was under way when the state was written once more. The receiver may have it:
    /// the former owner may have sent it, and ended before it could record so.
    pub fn resume(&mut self) {
        let known = self
            .groups
            .values_mut()
            .filter(|group| self.policy.receivers.contains_key(&group.target.receiver));
        for head in known.filter_map(|group| group.queue.head_mut()) {
            head.doubtful = true;
            self.changed.insert(Key::Dispatch(head.dispatch.id.clone()));
            self.effects.push(Effect::Send(head.dispatch.clone()));
        }
    }

    fn run_due(&mut self, now: i64) {
        while let Some((at, hash)) = self.timers.first().copied()
            && at <= now
        {
            self.tick(hash, now);
        }
    }

    /// Brings the group's timer up to date. A group of which nothing is left is forgotten.
    fn schedule(&mut self, hash: Digest) {
        let Some(group) = self.groups.get_mut(&hash) else { return };
        self.changed.insert(Key::Group(hash));
        if let Some(at) = group.timer.take() {
            self.timers.remove(&(at, hash));
        }
        if group.is_done() {
            self.groups.remove(&hash);
            return;
        }
        if group.fresh.is_empty() {
            group.due = None;
        }
        group.timer = group.next();
        self.timers.extend(group.timer.map(|at| (at, hash)));
    }

    /// Takes a member out of its group to change it.
    fn take_member(&mut self, hash: Digest, alert: Digest) -> Option<Member> {
        let member = self.groups.get_mut(&hash)?.take(alert)?;
        if let Some(Suppression::Inhibition { place, .. }) = member.hold().map(|hold| &hold.by)
            && let Some(inhibited) = self.inhibited.get_mut(place)
        {
            inhibited.remove(&(hash, alert));
            if inhibited.is_empty() {
                self.inhibited.remove(place);
            }
        }
        Some(member)
    }

    fn put_member(&mut self, hash: Digest, alert: Digest, member: Member) {
        self.changed.insert(Key::Member(hash, alert));
        if let Some(Suppression::Inhibition { place, .. }) = member.hold().map(|hold| &hold.by) {
            self.inhibited.entry(place.clone()).or_default().insert((hash, alert));
        }
        if let Some(group) = self.groups.get_mut(&hash) {
            group.put(alert, member);
        }
    }

    /// An entry about a transition.
    fn entry(transition: &Transition, id: &str, what: What, now: i64) -> Entry {
        Entry {
            at: now,
            transition: Some(id.to_owned()),
            dispatch: None,
            rule: transition.rule.clone(),
            labels: transition.labels.clone(),
            incident: transition.incident.clone(),
            what,
            receiver: None,
            by: None,
            reason: None,
        }
    }

    fn log(&mut self, entry: Entry) {
        self.effects.push(Effect::Log(entry));
    }
}
