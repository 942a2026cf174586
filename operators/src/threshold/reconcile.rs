//! What was announced, and what a replay holds.
//!
//! What a message led to is announced before the snapshot after it is durable. When rules or
//! rollups have changed meanwhile, the replay may come to something else: an alert that was
//! announced is not held, and nobody would ever end it; or one is held that had been announced as
//! over. Nor can the replay's own transitions be announced: some have the ids of others that were,
//! and are taken for known. So transitions of changed rules in a replay are held back, and where it
//! ends, what was announced is compared with what is held, and the difference is emitted.

use super::Threshold;
use super::composite::operands;
use super::group::{Emitted, Group};
use super::history::History;
use super::judge::RuleState;
use super::state::{Change, Phase};
use super::wording::Wording;
use alerts::{Cause, Status, Transition, named_id};
use std::collections::{BTreeMap, BTreeSet};
use twox_hash::XxHash3_64;

/// The newest transition of each alert that was announced as pending or firing. A rule whose labels
/// are changed announces an incident under others.
#[derive(Clone, Debug, Default)]
pub struct Announced(BTreeMap<Key, Transition>);

/// Incident and labels.
type Key = (String, BTreeMap<String, String>);

fn key(transition: &Transition) -> Key {
    (transition.incident.clone(), transition.labels.clone())
}

impl Announced {
    /// Takes in a transition that was announced.
    pub fn note(&mut self, transition: &Transition) {
        match transition.status {
            Status::Pending | Status::Firing => {
                self.0.insert(key(transition), transition.clone());
            }
            Status::Resolved | Status::Inactive => {
                self.0.remove(&key(transition));
            }
        }
    }

    fn status(&self, key: &Key) -> Option<Status> {
        self.0.get(key).map(|known| known.status)
    }
}

impl Threshold {
    /// What decides the verdicts of each rule, by its name. `rollup`: what decides the rows of a
    /// rollup.
    pub fn deciders(&self, rollup: &dyn Fn(&str) -> String) -> BTreeMap<String, String> {
        let mut deciders: BTreeMap<String, String> =
            self.set_aside.keys().map(|name| (name.clone(), "set aside".to_owned())).collect();
        for state in self.rules.iter().filter(|state| !state.rule.is_composite()) {
            let mut described = state.rule.hash.clone();
            for (name, tier) in state.rule.sources() {
                described += &format!(" {name} {tier} {}", rollup(name));
            }
            described += &format!(" {:?}", state.rule.spec.labels);
            deciders.insert(state.rule.spec.name.clone(), described);
        }
        for state in self.rules.iter().filter(|state| state.rule.is_composite()) {
            let mut described = format!("{} {:?}", state.rule.hash, state.rule.spec.labels);
            for name in operands(&state.rule) {
                described += deciders.get(name).map_or("", String::as_str);
            }
            deciders.insert(state.rule.spec.name.clone(), described);
        }
        let hash = |text: String| format!("{:016x}", XxHash3_64::oneshot(text.as_bytes()));
        deciders.into_iter().map(|(name, text)| (name, hash(text))).collect()
    }

    /// The transitions to emit for the rules that have `changed`, at the end of a replay.
    /// `announced`: when it began; `at`: event time; `place`: of this comparison alone, for the
    /// ids: an edit that is taken back is another one.
    pub fn reconcile(
        &self,
        announced: &Announced,
        changed: &BTreeSet<String>,
        at: i64,
        place: &str,
    ) -> Vec<Transition> {
        let standing = self.standing().into_iter().filter(|emitted| changed.contains(&emitted.rule));
        let held: BTreeMap<Key, Transition> = standing.map(|emitted| (key(&emitted), emitted)).collect();
        let (mut emitted, mut ended) = (Vec::new(), BTreeSet::new());
        for (key, known) in announced.0.iter().filter(|(_, known)| changed.contains(&known.rule)) {
            if self.set_aside.contains_key(&known.rule) {
                continue;
            }
            let goes_on = held.get(key).is_some_and(|held| {
                // What was pending may fire by now; the other way round it has to be taken back.
                (known.status, held.status) != (Status::Firing, Status::Pending)
            });
            if !goes_on {
                ended.insert(known.incident.as_str());
                emitted.push(over(known, at, place));
            }
        }
        for (key, held) in held {
            if announced.status(&key) != Some(held.status) || ended.contains(held.incident.as_str()) {
                // Receivers may have been notified of its end, and take its id for known.
                emitted.push(Transition { id: named_id(&[&held.id, "stands", place]), ..held });
            }
        }
        emitted
    }

    /// The state of each alert that is pending or fires, as a transition.
    pub(super) fn standing(&self) -> Vec<Transition> {
        let mut standing = Vec::new();
        for state in &self.rules {
            for group in state.groups.values() {
                state.stand(group, &mut standing);
            }
        }
        standing
    }
}

impl RuleState {
    fn stand(&self, group: &Group, standing: &mut Vec<Transition>) {
        let wording = Wording { rule: &self.rule, rows: None };
        let histories = [(Some(&group.history), false), (group.absence(), true)];
        for (history, is_absence) in histories {
            let Some(history) = history else { continue };
            let Some(change) = stands(history) else { continue };
            let (end, revision) = (history.state.last, group.revision);
            let cause = Cause::RuleChanged;
            let emitted = Emitted { change, cause, end, is_absence, revision, is_provisional: false };
            standing.push(wording.transition(&group.tags, emitted, None, i64::MIN));
        }
        if let Some(end) = group.early() {
            let (change, revision) = (Change::Fired { since: end }, group.revision);
            let cause = Cause::Condition;
            let emitted = Emitted { change, cause, end, is_absence: false, revision, is_provisional: true };
            standing.push(wording.transition(&group.tags, emitted, None, i64::MIN));
        }
    }
}

fn stands(history: &History) -> Option<Change> {
    let since = |since: i64| history.said_since().unwrap_or(since);
    match history.state.phase {
        Phase::Inactive => None,
        Phase::Pending { since: begun } => Some(Change::Pending { since: since(begun) }),
        Phase::Firing { since: begun, .. } => Some(Change::Fired { since: since(begun) }),
    }
}

/// The end of an alert that nobody holds.
fn over(known: &Transition, at: i64, place: &str) -> Transition {
    let status = if known.status == Status::Firing { Status::Resolved } else { Status::Inactive };
    let at = at.max(known.window_end);
    Transition {
        id: named_id(&[&known.id, "over", place]),
        status,
        summary: format!("{}: the rule, or what it watches, has changed", known.rule),
        description: String::new(),
        values: BTreeMap::new(),
        ends_at: Some(at),
        window_start: at,
        window_end: at,
        cause: Cause::RuleChanged,
        provisional: false,
        ..known.clone()
    }
}
