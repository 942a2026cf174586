//! Which firing alerts keep others from being notified.

use super::digest::Digest;
use super::matcher::{all_match, write_quoted};
use super::policy::{AlertLabels, Inhibition};
use crate::Transition;
use std::collections::{BTreeMap, BTreeSet};

/// A rule, by its position, and the values of its equal labels.
pub(super) type Place = (usize, String);

/// The firing alerts that are sources, by rule and equal labels.
///
/// An alert is not inhibited by itself. One that is both source and target is inhibited only by
/// alerts that are not both, as in Alertmanager: otherwise two alerts could keep each other from
/// being notified.
#[derive(Clone, Debug, Default)]
pub(super) struct Inhibitors {
    rules: Vec<Inhibition>,
    sources: BTreeMap<Place, Sources>,
}

#[derive(Clone, Debug, Default)]
struct Sources {
    all: BTreeSet<Digest>,
    /// Those that are no targets of the same rule.
    one_sided: BTreeSet<Digest>,
}

impl Inhibitors {
    pub(super) fn new(rules: Vec<Inhibition>) -> Self {
        Self { rules, sources: BTreeMap::new() }
    }

    pub(super) fn insert(&mut self, alert: Digest, transition: &Transition) {
        let labels = AlertLabels(transition);
        for (position, rule) in self.rules.iter().enumerate() {
            if !all_match(&rule.source, labels) {
                continue;
            }
            let sources = self.sources.entry((position, equal(rule, labels))).or_default();
            sources.all.insert(alert);
            if !all_match(&rule.target, labels) {
                sources.one_sided.insert(alert);
            }
        }
    }

    /// Returns where alerts may be inhibited no longer. `transition` has the labels with which it
    /// was inserted.
    pub(super) fn remove(&mut self, alert: Digest, transition: &Transition) -> Vec<Place> {
        let labels = AlertLabels(transition);
        let mut freed = Vec::new();
        for (position, rule) in self.rules.iter().enumerate() {
            if !all_match(&rule.source, labels) {
                continue;
            }
            let place = (position, equal(rule, labels));
            let Some(sources) = self.sources.get_mut(&place) else { continue };
            sources.all.remove(&alert);
            sources.one_sided.remove(&alert);
            // With two sources left, one is left for each alert that is itself one of them.
            let may_free = sources.all.len() < 2 || sources.one_sided.len() < 2;
            if sources.all.is_empty() {
                self.sources.remove(&place);
            }
            if may_free {
                freed.push(place);
            }
        }
        freed
    }

    /// The first rule that inhibits the alert, and a source.
    pub(super) fn inhibits(&self, alert: Digest, transition: &Transition) -> Option<(Place, Digest)> {
        let labels = AlertLabels(transition);
        self.rules.iter().enumerate().find_map(|(position, rule)| {
            if !all_match(&rule.target, labels) {
                return None;
            }
            let place = (position, equal(rule, labels));
            let source = self.source(&place, alert, all_match(&rule.source, labels))?;
            Some((place, source))
        })
    }

    /// Whether the alert is inhibited there.
    pub(super) fn still_inhibits(&self, place: &Place, alert: Digest, transition: &Transition) -> bool {
        let labels = AlertLabels(transition);
        self.rules.get(place.0).is_some_and(|rule| {
            all_match(&rule.target, labels)
                && equal(rule, labels) == place.1
                && self.source(place, alert, all_match(&rule.source, labels)).is_some()
        })
    }

    fn source(&self, place: &Place, alert: Digest, is_source: bool) -> Option<Digest> {
        let sources = self.sources.get(place)?;
        let candidates = if is_source { &sources.one_sided } else { &sources.all };
        candidates.iter().find(|source| **source != alert).copied()
    }
}

fn equal(rule: &Inhibition, labels: AlertLabels<'_>) -> String {
    let mut key = String::new();
    for name in &rule.equal {
        let _ = write_quoted(&mut key, labels.get(name));
    }
    key
}
