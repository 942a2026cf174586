//! How far event time has come in each `rollup` partition: records of the topic of alert states,
//! beside the alerts.
//!
//! While event time stands still no window closes and nothing is judged: alerts stay as they are,
//! and are shown with "data incomplete".

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::time::Time;

/// The rule of the alert about a partition that is behind, for routes and silences.
pub(crate) const BEHIND_RULE: &str = "TidemarkBehind";

const PREFIX: &str = "progress/";

/// Event time of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) watermark: Time,
    /// Wall time at which it was last seen to move.
    pub(crate) moved_at: Time,
    /// What holds it, for people.
    #[serde(default)]
    pub(crate) held_by: Option<String>,
    /// What decides the verdicts of each rule, as of when what is announced was last compared with
    /// what is held.
    #[serde(default)]
    pub(crate) rules: BTreeMap<String, String>,
    /// The rules of the last comparison that were other ones than before, of which nothing was
    /// announced of the messages before `until`.
    #[serde(default)]
    pub(crate) held_back: BTreeSet<String>,
    #[serde(default)]
    pub(crate) until: i64,
    /// The first message of the partials topic of which nothing was announced.
    #[serde(default)]
    pub(crate) next: Option<i64>,
}

/// The partition that is behind most, and since when it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Stall {
    pub(crate) partition: i32,
    pub(crate) since: Time,
    pub(crate) watermark: Time,
    pub(crate) held_by: Option<String>,
}

pub(crate) fn key(partition: i32) -> String {
    format!("{PREFIX}{partition}")
}

/// The partition of a record of progress; `None`: the record is about an alert.
pub(crate) fn partition_of(key: &str) -> Option<i32> {
    key.strip_prefix(PREFIX)?.parse().ok()
}

/// The partition whose event time has stood still for longest, if that is longer than `after`,
/// nanoseconds.
pub(crate) fn stall(progress: &BTreeMap<i32, Progress>, now: i64, after: i64) -> Option<Stall> {
    let longest = progress.iter().min_by_key(|(_, progress)| progress.moved_at)?;
    let (partition, Progress { watermark, moved_at, held_by, .. }) = longest;
    let stands = now.saturating_sub(moved_at.0) > after;
    stands.then(|| Stall {
        partition: *partition,
        since: *moved_at,
        watermark: *watermark,
        held_by: held_by.clone(),
    })
}

impl Stall {
    /// A sentence for people.
    pub(crate) fn describe(&self) -> String {
        let held = match &self.held_by {
            Some(holder) => format!(", held by {holder}"),
            None => String::new(),
        };
        format!(
            "data incomplete: event time of partition {} stands at {} since {}{held}; nothing later is judged",
            self.partition, self.watermark, self.since
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partition_that_has_stood_longest_is_named() {
        let progress = |moved_at: i64, held_by: Option<&str>| Progress {
            watermark: Time(0),
            moved_at: Time(moved_at * 1_000_000_000),
            held_by: held_by.map(str::to_owned),
            rules: BTreeMap::new(),
            held_back: BTreeSet::new(),
            until: 0,
            next: None,
        };
        let partitions =
            BTreeMap::from([(0, progress(90, None)), (3, progress(30, Some("points-1: no owner")))]);
        let second = 1_000_000_000;
        assert_eq!(stall(&partitions, 100 * second, 70 * second), None);
        let found = stall(&partitions, 100 * second, 60 * second).expect("partition 3 has stood for 70 s");
        assert_eq!(
            found.describe(),
            "data incomplete: event time of partition 3 stands at 1970-01-01T00:00:00Z since 1970-01-01T00:00:30Z, \
             held by points-1: no owner; nothing later is judged"
        );
        assert_eq!(stall(&BTreeMap::new(), 100 * second, 0), None);
        assert_eq!((partition_of(&key(12)), partition_of(r#"["rule",{}]"#)), (Some(12), None));
    }
}
