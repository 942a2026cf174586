//! From the picture to the answer: which of the known reasons it is, in one sentence, and what to
//! do. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use super::closed;
use super::open;
use super::picture::{FailureRow, PartitionRow, Picture, SinkRow, SourceRow};
use crate::board::history::WindowHistory;
use crate::board::status::Holder;
use crate::time::Time;

/// Why a window has not closed, or is not what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The window is not over, or only just.
    StillOpen,
    /// No window is open, and nothing is held up.
    Current,
    /// Nobody runs `rollup`.
    RollupNotRunning,
    /// A process runs `rollup` and cannot start.
    RollupNotReady,
    /// `rollup` is behind the log of partial states.
    RollupBehind,
    /// A process runs `rollup` and was not asked, and there is no snapshot either.
    RollupNotAsked,
    /// Results wait for the sink.
    SinkUnavailable,
    /// No `ingest` has ever reported anything.
    NothingReported,
    /// Nobody owns the source partition that holds the watermark.
    NoOwner,
    /// The group is rebalancing.
    Rebalancing,
    /// Its owner is in the group and does not report it.
    OwnerSilent,
    /// It gives only points dated in the future.
    FuturePoints,
    /// It gives only points that are refused for another reason.
    RefusedPoints,
    /// It has unread messages.
    UnreadMessages,
    /// It never had a point and is not idle yet.
    NoPointYet,
    /// It was read to the end: its producers are behind the others, or silent.
    SlowSource,
    /// All source partitions are idle: event time goes on at the pace of the clock.
    AllIdle,
    /// Closed, and not yet known to be stored.
    BeingWritten,
    /// Closed and stored, and not changed since.
    Closed,
    /// Late points changed it.
    Corrected,
    /// Points came after it was final, and are not in it.
    LatePoints,
    /// It closed before any process that was asked remembers.
    NotRemembered,
}

/// The answer of `tidemark why` and of `/api/why/<rollup>`. Its names are listed in
/// `docs/reference/http-api.md` and stay.
#[derive(Debug, Serialize)]
pub struct Answer {
    pub rollup: String,
    /// The length of its windows.
    pub tier: String,
    /// When this was found out.
    pub now: Time,
    pub cause: Cause,
    pub summary: String,
    /// What to do, where someone has to do something.
    pub remedy: Option<String>,
    /// The window that was asked about, or the oldest open one.
    pub window: Option<Window>,
    /// Of the rollup partition that is farthest behind.
    pub watermark: Option<Time>,
    /// The source partition that holds it.
    pub holder: Option<Holder>,
    pub sources: Vec<SourceRow>,
    pub partitions: Vec<PartitionRow>,
    pub sinks: Vec<SinkRow>,
    /// Points that came after their window was final, by age, since the processes started.
    pub late_points: BTreeMap<String, u64>,
    /// What of the rollup could not be computed, since the processes started.
    pub failures: Vec<FailureRow>,
    /// The history of the window that was asked about, or of those that were changed last.
    pub windows: Vec<WindowHistory>,
    /// What could not be found out, and why.
    pub notes: Vec<String>,
}

/// The window in question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Window {
    pub start: Time,
    pub end: Time,
    /// The watermark at which it is final: end and `allowed_lateness`.
    pub final_at: Time,
}

/// A tier of a rollup, and what is asked about it.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) rollup: String,
    pub(super) tier: String,
    /// The name of the rollup for its finest tier, `<rollup>_<tier>` for the others.
    pub(super) table: String,
    pub(super) allowed_lateness: i64,
    /// Start and end of the window.
    pub(super) window: Option<(i64, i64)>,
}

/// What the modules that decide agree on.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) cause: Cause,
    /// The summary, or what follows the window in it.
    pub(super) reason: String,
    pub(super) is_about_window: bool,
    pub(super) remedy: Option<String>,
}

impl Verdict {
    pub(super) fn new(cause: Cause, reason: impl Into<String>) -> Self {
        Self { cause, reason: reason.into(), is_about_window: true, remedy: None }
    }

    pub(super) fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

pub(super) fn answer(question: &Question, picture: Picture) -> Answer {
    let oldest_open = || {
        let open = picture.partitions.iter().flat_map(|partition| &partition.open);
        open.map(|window| (window.start.0, window.end.0)).min()
    };
    let window = question.window.or_else(oldest_open).map(|(start, end)| Window {
        start: Time(start),
        end: Time(end),
        final_at: Time(end.saturating_add(question.allowed_lateness)),
    });
    let watermark = picture.slowest().and_then(|partition| partition.watermark);
    let has_closed = window.is_some_and(|window| watermark.is_some_and(|watermark| window.end <= watermark));
    let verdict = match window {
        Some(window) if has_closed => closed::verdict(question, &window, &picture),
        _ => open::verdict(window.as_ref(), question.window.is_some(), &picture),
    };
    let subject = match window {
        None => format!("no window of {} is open", question.table),
        Some(Window { start, end, .. }) => {
            let state = if has_closed { "has closed" } else { "has not closed" };
            format!("window {start} to {end} of {} {state}", question.table)
        }
    };
    let of_rollup = |row: &&FailureRow| row.failure.rollup == question.rollup;
    Answer {
        rollup: question.rollup.clone(),
        tier: question.tier.clone(),
        now: Time(picture.now),
        cause: verdict.cause,
        summary: match verdict.is_about_window {
            true => format!("{subject}: {}", verdict.reason),
            false => format!("{}: {}", question.table, verdict.reason),
        },
        remedy: verdict.remedy,
        window,
        watermark,
        holder: picture.slowest().and_then(|partition| partition.holder.clone()),
        sources: picture.sources,
        partitions: picture.partitions,
        sinks: picture.sinks,
        late_points: picture.late_points,
        failures: picture.failures.iter().filter(of_rollup).cloned().collect(),
        windows: picture.windows,
        notes: picture.notes,
    }
}

/// `points[2]`, as people name a partition.
pub(super) fn named(topic: &str, partition: i32) -> String {
    format!("{topic}[{partition}]")
}

/// `1 message`, `2 messages`.
pub(super) fn counted(count: impl Into<i128>, what: &str) -> String {
    let count = count.into();
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
