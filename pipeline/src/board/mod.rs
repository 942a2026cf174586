//! What the roles of a process know of their partitions: roles write it, HTTP reads it, nobody
//! waits.
//!
//! - `history`: what happened to recent windows; `partition`: a fold, as it is shown
//! - `status`: what one process serves as `/api/status`

pub(crate) mod history;
pub(crate) mod partition;
pub(crate) mod status;

pub(crate) use history::Folded;
pub(crate) use partition::view;
pub use status::Status;

use std::collections::BTreeMap;
use std::process;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use operators::failure::{Cause, Failure};
use operators::watermark::{EpochFacts, PartitionFacts, Source};
use points::decode::{Reason, Rejection};
use sysinfo::System;

use crate::clock::Clock;
use crate::http::Readiness;
use crate::time::nanoseconds;
use crate::time::{Time, milliseconds};
use history::History;
use partition::PartitionView;
use status::{
    FailureStatus, Origin, OwnedSource, Refused, RollupDetail, RollupStatus, SinkStatus, SinkTrouble,
};

/// The span that a partition's reading speed is measured over, at least.
const SPEED: Duration = Duration::from_secs(2);
/// How much of a refused point is shown.
const EXCERPT: usize = 200;
/// Changed windows that are reported when no window was asked about.
const CHANGED_WINDOWS: usize = 8;

/// What the roles of this process know. Share it in an `Arc`.
#[derive(Debug)]
pub struct Board {
    instance: String,
    clock: Clock,
    started: Time,
    ingest: Mutex<Ingest>,
    rollup: Mutex<Rollup>,
    /// By rollup and cause.
    failures: Mutex<BTreeMap<(String, Cause), FailureStatus>>,
}

#[derive(Debug, Default)]
struct Ingest {
    /// None until the role has ended its first epoch.
    owned: Option<BTreeMap<Source, Reading>>,
    refused: BTreeMap<Source, RefusedPoints>,
}

/// An owned source partition.
#[derive(Debug, Clone)]
struct Reading {
    facts: PartitionFacts,
    newest: Option<i64>,
    /// Wall time of the last epoch with an accepted point.
    accepted: Option<i64>,
    /// Where reading stood at the beginning of the span under way, and the speed over the last one.
    mark: (Duration, i64),
    speed: Option<f64>,
}

#[derive(Debug, Default)]
struct RefusedPoints {
    by_reason: BTreeMap<&'static str, u64>,
    last: Option<Refused>,
    farthest_ahead: Option<i64>,
}

#[derive(Debug, Default)]
struct Rollup {
    /// None until the role runs.
    sink: Option<Sink>,
    partitions: BTreeMap<i32, PartitionView>,
    history: History,
}

#[derive(Debug, Default)]
struct Sink {
    name: &'static str,
    queued: usize,
    paused: bool,
    flushed: Option<i64>,
    checkpoint_since: Option<i64>,
    /// What the database, and the storage of snapshots and Parquet, keep from being written.
    trouble: Option<SinkTrouble>,
    storage: Option<SinkTrouble>,
}

impl Board {
    /// An empty board of this process.
    pub fn new(clock: Clock) -> Self {
        let host = System::host_name().unwrap_or_else(|_| "localhost".to_owned());
        Self {
            instance: format!("{host}:{}", process::id()),
            started: Time(clock.now_ns()),
            clock,
            ingest: Mutex::default(),
            rollup: Mutex::default(),
            failures: Mutex::default(),
        }
    }

    /// `<host>:<process id>`.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// An epoch of `ingest` has ended: its partitions are those that the process owns.
    pub(crate) fn epoch_ended(&self, facts: &EpochFacts) {
        let now = self.clock.monotonic();
        let mut ingest = lock(&self.ingest);
        let before = ingest.owned.take().unwrap_or_default();
        let mut owned = BTreeMap::new();
        for facts_of_one in &facts.partitions {
            let source = (facts_of_one.topic.clone(), facts_of_one.partition);
            let known = before.get(&source);
            let to = facts_of_one.to;
            let mut reading = Reading {
                facts: facts_of_one.clone(),
                newest: known.and_then(|known| known.newest).max(facts_of_one.high),
                accepted: facts_of_one.high.map(|_| facts.wall).or(known.and_then(|known| known.accepted)),
                mark: known.map_or((now, facts_of_one.from), |known| known.mark),
                speed: known.and_then(|known| known.speed),
            };
            let span = now.saturating_sub(reading.mark.0);
            if span >= SPEED {
                reading.speed = Some((to - reading.mark.1) as f64 / span.as_secs_f64());
                reading.mark = (now, to);
            }
            owned.insert(source, reading);
        }
        ingest.owned = Some(owned);
    }

    /// `ingest` has refused points at `offset` of a source partition.
    pub(crate) fn refused(&self, source: &Source, offset: i64, rejection: &Rejection) {
        let now = self.clock.now_ns();
        let mut ingest = lock(&self.ingest);
        let refused = ingest.refused.entry(source.clone()).or_default();
        *refused.by_reason.entry(rejection.reason.as_str()).or_default() += rejection.count as u64;
        if let (Reason::FutureTimestamp, Some(time)) = (rejection.reason, rejection.time) {
            refused.farthest_ahead = refused.farthest_ahead.max(Some(time.saturating_sub(now)));
        }
        let excerpt = &rejection.excerpt[..rejection.excerpt.len().min(EXCERPT)];
        refused.last = Some(Refused {
            reason: rejection.reason.as_str().to_owned(),
            seen: Time(now),
            offset,
            time: rejection.time.map(Time),
            excerpt: String::from_utf8_lossy(excerpt).into_owned(),
        });
    }

    /// A part of a rollup could not be computed, in any role.
    pub(crate) fn failed(&self, failure: &Failure) {
        let now = Time(self.clock.now_ns());
        let mut failures = lock(&self.failures);
        let known = failures.entry((failure.rollup.clone(), failure.cause)).or_insert(FailureStatus {
            rollup: failure.rollup.clone(),
            cause: failure.cause.as_str().to_owned(),
            count: 0,
            since: now,
            last: now,
            error: String::new(),
        });
        known.count += failure.count;
        known.last = now;
        known.error.clone_from(&failure.first);
    }

    /// `ingest` has given up its partitions.
    pub(crate) fn sources_released(&self) {
        lock(&self.ingest).owned = Some(BTreeMap::new());
    }

    /// A session of `rollup` has begun, with this sink.
    pub(crate) fn sink_connected(&self, name: &'static str) {
        lock(&self.rollup).sink = Some(Sink { name, ..Sink::default() });
    }

    /// The partitions that `rollup` owns, as they are.
    pub(crate) fn partitions(&self, partitions: impl Iterator<Item = (i32, PartitionView)>) {
        // Looking at a fold takes long enough that nobody should wait for it.
        let partitions = partitions.collect();
        lock(&self.rollup).partitions = partitions;
    }

    /// `rollup` has given up its partitions.
    pub(crate) fn partitions_released(&self) {
        lock(&self.rollup).partitions.clear();
    }

    /// `rollup` has taken in a message.
    pub(crate) fn folded(&self, folded: &Folded<'_>) {
        if !folded.applied.results.is_empty() || !folded.applied.late.is_empty() {
            lock(&self.rollup).history.note(folded);
        }
    }

    /// How many batches wait for the sink, and whether reading is paused because of that.
    pub(crate) fn sink_queue(&self, queued: usize, paused: bool) {
        self.sink(|sink| (sink.queued, sink.paused) = (queued, paused));
    }

    /// A checkpoint waits until everything before it is durable.
    pub(crate) fn checkpoint_started(&self) {
        let now = self.clock.now_ns();
        self.sink(|sink| sink.checkpoint_since = Some(now));
    }

    /// Everything given to the sink before the checkpoint is durable, and so is the checkpoint.
    pub(crate) fn checkpoint_durable(&self) {
        let now = self.clock.now_ns();
        self.sink(|sink| {
            sink.flushed = Some(now);
            sink.checkpoint_since = None;
            // It is notified once a second only, and by now it is over.
            sink.trouble = None;
        });
    }

    /// What keeps the sink from writing, or nothing.
    pub(crate) fn sink_trouble(&self, trouble: Option<sinks::influx::Trouble>) {
        let now = self.clock.now_ns();
        let trouble = trouble.map(|trouble| SinkTrouble {
            place: "influx".to_owned(),
            since: Time(now.saturating_sub(nanoseconds(trouble.since))),
            failures: trouble.failures,
            error: trouble.error,
        });
        self.sink(|sink| sink.trouble = trouble);
    }

    /// An attempt to store something failed and will be repeated, or went well after all.
    pub(crate) fn storage_trouble(&self, error: Option<String>) {
        let now = Time(self.clock.now_ns());
        self.sink(|sink| {
            let before = sink.storage.take();
            sink.storage = error.map(|error| SinkTrouble {
                place: "storage".to_owned(),
                since: before.as_ref().map_or(now, |before| before.since),
                failures: before.map_or(0, |before| before.failures) + 1,
                error,
            });
        });
    }

    fn sink(&self, change: impl FnOnce(&mut Sink)) {
        if let Some(sink) = &mut lock(&self.rollup).sink {
            change(sink);
        }
    }

    /// Everything at once. With `table`, also its open windows and what happened to its windows: to
    /// the one that starts at `window`, or to those changed last.
    pub(crate) fn status(&self, readiness: &Readiness, table: Option<&str>, window: Option<Time>) -> Status {
        Status {
            instance: self.instance.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.started,
            now: Time(self.clock.now_ns()),
            waiting: readiness.reasons(),
            ingest: lock(&self.ingest).status(),
            rollup: lock(&self.rollup).status(table, window),
            failures: lock(&self.failures).values().cloned().collect(),
        }
    }
}

impl Ingest {
    fn status(&self) -> Option<Vec<OwnedSource>> {
        let owned = self.owned.as_ref()?;
        Some(owned.iter().map(|(source, reading)| reading.status(self.refused.get(source))).collect())
    }
}

impl Reading {
    fn status(&self, refused: Option<&RefusedPoints>) -> OwnedSource {
        let by_reason = refused.map(|refused| refused.by_reason.clone()).unwrap_or_default();
        OwnedSource {
            topic: self.facts.topic.clone(),
            partition: self.facts.partition,
            next_offset: self.facts.to,
            read_per_second: self.speed,
            newest: self.newest.map(Time),
            at_end: self.facts.at_end,
            silent_ms: milliseconds(self.facts.silent),
            accepted: self.accepted.map(Time),
            refused: by_reason.into_iter().map(|(reason, points)| (reason.to_owned(), points)).collect(),
            last_refused: refused.and_then(|refused| refused.last.clone()),
            farthest_ahead_ms: refused.and_then(|refused| refused.farthest_ahead).map(milliseconds),
        }
    }
}

impl Rollup {
    fn status(&self, table: Option<&str>, window: Option<Time>) -> Option<RollupStatus> {
        let sink = self.sink.as_ref()?;
        let detail = |table: &str| RollupDetail {
            table: table.to_owned(),
            late_points: self.history.late_points(table),
            windows: match window {
                Some(start) => self.history.window(table, start),
                None => self.history.changed(table, CHANGED_WINDOWS),
            },
        };
        Some(RollupStatus {
            partitions: self.partitions.values().map(|view| view.about(table, Origin::Owner)).collect(),
            sink: SinkStatus {
                name: sink.name.to_owned(),
                queued: sink.queued,
                paused: sink.paused,
                flushed: sink.flushed.map(Time),
                checkpoint_since: sink.checkpoint_since.map(Time),
                trouble: sink.storage.clone().or_else(|| sink.trouble.clone()),
            },
            asked: table.map(detail),
        })
    }
}

/// Nothing panics while it holds a lock, and the value in it is valid after every step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
