//! Transitions and commands, into the groups that they belong to.

use super::digest::Digest;
use super::group::{Group, Hold, Member, Suppression, Untold};
use super::inhibit::Place;
use super::policy::{Routed, Target, fingerprint};
use super::record::Key;
use super::silence::Command;
use super::{Alert, Dispatcher, Entry, What};
use crate::{Cause, Status, Transition};
use std::collections::{BTreeMap, BTreeSet};

impl Dispatcher {
    /// Takes in a transition. Each comes once, in the order of the alerts topic.
    pub fn transition(&mut self, transition: &Transition, now: i64) {
        self.advance(now);
        let what = match transition.status {
            Status::Pending => What::Pending,
            Status::Inactive => What::Inactive,
            Status::Firing | Status::Resolved => What::Received,
        };
        self.log(Self::entry(transition, &transition.id, what, now));
        match transition.status {
            Status::Pending | Status::Inactive => {}
            Status::Firing => self.fired(transition, now),
            Status::Resolved => self.resolved(transition, now),
        }
        self.run_due(now);
    }

    /// Applies a record of the commands' topic. None takes the command of the key back; where there
    /// is none, nothing has changed.
    pub fn command(&mut self, key: &str, value: Option<&Command>, now: i64) {
        self.advance(now);
        let before = self.commands.remove(key);
        if before.is_none() && value.is_none() {
            return;
        }
        if let Some(command) = value {
            self.commands.insert(key, command, now);
        }
        self.changed.insert(Key::Command(key.to_owned()));
        match &before {
            Some(Command::Silence(silence)) => {
                self.recheck_held(|by| matches!(by, Suppression::Silence(id) if *id == silence.id), now);
            }
            Some(Command::Acknowledge(before)) => self.recheck_held(
                |by| matches!(by, Suppression::Acknowledged { incident, .. } if *incident == before.incident),
                now,
            ),
            None => {}
        }
        if let Some(Command::Acknowledge(acknowledge)) = value
            && let Some(alert) =
                self.incidents.get(&acknowledge.incident).and_then(|alert| self.alerts.get(alert))
        {
            let mut entry = Self::entry(&alert.transition, &alert.transition.id, What::Acknowledged, now);
            entry.by = Some(acknowledge.by.clone());
            entry.reason = Some(acknowledge.comment.clone()).filter(|comment| !comment.is_empty());
            self.log(entry);
            let kept = self.commands.goes_on(&acknowledge.incident);
            self.changed.extend(kept.into_iter().map(Key::Command));
        }
        self.run_due(now);
    }

    /// The keys of the commands that are known.
    pub fn commands(&self) -> impl Iterator<Item = &str> {
        self.commands.keys()
    }

    fn fired(&mut self, transition: &Transition, now: i64) {
        let alert = self.identity(transition);
        let mut freed = Vec::new();
        let mut groups = BTreeSet::new();
        if let Some(before) = self.alerts.get(&alert).cloned() {
            freed = self.inhibitors.remove(alert, &before.transition);
            if before.transition.incident == transition.incident {
                groups = before.groups;
            } else {
                self.supersede(alert, &before, transition, now);
            }
        }
        self.inhibitors.insert(alert, transition);

        let mut receivers: BTreeSet<String> = self.first_told(&groups);
        let Routed { targets, unknown } = self.policy.targets(transition);
        for receiver in unknown {
            let mut entry = Self::entry(transition, &transition.id, What::NotRouted, now);
            entry.reason = Some(format!("there is no receiver `{receiver}`"));
            entry.receiver = Some(receiver);
            self.log(entry);
        }
        for (target, labels) in targets {
            if receivers.insert(target.receiver.clone()) {
                groups.insert(self.group(target, labels));
            }
        }
        if receivers.is_empty() {
            self.log_not_routed(transition, now);
        }

        if !transition.incident.is_empty() {
            self.incidents.insert(transition.incident.clone(), alert);
            let kept = self.commands.goes_on(&transition.incident);
            self.changed.extend(kept.into_iter().map(Key::Command));
        }
        self.alerts.insert(alert, Alert { transition: transition.clone(), groups: groups.clone() });
        self.changed.insert(Key::Alert(alert));
        for (hash, is_first) in self.in_order(&groups) {
            self.apply(hash, alert, transition, is_first.then_some(&transition.id), now);
        }
        self.recheck_freed(&freed, now);
    }

    fn resolved(&mut self, transition: &Transition, now: i64) {
        let alert = self.identity(transition);
        let fires = |known: &Alert| known.transition.incident == transition.incident;
        if !self.alerts.get(&alert).is_some_and(fires) {
            self.resolved_again(alert, transition, now);
            return;
        }
        let Some(known) = self.alerts.remove(&alert) else { return };
        self.changed.insert(Key::Alert(alert));
        self.incidents.remove(&transition.incident);
        let kept = self.commands.ended(&transition.incident, now);
        self.changed.extend(kept.into_iter().map(Key::Command));
        let freed = self.inhibitors.remove(alert, &known.transition);
        if self.first_told(&known.groups).is_empty() {
            self.log_not_routed(transition, now);
        }
        self.close(alert, &known.groups, transition, Some(&transition.id), now);
        self.recheck_freed(&freed, now);
    }

    /// Of an incident that does not fire, as far as is known. A correction is notified once more,
    /// to whom the alert is routed now.
    fn resolved_again(&mut self, alert: Digest, transition: &Transition, now: i64) {
        if transition.cause != Cause::Correction {
            let mut entry = Self::entry(transition, &transition.id, What::EndedUntold, now);
            entry.reason = Some("its beginning is not known".into());
            self.log(entry);
            return;
        }
        let targets = self.policy.targets(transition).targets;
        if targets.is_empty() {
            self.log_not_routed(transition, now);
        }
        for (target, labels) in targets {
            let hash = self.group(target, labels);
            self.apply(hash, alert, transition, Some(&transition.id), now);
        }
    }

    /// An incident gives way to the next one of its alert, without a resolved transition.
    fn supersede(&mut self, alert: Digest, before: &Alert, next: &Transition, now: i64) {
        self.incidents.remove(&before.transition.incident);
        let kept = self.commands.ended(&before.transition.incident, now);
        self.changed.extend(kept.into_iter().map(Key::Command));
        let mut over = before.transition.clone();
        over.status = Status::Resolved;
        over.ends_at = Some(next.starts_at.max(over.starts_at));
        self.close(alert, &before.groups, &over, None, now);
    }

    fn close(
        &mut self,
        alert: Digest,
        groups: &BTreeSet<Digest>,
        over: &Transition,
        id: Option<&String>,
        now: i64,
    ) {
        for (hash, is_first) in self.in_order(groups) {
            if is_first {
                self.apply(hash, alert, over, id, now);
            } else if let Some(mut member) = self.take_member(hash, alert) {
                // The receiver is notified as one of those who were notified first.
                member.untold.retain(|untold| untold.transition.incident != over.incident);
                member.open = member.open.filter(|open| open.transition.incident != over.incident);
                self.put_member(hash, alert, member);
                self.schedule(hash);
            }
        }
    }

    /// What a group has to tell of an alert after this transition. `id` is None when it is notified
    /// nowhere here.
    pub(super) fn apply(
        &mut self,
        hash: Digest,
        alert: Digest,
        transition: &Transition,
        id: Option<&String>,
        now: i64,
    ) {
        let Some(group) = self.groups.get(&hash) else { return };
        let target = group.target.clone();
        let mut member = self.take_member(hash, alert).unwrap_or_default();
        let position =
            member.untold.iter().position(|untold| untold.transition.incident == transition.incident);
        let is_open = member.is_open(&transition.incident);
        match (position, transition.status) {
            (None, Status::Firing) if is_open && is_quiet(&member, transition) => {
                if let Some(open) = &mut member.open {
                    open.transition = transition.clone();
                }
                self.log_ids(
                    transition,
                    id,
                    &target,
                    Note { what: What::Confirmed, hold: None, reason: "the receiver knows", now },
                );
            }
            // Only what was notified first is escalated.
            (None, _) if !is_open && target.is_escalation() => {}
            (Some(position), Status::Resolved) if !is_open && member.untold[position].is_firing() => {
                let hold = self.suppression(alert, transition, &target, now);
                let reason = untold_end(&member.untold[position], transition, &target, hold.as_ref());
                if let Some((reason, hold)) = reason {
                    let untold = member.untold.remove(position);
                    let ids = untold.ids.iter().chain(id);
                    self.log_ids(
                        transition,
                        ids,
                        &target,
                        Note { what: What::EndedUntold, hold, reason, now },
                    );
                } else {
                    member.untold[position].update(transition, id);
                }
            }
            (Some(position), _) => member.untold[position].update(transition, id),
            (None, _) => member.push(Untold::new(transition, id.cloned().into_iter().collect(), 0)),
        }
        self.put_member(hash, alert, member);
        self.freshen(hash, now);
        self.schedule(hash);
    }

    /// The alert that a transition is about. An incident that fires keeps it, even if the rule's
    /// labels are changed.
    fn identity(&self, transition: &Transition) -> Digest {
        match self.incidents.get(&transition.incident) {
            Some(alert) => *alert,
            None => fingerprint(&transition.rule, &transition.labels),
        }
    }

    /// The receivers of groups that are notified first.
    pub(super) fn first_told(&self, groups: &BTreeSet<Digest>) -> BTreeSet<String> {
        let targets = groups.iter().filter_map(|hash| Some(&self.groups.get(hash)?.target));
        targets.filter(|target| !target.is_escalation()).map(|target| target.receiver.clone()).collect()
    }

    /// Groups in the order in which they are notified, and whether it is the first one of its
    /// receiver.
    fn in_order(&self, groups: &BTreeSet<Digest>) -> Vec<(Digest, bool)> {
        let mut ordered: Vec<(i64, Digest, &str)> = groups
            .iter()
            .filter_map(|hash| {
                let target = &self.groups.get(hash)?.target;
                Some((target.after, *hash, target.receiver.as_str()))
            })
            .collect();
        ordered.sort_unstable();
        let mut seen = BTreeSet::new();
        ordered.into_iter().map(|(_, hash, receiver)| (hash, seen.insert(receiver))).collect()
    }

    pub(super) fn group(&mut self, target: Target, labels: BTreeMap<String, String>) -> Digest {
        let hash = target.group(&labels);
        self.groups.entry(hash).or_insert_with(|| Group::new(target, labels));
        hash
    }

    fn log_not_routed(&mut self, transition: &Transition, now: i64) {
        let mut entry = Self::entry(transition, &transition.id, What::NotRouted, now);
        entry.reason = Some("no route matches, and the rule names no receiver".into());
        self.log(entry);
    }

    /// One entry for each of these transitions of an incident.
    pub(super) fn log_ids<'a>(
        &mut self,
        transition: &Transition,
        ids: impl IntoIterator<Item = &'a String>,
        target: &Target,
        Note { what, hold, reason, now }: Note<'_>,
    ) {
        for id in ids {
            let entry = Entry {
                receiver: Some(target.receiver.clone()),
                by: hold.map(|hold| self.suppressor(&hold.by)),
                reason: Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
                ..Self::entry(transition, id, what, now)
            };
            self.log(entry);
        }
    }

    fn recheck_freed(&mut self, freed: &[Place], now: i64) {
        for place in freed {
            for (hash, alert) in self.inhibited.get(place).cloned().unwrap_or_default() {
                self.recheck(hash, alert, now);
                self.schedule(hash);
            }
        }
    }

    /// Looks at everything again that is held back by something like this.
    pub(super) fn recheck_held(&mut self, is_concerned: impl Fn(&Suppression) -> bool, now: i64) {
        let mut concerned = Vec::new();
        for (hash, group) in &self.groups {
            let held = group.held.iter().map(|(_, alert)| *alert);
            concerned.extend(
                held.filter(|alert| {
                    group
                        .members()
                        .get(alert)
                        .and_then(Member::hold)
                        .is_some_and(|hold| is_concerned(&hold.by))
                })
                .map(|alert| (*hash, alert)),
            );
        }
        for (hash, alert) in concerned {
            self.recheck(hash, alert, now);
            self.schedule(hash);
        }
    }
}

/// What the ledger records of transitions: what became of them, what held them back, why, and when.
#[derive(Clone, Copy)]
pub(super) struct Note<'a> {
    pub(super) what: What,
    pub(super) hold: Option<&'a Hold>,
    /// Empty where `what` is enough.
    pub(super) reason: &'a str,
    pub(super) now: i64,
}

impl Untold {
    fn update(&mut self, transition: &Transition, id: Option<&String>) {
        self.transition = transition.clone();
        self.ids.extend(id.cloned());
        if transition.status == Status::Resolved {
            self.held = None;
            self.noted = 0;
        }
    }
}

/// Whether a firing transition has nothing new for the receiver.
fn is_quiet(member: &Member, transition: &Transition) -> bool {
    member.open.as_ref().is_some_and(|open| {
        let confirms = open.transition.provisional && !transition.provisional;
        confirms || (transition.cause != Cause::Correction && open.transition.severity == transition.severity)
    })
}

/// Why nobody is notified of an incident that was not notified, and now is over; and what held it
/// back.
fn untold_end<'a>(
    untold: &Untold,
    over: &Transition,
    target: &Target,
    hold: Option<&'a Hold>,
) -> Option<(&'static str, Option<&'a Hold>)> {
    if let Some(hold) = hold {
        return Some((hold.by.ended(), Some(hold)));
    }
    if target.is_escalation() {
        return Some(("it was over before it was to be escalated", None));
    }
    let is_withdrawn = untold.transition.provisional && over.cause == Cause::Correction;
    is_withdrawn.then_some(("it was withdrawn before it was notified", None))
}
