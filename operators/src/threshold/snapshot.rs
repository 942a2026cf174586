//! The states of all rules as JSON, part of the snapshot of a `rollup` partition.

use super::group::{Emitted, Group};
use super::judge::{Remembered, RuleState};
use super::state::Change;
use super::tags::group_key;
use super::{NO_DATA_LABEL, SnapshotError, Threshold};
use alerts::{Cause, StageTimes, Status, Transition, incident_id, transition_id};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const VERSION: u32 = 1;

#[derive(Deserialize, Serialize)]
struct Snapshot {
    version: u32,
    rules: BTreeMap<String, RuleSnapshot>,
}

/// Keys are only ever added, and have a default.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct RuleSnapshot {
    tags: Vec<String>,
    newest: i64,
    groups: Vec<Group>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    memories: Vec<Remembered>,
    /// What receivers are notified by when the rule is gone.
    #[serde(default)]
    severity: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    receivers: Vec<String>,
}

/// The states of all rules at one moment.
#[derive(Debug)]
pub struct CapturedAlerts(BTreeMap<String, RuleSnapshot>);

impl CapturedAlerts {
    /// What they weigh.
    pub fn bytes(&self) -> usize {
        self.0.values().map(RuleSnapshot::bytes).sum()
    }

    /// What [`Threshold::restore`] takes: equal states give equal text.
    pub fn into_json(self) -> String {
        let mut rules = self.0;
        for rule in rules.values_mut() {
            rule.groups.sort_unstable_by(|left, right| left.tags.cmp(&right.tags));
            rule.memories.sort_unstable_by(|left, right| left.tags.cmp(&right.tags));
        }
        serde_json::to_string(&Snapshot { version: VERSION, rules })
            .expect("maps with string keys, strings and integers are all JSON")
    }
}

impl Threshold {
    /// All states, as JSON: equal states give equal bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        self.capture().into_json().into_bytes()
    }

    /// All states, to be written elsewhere while the rules go on.
    pub fn capture(&self) -> CapturedAlerts {
        let saved = self.rules.iter().map(|state| (state.rule.spec.name.clone(), RuleSnapshot::of(state)));
        CapturedAlerts(self.set_aside.clone().into_iter().chain(saved).collect())
    }

    /// What the states weigh, by content: the same after a restart.
    pub fn bytes(&self) -> usize {
        let set_aside = self.set_aside.values().map(RuleSnapshot::bytes).sum::<usize>();
        set_aside + self.rules.iter().map(RuleState::bytes).sum::<usize>()
    }

    /// Takes over the states of a snapshot, by the names of the rules. Rules that are new start
    /// without any. The alerts of rules that are gone, or whose groups are made of other tags than
    /// before, are resolved with the next message; states of rules that are [set
    /// aside](Threshold::set_aside) are kept as they are.
    pub fn restore(&mut self, snapshot: &[u8]) -> Result<(), SnapshotError> {
        let mut saved: Snapshot = serde_json::from_slice(snapshot)?;
        if saved.version != VERSION {
            return Err(SnapshotError::Version(saved.version));
        }
        self.ended.clear();
        for state in &mut self.rules {
            state.newest = i64::MIN;
            state.groups.clear();
            state.memories.clear();
            let name = state.rule.spec.name.as_str();
            let Some(rule) = saved.rules.remove(name) else {
                continue;
            };
            if !rule.tags.iter().eq(state.rule.tags.iter().map(|(_, name)| name)) {
                self.ended.extend(rule.end(name));
                continue;
            }
            state.newest = rule.newest;
            state.groups = rule.groups.into_iter().map(|group| (group_key(&group.tags), group)).collect();
            let memories = rule.memories.into_iter();
            state.memories = memories.map(|memory| (group_key(&memory.tags), memory)).collect();
        }
        for (name, rule) in saved.rules {
            match self.set_aside.get_mut(&name) {
                Some(kept) => *kept = rule,
                None => self.ended.extend(rule.end(&name)),
            }
        }
        Ok(())
    }
}

impl RuleSnapshot {
    /// Of a rule that cannot be used now and has had no state yet.
    pub(super) fn empty() -> Self {
        Self {
            tags: Vec::new(),
            newest: i64::MIN,
            groups: Vec::new(),
            memories: Vec::new(),
            severity: String::new(),
            labels: BTreeMap::new(),
            receivers: Vec::new(),
        }
    }

    fn of(state: &RuleState) -> Self {
        let spec = &state.rule.spec;
        Self {
            tags: state.rule.tags.iter().map(|(_, name)| name.clone()).collect(),
            newest: state.newest,
            groups: state.groups.values().cloned().collect(),
            memories: state.memories.values().cloned().collect(),
            severity: spec.severity.clone(),
            labels: spec.labels.clone(),
            receivers: spec.receivers.clone(),
        }
    }

    fn bytes(&self) -> usize {
        let groups = self.groups.iter().map(Group::bytes).sum::<usize>();
        groups + self.memories.iter().map(Remembered::bytes).sum::<usize>()
    }

    /// The alerts end with the rule.
    fn end(self, rule: &str) -> Vec<Transition> {
        let mut transitions = Vec::new();
        for mut group in self.groups {
            let mut emitted: Vec<Emitted> = Vec::new();
            group.resolve(Cause::RuleChanged, self.newest, &mut emitted);
            for emitted in emitted {
                let (status, starts_at) = match emitted.change {
                    Change::Resolved { since } => (Status::Resolved, since),
                    Change::Ended { since } => (Status::Inactive, since),
                    _ => continue,
                };
                let absence = emitted.is_absence.then_some((NO_DATA_LABEL, "true"));
                let names = self.tags.iter().map(String::as_str);
                let of_group = || names.clone().zip(group.tags.iter().map(String::as_str)).chain(absence);
                let mut labels = self.labels.clone();
                labels.extend(
                    of_group()
                        .filter(|(_, tag)| !tag.is_empty())
                        .map(|(name, tag)| (name.into(), tag.into())),
                );
                transitions.push(Transition {
                    id: transition_id(rule, of_group(), emitted.end, status, emitted.revision),
                    incident: incident_id(rule, of_group(), starts_at),
                    rule: rule.to_owned(),
                    status,
                    severity: self.severity.clone(),
                    labels,
                    summary: format!(
                        "{rule}: the rule is gone from the configuration, or watches something else"
                    ),
                    description: String::new(),
                    values: BTreeMap::new(),
                    starts_at,
                    ends_at: Some(emitted.end),
                    window_start: emitted.end,
                    window_end: emitted.end,
                    receivers: self.receivers.clone(),
                    cause: Cause::RuleChanged,
                    provisional: false,
                    revision: emitted.revision,
                    rule_hash: String::new(),
                    owner: None,
                    runbook: None,
                    times: StageTimes::default(),
                    partition: None,
                });
            }
        }
        transitions
    }
}
