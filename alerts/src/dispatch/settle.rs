//! Outcomes of deliveries; many dispatches made one while a receiver is away; what becomes of those
//! of an old policy.

use super::digest::Digest;
use super::flush::timing;
use super::group::{Member, Suppression};
use super::intake::Note;
use super::policy::Target;
use super::queue::{Dispatch, Origin, Queued};
use super::record::Key;
use super::{Dispatcher, Effect, Entry, What};
use std::collections::{BTreeMap, BTreeSet};

impl Dispatcher {
    /// The dispatch was delivered.
    pub fn sent(&mut self, dispatch_id: &str, now: i64) {
        self.advance(now);
        if let Some((hash, queued)) = self.pop(dispatch_id, now) {
            self.log_dispatch(&queued.dispatch, What::Delivered, None, None, now);
            self.give_out_next(hash);
        }
        self.run_due(now);
    }

    /// An attempt failed, and there will be another. It is `doubtful` if the receiver may have got
    /// it all the same, as after a timeout.
    pub fn failed(&mut self, dispatch_id: &str, reason: &str, doubtful: bool, now: i64) {
        self.advance(now);
        if let Some(hash) = self.dispatches.get(dispatch_id).copied() {
            let head = self.groups.get_mut(&hash).and_then(|group| group.queue.head_mut());
            if let Some(head) = head.filter(|head| head.dispatch.id == dispatch_id) {
                head.attempts = head.attempts.saturating_add(1);
                head.doubtful |= doubtful;
                head.last_error = Some(reason.to_owned());
                let dispatch = head.dispatch.clone();
                self.changed.insert(Key::Dispatch(dispatch_id.to_owned()));
                self.log_dispatch(&dispatch, What::Attempted, None, Some(reason), now);
                self.coalesce(hash, false, now);
            }
        }
        self.run_due(now);
    }

    /// The dispatch will not be delivered. `told_by_fallback` is the receiver that was notified
    /// instead, if any was.
    pub fn gave_up(&mut self, dispatch_id: &str, reason: &str, told_by_fallback: Option<&str>, now: i64) {
        self.advance(now);
        if let Some((hash, queued)) = self.pop(dispatch_id, now) {
            let by = told_by_fallback.map(str::to_owned);
            self.log_dispatch(&queued.dispatch, What::GaveUp, by, Some(reason), now);
            self.give_out_next(hash);
        }
        self.run_due(now);
    }

    /// Takes the dispatch out of its queue, if it is the one under way.
    fn pop(&mut self, id: &str, now: i64) -> Option<(Digest, Queued)> {
        let hash = *self.dispatches.get(id)?;
        let group = self.groups.get_mut(&hash)?;
        if group.queue.head()?.dispatch.id != id {
            return None;
        }
        let queued = group.queue.pop()?;
        // Nobody is notified again soon after having been notified late.
        let repeat = self.policy.timing(&group.target).repeat;
        group.repeat_at = (repeat > 0).then(|| now.saturating_add(repeat));
        self.dispatches.remove(id);
        self.changed.insert(Key::Dispatch(id.to_owned()));
        Some((hash, queued))
    }

    fn give_out_next(&mut self, hash: Digest) {
        if let Some(next) = self.groups.get(&hash).and_then(|group| group.queue.head()) {
            self.effects.push(Effect::Send(next.dispatch.clone()));
        }
        self.schedule(hash);
    }

    pub(super) fn coalesce(&mut self, hash: Digest, is_tried: bool, now: i64) {
        let Some(group) = self.groups.get_mut(&hash) else { return };
        let (target, labels) = (group.target.clone(), group.labels.clone());
        let Some(coalesced) =
            group.queue.coalesce(Origin { target: &target, labels: &labels }, is_tried, now)
        else {
            return;
        };
        let mut notified = BTreeMap::new();
        for dispatch in &coalesced.new {
            self.dispatches.insert(dispatch.id.clone(), hash);
            self.changed.insert(Key::Dispatch(dispatch.id.clone()));
            notified.extend(dispatch.alerts.iter().map(|alert| (&alert.transition.incident, &dispatch.id)));
        }
        let old: BTreeSet<&String> = coalesced.old.iter().map(|dispatch| &dispatch.id).collect();
        let retold: Vec<(Digest, String, String)> = group
            .members()
            .iter()
            .filter_map(|(alert, member)| {
                let open = member.open.as_ref().filter(|open| old.contains(&open.dispatch))?;
                let incident = &open.transition.incident;
                Some((*alert, incident.clone(), (*notified.get(incident)?).clone()))
            })
            .collect();
        for (alert, incident, dispatch) in retold {
            group.told_by(alert, &incident, &dispatch);
            self.changed.insert(Key::Member(hash, alert));
        }
        let by = coalesced.new.iter().map(|dispatch| dispatch.id.as_str()).collect::<Vec<_>>().join(", ");
        for dispatch in &coalesced.old {
            self.dispatches.remove(&dispatch.id);
            self.changed.insert(Key::Dispatch(dispatch.id.clone()));
            self.log_dispatch(dispatch, What::Replaced, Some(by.clone()), None, now);
        }
        if let (true, Some(old), Some(by)) =
            (coalesced.with_head, coalesced.old.first(), coalesced.new.first())
        {
            self.effects.push(Effect::Replaced { old: old.id.clone(), by: by.clone() });
        }
        self.schedule(hash);
    }

    /// An entry about a whole dispatch.
    fn log_dispatch(
        &mut self,
        dispatch: &Dispatch,
        what: What,
        by: Option<String>,
        reason: Option<&str>,
        now: i64,
    ) {
        let mut rules = dispatch.alerts.iter().map(|alert| &alert.transition.rule);
        let rule = rules.next().filter(|rule| rules.all(|other| other == *rule)).cloned();
        self.log(Entry {
            at: now,
            transition: None,
            dispatch: Some(dispatch.id.clone()),
            rule: rule.unwrap_or_default(),
            labels: dispatch.group_labels.clone(),
            incident: String::new(),
            what,
            receiver: Some(dispatch.receiver.clone()),
            by,
            reason: reason.map(str::to_owned),
        });
    }

    /// Goes on with the state of an earlier run, whose policy may have been another one.
    pub(super) fn adopt(&mut self, now: i64) {
        self.bound_waits(now);
        let gone: Vec<Digest> = self
            .groups
            .iter()
            .filter(|(_, group)| !self.policy.receivers.contains_key(&group.target.receiver))
            .map(|(hash, _)| *hash)
            .collect();
        for hash in gone {
            self.abandon(hash, now);
        }

        let mut doubted = Vec::new();
        for (hash, group) in &self.groups {
            for (_, alert) in &group.held {
                let Some(firing) = group.members().get(alert).and_then(Member::firing) else { continue };
                let holds = match firing.held.as_ref().map(|hold| &hold.by) {
                    Some(Suppression::Inhibition { place, .. }) => {
                        self.inhibitors.still_inhibits(place, *alert, &firing.transition)
                    }
                    Some(Suppression::Mute(name)) => {
                        let names = self.policy.route(&group.target.route).map(|route| &route.mutes);
                        let is_known = self.policy.mutes.iter().any(|mute| mute.name == *name);
                        is_known && names.is_some_and(|names| names.contains(name))
                    }
                    _ => true,
                };
                if !holds {
                    doubted.push((*hash, *alert));
                }
            }
        }
        for (hash, alert) in doubted {
            self.recheck(hash, alert, now);
            self.schedule(hash);
        }

        // Receivers that are new in the policy are notified of what fires.
        for (alert, known) in self.alerts.clone() {
            let mut receivers = self.first_told(&known.groups);
            for (target, labels) in self.policy.targets(&known.transition).targets {
                if !receivers.insert(target.receiver.clone()) {
                    continue;
                }
                let hash = self.group(target, labels);
                if let Some(known) = self.alerts.get_mut(&alert) {
                    known.groups.insert(hash);
                }
                self.changed.insert(Key::Alert(alert));
                self.apply(hash, alert, &known.transition, Some(&known.transition.id), now);
            }
        }
    }

    /// The clock of an earlier run may have been ahead: nothing waits for longer from now on than
    /// it would have to if it had just begun to wait.
    fn bound_waits(&mut self, now: i64) {
        let hashes: Vec<Digest> = self.groups.keys().copied().collect();
        for hash in hashes {
            let Some(group) = self.groups.get_mut(&hash) else { continue };
            let timing = timing(&self.policy.timing(&group.target), &group.target);
            let longest = now.saturating_add(timing.wait.max(timing.interval));
            let before = (group.last, group.due, group.repeat_at);
            group.last = group.last.map(|last| last.min(now));
            group.due = group.due.map(|due| due.min(longest));
            if timing.repeat > 0 {
                group.repeat_at = group.repeat_at.map(|at| at.min(now.saturating_add(timing.repeat)));
            }
            if before != (group.last, group.due, group.repeat_at) {
                self.schedule(hash);
            }
        }
    }

    /// Gives up a group whose receiver is gone.
    fn abandon(&mut self, hash: Digest, now: i64) {
        const REASON: &str = "the receiver is gone from the configuration";
        while let Some(id) =
            self.groups.get(&hash).and_then(|group| Some(group.queue.head()?.dispatch.id.clone()))
        {
            let Some((_, queued)) = self.pop(&id, now) else { break };
            self.log_dispatch(&queued.dispatch, What::GaveUp, None, Some(REASON), now);
        }
        let Some(group) = self.groups.get(&hash) else { return };
        let target: Target = group.target.clone();
        let members: Vec<Digest> = group.members().keys().copied().collect();
        for alert in members {
            let Some(member) = self.take_member(hash, alert) else { continue };
            if let Some(open) = member.open {
                let ids = [&open.transition.id];
                let reason =
                    "the receiver is gone from the configuration, and will not be notified of its end";
                self.log_ids(
                    &open.transition,
                    ids,
                    &target,
                    Note { what: What::GaveUp, hold: None, reason, now },
                );
            }
            for untold in member.untold {
                self.log_ids(
                    &untold.transition,
                    &untold.ids,
                    &target,
                    Note { what: What::GaveUp, hold: None, reason: REASON, now },
                );
            }
            self.put_member(hash, alert, Member::default());
            if let Some(known) = self.alerts.get_mut(&alert) {
                known.groups.remove(&hash);
                self.changed.insert(Key::Alert(alert));
            }
        }
        self.schedule(hash);
    }
}
