//! Who is to be notified of what: routes, receivers, inhibitions, as checked values. Durations and
//! times are nanoseconds.

use super::digest::{Digest, Parts};
use super::matcher::{Matcher, all_match, write_quoted};
use super::mute::Mute;
use crate::Transition;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// What decides where alerts go. The names of routes are not empty and each is there once, as are
/// those of mutes.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// In their order, the first one that matches takes the alert.
    pub routes: Vec<Route>,
    pub inhibitions: Vec<Inhibition>,
    pub mutes: Vec<Mute>,
    /// No other receiver is notified.
    pub receivers: BTreeMap<String, ReceiverPolicy>,
    /// How often the receivers that a rule names itself are notified again. 0 is never.
    pub default_repeat: i64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReceiverPolicy {
    /// Whether it is notified of the end of alerts.
    pub send_resolved: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Route {
    pub name: String,
    /// All must hold. None hold of every alert.
    pub matchers: Vec<Matcher>,
    pub receivers: Vec<String>,
    pub group_by: GroupBy,
    /// How long the first change in a group waits for others.
    pub group_wait: i64,
    /// The least time between two dispatches of what changed in a group.
    pub group_interval: i64,
    /// How often what still fires is notified again. 0 is never.
    pub repeat_interval: i64,
    /// Names of mutes.
    pub mutes: Vec<String>,
    pub escalations: Vec<Escalation>,
    /// Later routes are asked too.
    pub goes_on: bool,
}

/// Who else is notified, when an alert still fires so long after the route's receivers were
/// notified, and nobody took it on.
#[derive(Clone, Debug, Default)]
pub struct Escalation {
    /// More than 0.
    pub after: i64,
    pub receivers: Vec<String>,
}

/// Which alerts are notified together.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum GroupBy {
    /// Every alert alone, and at once.
    #[default]
    None,
    /// Those with equal values of these labels.
    Labels(Vec<String>),
    /// All alerts of the route.
    All,
}

/// While a source fires, targets with equal labels are not notified.
#[derive(Clone, Debug, Default)]
pub struct Inhibition {
    pub source: Vec<Matcher>,
    pub target: Vec<Matcher>,
    /// Labels that must be equal. A label that both lack is equal.
    pub equal: Vec<String>,
}

/// The labels that matchers see: the transition's, `alertname` and `severity`.
#[derive(Clone, Copy, Debug)]
pub(super) struct AlertLabels<'a>(pub(super) &'a Transition);

impl<'a> AlertLabels<'a> {
    pub(super) fn get(self, name: &str) -> &'a str {
        match name {
            "alertname" => &self.0.rule,
            "severity" => &self.0.severity,
            _ => self.0.labels.get(name).map_or("", String::as_str),
        }
    }

    pub(super) fn all(self) -> BTreeMap<String, String> {
        let mut labels = self.0.labels.clone();
        labels.insert("alertname".into(), self.0.rule.clone());
        if !self.0.severity.is_empty() {
            labels.insert("severity".into(), self.0.severity.clone());
        }
        labels
    }
}

/// The identity of an alert over all of its incidents. Its severity is no part of it.
pub(super) fn fingerprint(rule: &str, labels: &BTreeMap<String, String>) -> Digest {
    let mut parts = Parts::of(&["alert", rule]);
    for (name, value) in labels {
        parts.push(name);
        parts.push(value);
    }
    parts.digest()
}

/// A receiver of a route, or of a step of its escalation.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Target {
    /// Empty for the receivers that a rule names itself.
    pub(super) route: String,
    pub(super) receiver: String,
    /// The step's delay. 0 for those who are notified first.
    pub(super) after: i64,
}

impl Target {
    pub(super) fn is_escalation(&self) -> bool {
        self.after > 0
    }

    /// Of the target's group with these labels.
    pub(super) fn group(&self, labels: &BTreeMap<String, String>) -> Digest {
        let mut parts = Parts::of(&["group", &self.route, &self.receiver, &self.after.to_string()]);
        for (name, value) in labels {
            parts.push(name);
            parts.push(value);
        }
        parts.digest()
    }

    /// The group's name for people, as Alertmanager writes it. The receiver is no part of it.
    pub(super) fn group_key(&self, labels: &BTreeMap<String, String>) -> String {
        let mut key = format!("{{{}}}", self.route);
        if self.is_escalation() {
            let _ = write!(key, "/after={}s", self.after / 1_000_000_000);
        }
        key.push_str(":{");
        for (position, (name, value)) in labels.iter().enumerate() {
            let comma = if position > 0 { ", " } else { "" };
            let _ = write!(key, "{comma}{name}=");
            let _ = write_quoted(&mut key, value);
        }
        key.push('}');
        key
    }
}

/// When the groups of a target are notified.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    pub(super) wait: i64,
    pub(super) interval: i64,
    /// 0 is never.
    pub(super) repeat: i64,
}

/// Where an alert is to be notified.
#[derive(Debug)]
pub(super) struct Routed {
    /// With the labels of its group there.
    pub(super) targets: Vec<(Target, BTreeMap<String, String>)>,
    /// Receivers that are named and do not exist.
    pub(super) unknown: Vec<String>,
}

impl Policy {
    pub(super) fn route(&self, name: &str) -> Option<&Route> {
        self.routes.iter().find(|route| route.name == name)
    }

    /// Alerts of a route that is gone are notified at once and alone, like those of the rule's own
    /// receivers.
    pub(super) fn timing(&self, target: &Target) -> Timing {
        match self.route(&target.route) {
            Some(route) if route.group_by != GroupBy::None => Timing {
                wait: route.group_wait,
                interval: route.group_interval,
                repeat: route.repeat_interval,
            },
            Some(route) => Timing { wait: 0, interval: 0, repeat: route.repeat_interval },
            None => Timing { wait: 0, interval: 0, repeat: self.default_repeat },
        }
    }

    /// Where an alert goes first, each receiver once.
    pub(super) fn targets(&self, transition: &Transition) -> Routed {
        let labels = AlertLabels(transition);
        let (mut targets, mut unknown, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        let mut add = |route: &str, receiver: &String, group: &BTreeMap<String, String>| {
            if !seen.insert(receiver.clone()) {
                return;
            }
            if !self.receivers.contains_key(receiver) {
                unknown.push(receiver.clone());
                return;
            }
            let target = Target { route: route.to_owned(), receiver: receiver.clone(), after: 0 };
            targets.push((target, group.clone()));
        };
        for route in &self.routes {
            if !all_match(&route.matchers, labels) {
                continue;
            }
            let group = match &route.group_by {
                GroupBy::None => labels.all(),
                GroupBy::Labels(names) => {
                    names.iter().map(|name| (name.clone(), labels.get(name).to_owned())).collect()
                }
                GroupBy::All => BTreeMap::new(),
            };
            for receiver in &route.receivers {
                add(&route.name, receiver, &group);
            }
            if !route.goes_on {
                break;
            }
        }
        for receiver in &transition.receivers {
            add("", receiver, &labels.all());
        }
        Routed { targets, unknown }
    }

    pub(super) fn sends_resolved(&self, receiver: &str) -> bool {
        self.receivers.get(receiver).is_some_and(|receiver| receiver.send_resolved)
    }
}
