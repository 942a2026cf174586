//! The ledger: what became of every transition, for each receiver, and of every dispatch.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A line of the ledger. It is about a transition, or about a dispatch, or about both.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Entry {
    /// Nanoseconds since the epoch.
    pub at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transition: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispatch: Option<String>,
    /// Empty when a dispatch is about alerts of several rules.
    pub rule: String,
    /// Of the alert, or of the dispatch's group.
    pub labels: BTreeMap<String, String>,
    /// Empty when it is about a dispatch.
    pub incident: String,
    pub what: What,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receiver: Option<String>,
    /// The id of the silence, the alert that inhibits, the mute, who acknowledged, the dispatch in
    /// its place, the receiver that was notified instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A firing or resolved transition came in.
    Received,
    /// A pending one came in; nobody is notified.
    Pending,
    /// What was pending is not any more; nobody is notified.
    Inactive,
    /// The receiver knows it already.
    Confirmed,
    /// Held back, for now.
    Silenced,
    /// Held back, for now.
    Inhibited,
    /// Held back, for now.
    Muted,
    /// Neither repeated nor escalated from now on.
    Acknowledged,
    /// It is part of a dispatch.
    Dispatched,
    /// It is part of a dispatch to those who are notified next.
    Escalated,
    /// The dispatch is part of another one.
    Replaced,
    /// An attempt failed, and there will be another.
    Attempted,
    Delivered,
    /// There will be no further attempt.
    GaveUp,
    /// No receiver is to be notified.
    NotRouted,
    /// The receiver does not take resolved alerts.
    NotSent,
    /// It was over before the receiver was notified of its begin; nobody is notified.
    EndedUntold,
}

impl What {
    /// Whether it is the last entry of a transition that is in no dispatch.
    pub fn ends_untold(self) -> bool {
        matches!(self, Self::Confirmed | Self::NotRouted | Self::NotSent | Self::EndedUntold | Self::GaveUp)
    }
}
