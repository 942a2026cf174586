//! What happened to recent windows: when they closed, what corrected them, what came too late.
//!
//! Bounded, in memory, since the process started. Times are those of the log, so a replay tells the
//! same.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampNanosecondType;
use operators::fold::{Applied, Late, ResultKind};
use operators::sql::Rollup;
use operators::watermark::EpochFacts;
use serde::{Deserialize, Serialize};

use crate::telemetry::age_label;
use crate::time::Time;

/// Windows remembered for each tier of a rollup and partition.
const WINDOWS: usize = 256;
/// The newest changes of a window that are notified one by one; all are counted.
const CHANGES: usize = 4;

/// One window in one rollup partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowHistory {
    /// The partition of the partials topic.
    pub partition: i32,
    pub start: Time,
    pub end: Time,
    /// None when it closed before the process started, or without a row.
    pub closed: Option<Change>,
    /// How often it was written again because of late points.
    pub corrections: u64,
    /// The newest of them.
    pub corrected: Vec<Change>,
    /// Points that came after it was final: they are not in it.
    pub late_points: u64,
    /// The newest times they came.
    pub late: Vec<Change>,
}

/// A message of the partials topic that changed a window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When its epoch ended.
    pub at: Time,
    /// Offset of the message.
    pub offset: i64,
    /// The watermark after the message.
    pub watermark: Option<Time>,
    /// Rows given out; for late points their number.
    pub rows: u64,
    /// The source messages with points as old as the window. Empty when it closed.
    pub sources: Vec<OffsetRange>,
}

/// Messages of a source partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetRange {
    pub topic: String,
    pub partition: i32,
    pub from: i64,
    /// Without this one.
    pub to: i64,
}

/// Recent windows of all rollups.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// By table, which is a tier of a rollup, and partition.
    tables: BTreeMap<(String, i32), Recent>,
    /// Points after their window was final, by rollup and age.
    late_points: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// By partition, the newest message noted.
    noted: BTreeMap<i32, i64>,
}

/// Windows of one tier and partition. Those that only ever got points too late are kept apart:
/// there may be any number of them, and they must not displace the windows that people ask about.
#[derive(Debug, Default)]
struct Recent {
    windows: Bounded,
    late: Bounded,
}

#[derive(Debug, Default)]
struct Bounded {
    windows: BTreeMap<i64, WindowHistory>,
    /// Starts in the order in which they came in.
    order: VecDeque<i64>,
}

/// A message as the fold took it in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Folded<'a> {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) facts: &'a EpochFacts,
    /// The watermark before and after it.
    pub(crate) before: Option<i64>,
    pub(crate) after: Option<i64>,
    pub(crate) applied: &'a Applied,
}

impl History {
    /// A message that is replayed after a rebalance or a failure is noted once.
    pub(crate) fn note(&mut self, folded: &Folded<'_>) {
        let noted = self.noted.entry(folded.partition).or_insert(-1);
        if folded.offset <= *noted {
            return;
        }
        *noted = folded.offset;
        for results in &folded.applied.results {
            let (rollup, tier) = (&results.rollup, results.tier());
            let mut starts = starts(rollup, &results.rows);
            if let Some(withdrawn) = &results.withdrawn {
                for (start, rows) in self::starts(rollup, withdrawn) {
                    *starts.entry(start).or_default() += rows;
                }
            }
            for (start, rows) in starts {
                let end = tier.windows.end(start);
                let window = self.recent(&tier.table, folded).windows.entry(folded.partition, start, end);
                match results.kind {
                    ResultKind::Open => {}
                    ResultKind::Closed => window.closed = Some(folded.change(rows, Vec::new())),
                    ResultKind::Corrected => {
                        window.corrections += 1;
                        push(&mut window.corrected, folded.change(rows, folded.sources(start, end)));
                    }
                }
            }
        }
        for late in &folded.applied.late {
            self.note_late(late, folded);
            let ages = self.late_points.entry(late.rollup.name.clone()).or_default();
            *ages.entry(age_label(Duration::from_nanos(late.age.unsigned_abs()))).or_default() += late.points;
        }
    }

    /// Notes late points in the windows of every tier that are final without them.
    fn note_late(&mut self, late: &Late, folded: &Folded<'_>) {
        let Some(watermark) = folded.before else { return };
        // A pane's end is that of the first window that holds it, from which the age is counted.
        let time = watermark.saturating_sub(late.age).saturating_sub(1);
        for tier in late.rollup.tiers() {
            let windows = &tier.windows;
            let holding = windows.holding(windows.start(time));
            let is_final =
                |start: &i64| windows.end(*start).saturating_add(late.rollup.allowed_lateness) <= watermark;
            for start in holding.filter(is_final) {
                let end = windows.end(start);
                let recent = self.recent(&tier.table, folded);
                let known = recent.windows.windows.contains_key(&start);
                let kept = if known { &mut recent.windows } else { &mut recent.late };
                let window = kept.entry(folded.partition, start, end);
                window.late_points += late.points;
                push(&mut window.late, folded.change(late.points, folded.sources(start, end)));
            }
        }
    }

    fn recent(&mut self, table: &str, folded: &Folded<'_>) -> &mut Recent {
        self.tables.entry((table.to_owned(), folded.partition)).or_default()
    }

    /// Points after their window was final, by age.
    pub(crate) fn late_points(&self, rollup: &str) -> BTreeMap<String, u64> {
        let ages = self.late_points.get(rollup).into_iter().flatten();
        ages.map(|(age, points)| ((*age).to_owned(), *points)).collect()
    }

    /// What is known of the window of `table` that starts at `start`, in every partition.
    pub(crate) fn window(&self, table: &str, start: Time) -> Vec<WindowHistory> {
        self.all(table).filter(|window| window.start == start).cloned().collect()
    }

    /// The `count` newest windows that were corrected or got points too late.
    pub(crate) fn changed(&self, table: &str, count: usize) -> Vec<WindowHistory> {
        let changed = |window: &&WindowHistory| window.corrections > 0 || window.late_points > 0;
        let mut windows: Vec<&WindowHistory> = self.all(table).filter(changed).collect();
        windows.sort_by_key(|window| (window.start, window.partition));
        let from = windows.len().saturating_sub(count);
        windows[from..].iter().copied().cloned().collect()
    }

    fn all(&self, table: &str) -> impl Iterator<Item = &WindowHistory> {
        let of_table = self.tables.iter().filter(move |((name, _), _)| name == table);
        of_table.flat_map(|(_, recent)| recent.windows.windows.values().chain(recent.late.windows.values()))
    }
}

impl Bounded {
    fn entry(&mut self, partition: i32, start: i64, end: i64) -> &mut WindowHistory {
        if !self.windows.contains_key(&start) {
            self.order.push_back(start);
            if self.order.len() > WINDOWS
                && let Some(oldest) = self.order.pop_front()
            {
                self.windows.remove(&oldest);
            }
        }
        self.windows.entry(start).or_insert_with(|| WindowHistory {
            partition,
            start: Time(start),
            end: Time(end),
            closed: None,
            corrections: 0,
            corrected: Vec::new(),
            late_points: 0,
            late: Vec::new(),
        })
    }
}

impl Folded<'_> {
    fn change(&self, rows: u64, sources: Vec<OffsetRange>) -> Change {
        Change {
            at: Time(self.facts.wall),
            offset: self.offset,
            watermark: self.after.map(Time),
            rows,
            sources,
        }
    }

    /// The source messages of the epoch that may have had points between `start` and `end`. A part
    /// of an epoch too large for one message has no facts, and names none.
    fn sources(&self, start: i64, end: i64) -> Vec<OffsetRange> {
        let overlaps = |low: Option<i64>, high: Option<i64>| {
            low.is_some_and(|low| low < end) && high.is_some_and(|high| high >= start)
        };
        let touching = self.facts.partitions.iter().filter(|source| overlaps(source.low, source.high));
        let range = touching.map(|source| OffsetRange {
            topic: source.topic.clone(),
            partition: source.partition,
            from: source.from,
            to: source.to,
        });
        range.collect()
    }
}

/// The windows of result rows, with the number of rows of each.
fn starts(rollup: &Rollup, rows: &RecordBatch) -> BTreeMap<i64, u64> {
    let mut starts = BTreeMap::new();
    for start in rows.column(rollup.shape.time).as_primitive::<TimestampNanosecondType>().values() {
        *starts.entry(*start).or_default() += 1;
    }
    starts
}

fn push(changes: &mut Vec<Change>, change: Change) {
    if changes.len() == CHANGES {
        changes.remove(0);
    }
    changes.push(change);
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
