//! The state of one process as it sees it: the body of `/api/status`. Its names are listed in
//! `docs/reference/http-api.md` and stay.
//!
//! Times are RFC 3339 in UTC, names ending in `_ms` are milliseconds, others are counts and
//! offsets.

use std::collections::BTreeMap;

use operators::watermark::{HoldReason, Standing};
use serde::{Deserialize, Serialize};

use super::history::WindowHistory;
use crate::time::Time;

/// One process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// `<host>:<process id>`: how the facts in the partials log name the process.
    pub instance: String,
    pub version: String,
    pub started: Time,
    /// When this was notified.
    pub now: Time,
    /// Parts of the process that are not ready, and why.
    pub waiting: BTreeMap<String, String>,
    /// The source partitions it owns; none when it does not run `ingest`.
    pub ingest: Option<Vec<OwnedSource>>,
    /// None when it does not run `rollup`.
    pub rollup: Option<RollupStatus>,
    /// What of rollups it could not compute since it started.
    #[serde(default)]
    pub failures: Vec<FailureStatus>,
}

/// What of a rollup's SELECT could not be computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureStatus {
    pub rollup: String,
    /// `value`: an operation failed and gave null. `group`: an aggregate failed for a group of a
    /// window, which has no row. `point`: an aggregate does not take a point, which is missing.
    /// `state`: states could not be used.
    pub cause: String,
    pub count: u64,
    pub since: Time,
    pub last: Time,
    /// What failed last, and why.
    pub error: String,
}

/// A source partition, as the `ingest` process that owns it reports it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OwnedSource {
    pub topic: String,
    pub partition: i32,
    /// The next offset to be read.
    pub next_offset: i64,
    /// Messages a second, over the last two seconds or more; none when it has not been owned for as
    /// long.
    pub read_per_second: Option<f64>,
    /// Highest event time accepted by this process.
    pub newest: Option<Time>,
    /// Whether its log was read to the end. Looked at only after `idle_timeout` of silence.
    pub at_end: bool,
    pub silent_ms: i64,
    /// The last epoch in which a point was accepted.
    pub accepted: Option<Time>,
    /// Points that this process has sent to the dead-letter topic, by reason.
    pub refused: BTreeMap<String, u64>,
    /// The newest of them.
    pub last_refused: Option<Refused>,
    /// How far ahead of the clock the farthest of those dated in the future was.
    pub farthest_ahead_ms: Option<i64>,
}

/// A refused point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub reason: String,
    /// When it was read.
    pub seen: Time,
    pub offset: i64,
    /// The event time, where that was refused.
    pub time: Option<Time>,
    /// The beginning of its bytes.
    pub excerpt: String,
}

/// The `rollup` role of a process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RollupStatus {
    pub partitions: Vec<RollupPartition>,
    pub sink: SinkStatus,
    /// The rollup that was asked about; none without a question.
    pub asked: Option<RollupDetail>,
}

/// One partition of the partials topic: a fold over its log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RollupPartition {
    pub partition: i32,
    /// Notified by its owner, or read from its newest snapshot because nobody notified it.
    pub from: Origin,
    /// The next offset of the partials topic to be merged.
    pub next_offset: i64,
    /// Results of everything before this offset are durable, as is the snapshot of it.
    pub checkpoint_offset: i64,
    /// Wall time of the newest facts merged: how current the rest is.
    pub log_time: Option<Time>,
    pub watermark: Option<Time>,
    /// None when all source partitions are idle, or none is known.
    pub holder: Option<Holder>,
    pub sources: Vec<SourceStanding>,
    /// The oldest windows that have not closed, of the rollup that was asked about.
    pub open: Vec<OpenWindow>,
    /// How many there are.
    pub open_windows: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    Owner,
    Snapshot,
}

/// The source partition that holds a watermark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub topic: String,
    pub partition: i32,
    pub reason: HoldReason,
}

/// A source partition as the log has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStanding {
    pub topic: String,
    pub partition: i32,
    pub standing: Standing,
    /// Highest event time accepted.
    pub newest: Option<Time>,
    /// Everything before it is in the rollups.
    pub next_offset: Option<i64>,
    /// Silence at its last report.
    pub silent_ms: i64,
    pub reported: Option<Time>,
    /// The instance that reported it last.
    pub owner: Option<String>,
}

/// A window with state that has not closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenWindow {
    pub start: Time,
    pub end: Time,
    /// Rows of its state: groups, and what is not merged yet.
    pub rows: usize,
}

/// What happened to the windows of one tier of a rollup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollupDetail {
    /// The rollup, or `<rollup>_<tier>`.
    pub table: String,
    /// Points after their window was final, by age, since the process started.
    pub late_points: BTreeMap<String, u64>,
    /// The window that was asked about, or the newest that were changed after closing; one entry
    /// for each partition.
    pub windows: Vec<WindowHistory>,
}

/// Where results go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkStatus {
    /// `influx` or `parquet`.
    pub name: String,
    /// Batches of results that wait for it.
    pub queued: usize,
    /// Reading is paused because the queue is full.
    pub paused: bool,
    /// The last time everything given to it was durable.
    pub flushed: Option<Time>,
    /// Since when a checkpoint has been waiting for it.
    pub checkpoint_since: Option<Time>,
    pub trouble: Option<SinkTrouble>,
}

/// Requests fail and are repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkTrouble {
    /// `influx`, or `storage` for snapshots and Parquet.
    pub place: String,
    pub since: Time,
    pub failures: u64,
    pub error: String,
}
