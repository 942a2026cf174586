//! A change of an alert: the message on the `alerts` topic.
//!
//! Its JSON is read by other releases: keys are only ever added, and have a default.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use uuid::Uuid;

/// The namespace of transition ids. It must never change, nor what is hashed under it: receivers
/// tell repeated deliveries by these ids.
const NAMESPACE: Uuid = Uuid::from_u128(0x8f3d_2c1e_6b47_4a59_9d0e_51c7_a2b8_64f0);

#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The condition holds, not yet for long enough. Shown, and sent to nobody.
    Pending,
    Firing,
    Resolved,
    /// It was pending, and the condition holds no more. Shown, and sent to nobody.
    Inactive,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Firing => "firing",
            Status::Resolved => "resolved",
            Status::Inactive => "inactive",
        }
    }

    /// Whether people are notified: of what was only pending they are not.
    pub fn is_told(self) -> bool {
        matches!(self, Status::Firing | Status::Resolved)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why the state changed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The rule's condition, or its recovery.
    #[default]
    Condition,
    /// The group had no row where it should have one.
    NoData,
    /// Late points changed a window that had been judged.
    Correction,
    /// The group has had no row for so long that it is forgotten.
    Forgotten,
    /// The rule is gone from the configuration, or watches something else now.
    RuleChanged,
}

impl Cause {
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Condition => "condition",
            Cause::NoData => "no_data",
            Cause::Correction => "correction",
            Cause::Forgotten => "forgotten",
            Cause::RuleChanged => "rule_changed",
        }
    }
}

/// When each stage had its part of what a transition is about; nanoseconds since the epoch, wall
/// time but for `sample`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct StageTimes {
    /// Event time of the newest point that had been accepted when the window closed.
    pub sample: Option<i64>,
    /// When `ingest` ended the epoch that let the window close.
    pub ingested: Option<i64>,
    /// When `rollup` judged the window.
    pub evaluated: Option<i64>,
}

/// An alert that fired, was resolved, or otherwise changed. Times are nanoseconds since the epoch.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Transition {
    /// A UUID derived from rule, group, window and status: the same on every replay.
    pub id: String,
    pub rule: String,
    pub status: Status,
    pub severity: String,
    /// The rule's labels and the group's tags.
    pub labels: BTreeMap<String, String>,
    pub summary: String,
    pub description: String,
    /// The numeric fields of the window that made the change. Null and not finite ones are left
    /// out.
    pub values: BTreeMap<String, f64>,
    /// The end of the first window in which the condition held without a break: with `for`, this is
    /// earlier than the window that made the alert fire. It is the same when the alert fires and
    /// when it is resolved.
    pub starts_at: i64,
    /// The end of the window that resolved the alert.
    pub ends_at: Option<i64>,
    /// The window that made the change.
    pub window_start: i64,
    pub window_end: i64,
    pub receivers: Vec<String>,
    /// The same from pending over firing to resolved: a UUID derived from rule, group and
    /// `starts_at`.
    #[serde(default)]
    pub incident: String,
    #[serde(default)]
    pub cause: Cause,
    /// The window is still open; it is confirmed or withdrawn when it closes.
    #[serde(default)]
    pub provisional: bool,
    /// How often late points had changed what was judged of the group.
    #[serde(default)]
    pub revision: u32,
    /// Of what decides the rule's verdicts.
    #[serde(default)]
    pub rule_hash: String,
    #[serde(default)]
    pub owner: Option<String>,
    #[serde(default)]
    pub runbook: Option<String>,
    #[serde(default)]
    pub times: StageTimes,
    /// The `rollup` partition that emitted it; none for alerts about the pipeline itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
}

/// An alert that no rule makes: about the pipeline itself.
#[derive(Clone, Copy, Debug)]
pub struct SystemAlert<'a> {
    pub rule: &'a str,
    pub status: Status,
    pub severity: &'a str,
    pub receivers: &'a [String],
    /// When what it is about began, wall time in nanoseconds since the epoch.
    pub since: i64,
    pub at: i64,
}

impl SystemAlert<'_> {
    /// The same `since` gives the same ids in every process.
    pub fn transition(&self, summary: String, description: String) -> Transition {
        let Self { rule, status, since, at, .. } = *self;
        let nothing = || std::iter::empty::<(&str, &str)>();
        Transition {
            id: transition_id(rule, nothing(), since, status, 0),
            incident: incident_id(rule, nothing(), since),
            rule: rule.to_owned(),
            status,
            severity: self.severity.to_owned(),
            labels: BTreeMap::new(),
            summary,
            description,
            values: BTreeMap::new(),
            starts_at: since,
            ends_at: (status == Status::Resolved).then_some(at),
            window_start: since,
            window_end: at,
            receivers: self.receivers.to_vec(),
            cause: Cause::NoData,
            provisional: false,
            revision: 0,
            rule_hash: String::new(),
            owner: None,
            runbook: None,
            times: StageTimes { evaluated: Some(at), ..StageTimes::default() },
            partition: None,
        }
    }
}

/// The id of the transition of `rule` to `status`, for the group with these tags, by the window
/// that ends at `window_end`. `revision` is 0 unless late points have changed what was judged.
pub fn transition_id<'a>(
    rule: &str,
    tags: impl Iterator<Item = (&'a str, &'a str)>,
    window_end: i64,
    status: Status,
    revision: u32,
) -> String {
    let mut name = Name::new(rule, tags);
    name.part(&window_end.to_le_bytes());
    name.part(status.as_str().as_bytes());
    if revision > 0 {
        name.part(&revision.to_le_bytes());
    }
    name.id()
}

/// The id of the transition of an alert that fires before its window has closed.
pub fn provisional_id<'a>(
    rule: &str,
    tags: impl Iterator<Item = (&'a str, &'a str)>,
    window_end: i64,
    revision: u32,
) -> String {
    let mut name = Name::new(rule, tags);
    name.part(b"provisional");
    name.part(&window_end.to_le_bytes());
    name.part(&revision.to_le_bytes());
    name.id()
}

/// The id of the incident that began at `starts_at`.
pub fn incident_id<'a>(rule: &str, tags: impl Iterator<Item = (&'a str, &'a str)>, starts_at: i64) -> String {
    let mut name = Name::new(rule, tags);
    name.part(b"incident");
    name.part(&starts_at.to_le_bytes());
    name.id()
}

/// An id that follows from others.
pub fn named_id(parts: &[&str]) -> String {
    let mut name = Name(Vec::new());
    parts.iter().for_each(|part| name.part(part.as_bytes()));
    name.id()
}

/// What an id is a hash of: parts, each with its length before it.
struct Name(Vec<u8>);

impl Name {
    fn new<'a>(rule: &str, tags: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut name = Self(Vec::new());
        name.part(rule.as_bytes());
        for (tag, value) in tags {
            name.part(tag.as_bytes());
            name.part(value.as_bytes());
        }
        name
    }

    fn part(&mut self, text: &[u8]) {
        self.0.extend_from_slice(&(text.len() as u64).to_le_bytes());
        self.0.extend_from_slice(text);
    }

    fn id(&self) -> String {
        Uuid::new_v5(&NAMESPACE, &self.0).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_differ_where_transitions_do() {
        let ids = [
            transition_id("a", [("x", "1")].into_iter(), 60, Status::Firing, 0),
            transition_id("a", [("x", "1")].into_iter(), 60, Status::Resolved, 0),
            transition_id("a", [("x", "1")].into_iter(), 61, Status::Firing, 0),
            transition_id("a", [("x", "2")].into_iter(), 60, Status::Firing, 0),
            transition_id("a", [("x1", "")].into_iter(), 60, Status::Firing, 0),
            transition_id("a", [].into_iter(), 60, Status::Firing, 0),
            transition_id("b", [("x", "1")].into_iter(), 60, Status::Firing, 0),
            transition_id("a", [("x", "1")].into_iter(), 60, Status::Firing, 1),
            incident_id("a", [("x", "1")].into_iter(), 60),
        ];
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
        // Receivers remember ids over restarts and upgrades.
        assert_eq!(ids[0], "0472e773-56ae-5204-bb85-36ed0698714d", "the id of a known transition changed");
    }
}
