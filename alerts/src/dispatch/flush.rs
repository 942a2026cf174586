//! Due groups to dispatches: what has changed, what is escalated, what is notified again.

use super::digest::Digest;
use super::group::{Hold, Open, Suppression, Untold};
use super::intake::Note;
use super::policy::{Target, Timing};
use super::queue::{DispatchAlert, Origin, Queued, Reason, name};
use super::record::Key;
use super::{Dispatcher, Effect, Entry, What};
use crate::Transition;
use crate::rfc3339;
use std::collections::BTreeSet;

/// What a flush takes out of a member.
struct Taken {
    alert: Digest,
    untold: Untold,
    fires: bool,
}

impl Dispatcher {
    /// Does what is due in a group.
    pub(super) fn tick(&mut self, hash: Digest, now: i64) {
        let Some(group) = self.groups.get(&hash) else { return };
        let released: Vec<Digest> =
            group.held.iter().take_while(|(until, _)| *until <= now).map(|(_, alert)| *alert).collect();
        for alert in released {
            self.recheck(hash, alert, now);
        }
        let Some(group) = self.groups.get_mut(&hash) else { return };
        let mut alerts: BTreeSet<Digest> = group
            .waiting
            .iter()
            .take_while(|(eligible, _)| *eligible <= now)
            .map(|(_, alert)| *alert)
            .collect();
        if group.due.is_some_and(|due| due <= now) {
            group.due = None;
            alerts.extend(&group.fresh);
        }
        if !alerts.is_empty() {
            self.flush(hash, &alerts, now);
        }
        let repeats = |at: i64| at <= now;
        if self
            .groups
            .get(&hash)
            .is_some_and(|group| group.queue.is_empty() && group.repeat_at.is_some_and(repeats))
        {
            self.repeat(hash, now);
        }
        self.schedule(hash);
    }

    /// Something in the group has changed and is to be notified.
    pub(super) fn freshen(&mut self, hash: Digest, now: i64) {
        let Some(group) = self.groups.get_mut(&hash) else { return };
        if group.fresh.is_empty() {
            return;
        }
        let timing = timing(&self.policy.timing(&group.target), &group.target);
        // After a quiet interval too: what happens at one moment comes one by one, and is notified
        // together.
        let together = now.saturating_add(timing.wait);
        // The last may have been by a clock that was ahead: nothing waits for longer than the
        // interval.
        let last = group.last.map(|last| last.min(now));
        let due = last.map_or(together, |last| together.max(last.saturating_add(timing.interval)));
        group.due = Some(group.due.map_or(due, |before| before.min(due)));
    }

    /// Looks again at what holds a member back.
    pub(super) fn recheck(&mut self, hash: Digest, alert: Digest, now: i64) {
        let Some(target) = self.groups.get(&hash).map(|group| group.target.clone()) else { return };
        let Some(mut member) = self.take_member(hash, alert) else { return };
        if let Some(untold) = member.untold.iter_mut().find(|untold| untold.is_firing()) {
            match self.suppression(alert, &untold.transition, &target, now) {
                Some(hold) => self.hold(untold, hold, &target, now),
                None => {
                    untold.held = None;
                    untold.noted = 0;
                }
            }
        }
        self.put_member(hash, alert, member);
        self.freshen(hash, now);
    }

    /// What holds a firing alert back from a receiver.
    pub(super) fn suppression(
        &self,
        alert: Digest,
        transition: &Transition,
        target: &Target,
        now: i64,
    ) -> Option<Hold> {
        if target.is_escalation()
            && let Some(acknowledge) = self.commands.acknowledged(&transition.incident)
        {
            let (incident, by) = (acknowledge.incident.clone(), acknowledge.by.clone());
            return Some(Hold { by: Suppression::Acknowledged { incident, by }, until: None });
        }
        if let Some(silence) = self.commands.silence(transition, now) {
            return Some(Hold { by: Suppression::Silence(silence.id.clone()), until: Some(silence.ends_at) });
        }
        if let Some((place, source)) = self.inhibitors.inhibits(alert, transition) {
            let source = self.alerts.get(&source).map_or_else(String::new, |source| name(&source.transition));
            return Some(Hold { by: Suppression::Inhibition { place, source }, until: None });
        }
        let names = &self.policy.route(&target.route)?.mutes;
        let mutes = self.policy.mutes.iter().filter(|mute| names.contains(&mute.name));
        let (until, mute) =
            mutes.filter_map(|mute| Some((mute.ends(now)?, mute))).max_by_key(|(until, _)| *until)?;
        Some(Hold { by: Suppression::Mute(mute.name.clone()), until: Some(until) })
    }

    pub(super) fn suppressor(&self, by: &Suppression) -> String {
        match by {
            Suppression::Silence(id) => id.clone(),
            Suppression::Inhibition { source, .. } => source.clone(),
            Suppression::Mute(name) => name.clone(),
            Suppression::Acknowledged { by, .. } => by.clone(),
        }
    }

    /// Holds an incident back, with one entry in the ledger for each transition and suppressor.
    fn hold(&mut self, untold: &mut Untold, hold: Hold, target: &Target, now: i64) {
        if untold.held.as_ref().is_none_or(|before| before.by != hold.by) {
            untold.noted = 0;
        }
        let ids = untold.ids.iter().skip(untold.noted);
        self.log_ids(
            &untold.transition,
            ids,
            target,
            Note { what: hold.by.what(), hold: Some(&hold), reason: "", now },
        );
        untold.noted = untold.ids.len();
        untold.held = Some(hold);
    }

    /// Makes dispatches of what these members have to tell.
    fn flush(&mut self, hash: Digest, alerts: &BTreeSet<Digest>, now: i64) {
        let Some(target) = self.groups.get(&hash).map(|group| group.target.clone()) else { return };
        let mut taken = Vec::new();
        for alert in alerts {
            let Some(mut member) = self.take_member(hash, *alert) else { continue };
            for mut untold in std::mem::take(&mut member.untold) {
                let transition = &untold.transition;
                let is_open = member.is_open(&transition.incident);
                if untold.is_firing() {
                    let hold = self.suppression(*alert, transition, &target, now);
                    if untold.eligible > now {
                        member.untold.push(untold);
                    } else if let Some(hold) = hold {
                        self.hold(&mut untold, hold, &target, now);
                        member.untold.push(untold);
                    } else {
                        let (transition, dispatch) = (transition.clone(), String::new());
                        member.open = Some(Open { transition, at: now, dispatch });
                        taken.push(Taken { alert: *alert, untold, fires: true });
                    }
                    continue;
                }
                if is_open {
                    member.open = None;
                } else if let Some(hold) = self.suppression(*alert, transition, &target, now) {
                    let reason = hold.by.ended();
                    let (ids, what) = (&untold.ids, What::EndedUntold);
                    self.log_ids(transition, ids, &target, Note { what, hold: Some(&hold), reason, now });
                    continue;
                }
                if self.policy.sends_resolved(&target.receiver) {
                    taken.push(Taken { alert: *alert, untold, fires: false });
                } else {
                    let reason = "the receiver does not take resolved alerts";
                    self.log_ids(
                        transition,
                        &untold.ids,
                        &target,
                        Note { what: What::NotSent, hold: None, reason, now },
                    );
                }
            }
            self.put_member(hash, *alert, member);
        }
        self.tell(hash, &target, taken, now);
    }

    fn tell(&mut self, hash: Digest, target: &Target, mut taken: Vec<Taken>, now: i64) {
        if taken.is_empty() {
            return;
        }
        // What an alert did stays in its order: an incident begins after the one before has ended.
        taken.sort_by(|left, right| {
            let (left, right) = (&left.untold.transition, &right.untold.transition);
            let key = |transition: &Transition| (transition.starts_at, transition.window_end);
            key(left)
                .cmp(&key(right))
                .then_with(|| (&left.rule, &left.labels).cmp(&(&right.rule, &right.labels)))
        });
        let escalates = target.is_escalation() && taken.iter().any(|taken| taken.fires);
        let reason = if escalates { Reason::Escalated } else { Reason::Changed };
        let alerts = taken.iter().map(|taken| notified(&taken.untold)).collect();
        let members: Vec<Digest> = taken.iter().map(|taken| taken.alert).collect();
        let dispatched = self.dispatch(hash, reason, alerts, &members, now);
        if let Some(group) = self.groups.get_mut(&hash) {
            group.last = Some(now);
        }
        for (Taken { alert, untold, fires }, dispatch) in taken.iter().zip(dispatched) {
            let what = if target.is_escalation() && *fires { What::Escalated } else { What::Dispatched };
            for id in &untold.ids {
                let entry = Self::entry(&untold.transition, id, what, now);
                let receiver = Some(target.receiver.clone());
                self.log(Entry { dispatch: Some(dispatch.clone()), receiver, ..entry });
            }
            if *fires && !target.is_escalation() {
                self.escalate(hash, *alert, untold, now);
            }
        }
        if self.groups.get(&hash).is_some_and(|group| group.queue.is_long()) {
            self.coalesce(hash, true, now);
        }
    }

    /// Makes dispatches, notes in the members by which one they were notified, and gives out the
    /// first if none is under way. Each alert has its member at the same position, and the id of
    /// its dispatch in what is returned.
    fn dispatch(
        &mut self,
        hash: Digest,
        reason: Reason,
        alerts: Vec<(DispatchAlert, Option<String>)>,
        members: &[Digest],
        now: i64,
    ) -> Vec<String> {
        let mut ids = Vec::new();
        let Some(group) = self.groups.get_mut(&hash) else { return ids };
        let origin = Origin { target: &group.target, labels: &group.labels };
        let dispatches = origin.dispatches(reason, alerts, &[], now);
        let repeat = self.policy.timing(&group.target).repeat;
        group.repeat_at = (repeat > 0).then(|| now.saturating_add(repeat));
        let mut members = members.iter();
        for dispatch in dispatches {
            self.dispatches.insert(dispatch.id.clone(), hash);
            self.changed.insert(Key::Dispatch(dispatch.id.clone()));
            if group.queue.is_empty() {
                self.effects.push(Effect::Send(dispatch.clone()));
            }
            group.queue.push(Queued::new(dispatch.clone()));
            let incidents = dispatch.alerts.iter().map(|alert| &alert.transition.incident);
            for (incident, alert) in incidents.zip(members.by_ref()) {
                group.told_by(*alert, incident, &dispatch.id);
                self.changed.insert(Key::Member(hash, *alert));
                ids.push(dispatch.id.clone());
            }
        }
        ids
    }

    /// The receivers to notify next, if the alert still fires then.
    fn escalate(&mut self, hash: Digest, alert: Digest, untold: &Untold, now: i64) {
        let Some(group) = self.groups.get(&hash) else { return };
        let Some(route) = self.policy.route(&group.target.route) else { return };
        let (name, labels) = (route.name.clone(), group.labels.clone());
        for step in route.escalations.clone() {
            for receiver in step.receivers {
                if !self.policy.receivers.contains_key(&receiver) {
                    continue;
                }
                let target = Target { route: name.clone(), receiver, after: step.after };
                let Some(known) = self.alerts.get(&alert) else { return };
                // Who has been notified before is notified again, but of no transition for the
                // first time.
                let is_told = known.groups.iter().filter_map(|hash| self.groups.get(hash)).any(|group| {
                    group.target.receiver == target.receiver && group.target.after < target.after
                });
                let next = self.group(target, labels.clone());
                let mut member = self.take_member(next, alert).unwrap_or_default();
                let is_known = member.is_open(&untold.transition.incident)
                    || member
                        .untold
                        .iter()
                        .any(|next| next.transition.incident == untold.transition.incident);
                if !is_known {
                    let ids = if is_told { Vec::new() } else { untold.ids.clone() };
                    let eligible = now.saturating_add(step.after);
                    member.push(Untold::new(&untold.transition, ids, eligible));
                }
                self.put_member(next, alert, member);
                self.schedule(next);
                if let Some(known) = self.alerts.get_mut(&alert) {
                    known.groups.insert(next);
                    self.changed.insert(Key::Alert(alert));
                }
            }
        }
    }

    /// Tells again what still fires, without what is held back or acknowledged.
    fn repeat(&mut self, hash: Digest, now: i64) {
        let Some(group) = self.groups.get(&hash) else { return };
        let repeat = self.policy.timing(&group.target).repeat;
        let mut again = repeat.checked_add(now);
        let mut alerts = Vec::new();
        for (alert, member) in group.members() {
            let Some(open) = member.open.as_ref().filter(|_| member.untold.is_empty()) else { continue };
            if self.commands.acknowledged(&open.transition.incident).is_some() {
                continue;
            }
            match self.suppression(*alert, &open.transition, &group.target, now) {
                Some(hold) => again = hold.until.into_iter().chain(again).min(),
                None => {
                    let transition = open.transition.clone();
                    alerts.push((*alert, DispatchAlert { transition, transitions: Vec::new() }));
                }
            }
        }
        if repeat > 0 && !alerts.is_empty() {
            alerts.sort_by_key(|(_, alert)| alert.transition.starts_at);
            let (members, alerts): (Vec<_>, Vec<_>) =
                alerts.into_iter().map(|(member, alert)| (member, (alert, None))).unzip();
            self.dispatch(hash, Reason::Repeated, alerts, &members, now);
        } else if let Some(group) = self.groups.get_mut(&hash) {
            group.repeat_at = again.filter(|_| repeat > 0);
        }
    }
}

/// Escalations do not wait for others.
pub(super) fn timing(timing: &Timing, target: &Target) -> Timing {
    Timing { wait: if target.is_escalation() { 0 } else { timing.wait }, ..*timing }
}

/// The part of a dispatch about one incident.
fn notified(untold: &Untold) -> (DispatchAlert, Option<String>) {
    let transition = untold.transition.clone();
    let note = (untold.merged > 0).then(|| {
        let began = rfc3339(transition.starts_at);
        format!("{} had {} more incidents soon after that of {began}", name(&transition), untold.merged)
    });
    (DispatchAlert { transition, transitions: untold.ids.clone() }, note)
}

impl Suppression {
    fn what(&self) -> What {
        match self {
            Self::Silence(_) => What::Silenced,
            Self::Inhibition { .. } => What::Inhibited,
            Self::Mute(_) => What::Muted,
            Self::Acknowledged { .. } => What::Acknowledged,
        }
    }

    /// Why an incident that was held back by it is notified to nobody.
    pub(super) fn ended(&self) -> &'static str {
        match self {
            Self::Silence(_) => "it was over while it was silenced",
            Self::Inhibition { .. } => "it was over while it was inhibited",
            Self::Mute(_) => "it was over while its route was muted",
            Self::Acknowledged { .. } => "it was over after it had been acknowledged",
        }
    }
}
