//! What a rule says when its alert changes: the message on the `alerts` topic.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use uuid::Uuid;

/// The namespace of transition ids. It must never change, nor what is hashed under it: receivers tell
/// repeated deliveries by these ids.
const NAMESPACE: Uuid = Uuid::from_u128(0x8f3d_2c1e_6b47_4a59_9d0e_51c7_a2b8_64f0);

#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Firing,
    Resolved,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Firing => "firing",
            Status::Resolved => "resolved",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An alert that fired or was resolved. Times are nanoseconds since the epoch.
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
    /// The numeric fields of the window that made the change. Null and not finite ones are left out.
    pub values: BTreeMap<String, f64>,
    /// The end of the first window in which the condition held without a break: with `for`, this is
    /// earlier than the window that made the alert fire. It is the same when the alert fires and when it
    /// is resolved.
    pub starts_at: i64,
    /// The end of the window that resolved the alert.
    pub ends_at: Option<i64>,
    /// The window that made the change.
    pub window_start: i64,
    pub window_end: i64,
    pub receivers: Vec<String>,
}

/// The id of the transition of `rule` to `status`, for the group with these tags, by the window that ends
/// at `window_end`.
pub(super) fn transition_id<'a>(
    rule: &str,
    tags: impl Iterator<Item = (&'a str, &'a str)>,
    window_end: i64,
    status: Status,
) -> String {
    let mut bytes = Vec::new();
    let mut part = |text: &[u8]| {
        bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
        bytes.extend_from_slice(text);
    };
    part(rule.as_bytes());
    for (name, value) in tags {
        part(name.as_bytes());
        part(value.as_bytes());
    }
    part(&window_end.to_le_bytes());
    part(status.as_str().as_bytes());
    Uuid::new_v5(&NAMESPACE, &bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_differ_where_transitions_do() {
        let ids = [
            transition_id("a", [("x", "1")].into_iter(), 60, Status::Firing),
            transition_id("a", [("x", "1")].into_iter(), 60, Status::Resolved),
            transition_id("a", [("x", "1")].into_iter(), 61, Status::Firing),
            transition_id("a", [("x", "2")].into_iter(), 60, Status::Firing),
            transition_id("a", [("x1", "")].into_iter(), 60, Status::Firing),
            transition_id("a", [].into_iter(), 60, Status::Firing),
            transition_id("b", [("x", "1")].into_iter(), 60, Status::Firing),
        ];
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
        // Receivers remember ids over restarts and upgrades.
        assert_eq!(ids[0], "0472e773-56ae-5204-bb85-36ed0698714d", "the id of a known transition changed");
    }
}
