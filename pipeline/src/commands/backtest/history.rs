//! The windows of the past, from archived points by each tier's own batch SQL, in the order in
//! which they end.
//!
//! A range is read in slices of a day at most, and less where points are dense, so that memory does
//! not grow with the range. A slice has the windows that end in it: those of long tiers are
//! computed once, in the slice of their end.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::{sort_to_indices, take_record_batch};
use arrow::datatypes::TimestampNanosecondType;
use operators::sql::Catalog;
use operators::threshold::WindowRows;
use operators::window::Windows;
use query::{BatchQuery, Cold, Target, targets};
use sinks::parquet::live::HOUR;

use crate::commands::repair::{CHUNK_BYTES, first_window, next_start};
use crate::commands::simulate::Source;
use crate::config::Config;
use crate::error::Result;

const DAY: i64 = 24 * HOUR;

pub(super) struct History {
    cold: Cold,
    tables: Vec<Table>,
}

/// A tier that some rule looks at.
struct Table {
    source: Source,
    target: Target,
    time: usize,
    query: BatchQuery,
}

/// Windows that end in a part of the past.
pub(super) struct Slice {
    tables: Vec<Rows>,
    /// Ends of all windows of all tables, those without a row as well: with them, groups have no
    /// data.
    ends: BTreeSet<i64>,
}

/// Rows of one tier, the oldest window first.
struct Rows {
    source: Source,
    rows: RecordBatch,
    ends: Vec<i64>,
}

impl History {
    pub(super) fn open(config: &Config, catalog: &Catalog, sources: &BTreeSet<Source>) -> Result<Self> {
        let mut tables = Vec::new();
        for rollup in &catalog.rollups {
            for (target, tier) in targets(rollup).into_iter().zip(rollup.tiers()) {
                let source = (rollup.name.clone(), tier.name.clone());
                if sources.contains(&source) {
                    let (time, query) = (rollup.shape.time, BatchQuery::plain(&target));
                    tables.push(Table { source, target, time, query });
                }
            }
        }
        Ok(Self { cold: Cold::open(config.storage.url.as_str())?, tables })
    }

    /// The parts of `[from, to)` to be read one after the other, and whether the archive has points
    /// of it.
    pub(super) async fn slices(&self, from: i64, to: i64) -> Result<(Vec<(i64, i64)>, bool)> {
        let hours = self.cold.hours(Some((from, to))).await?;
        let bytes: BTreeMap<i64, u64> =
            hours.iter().map(|(hour, files)| (*hour, files.iter().map(|file| file.size).sum())).collect();
        Ok((slices(from, to, &bytes), !hours.is_empty()))
    }

    /// The windows that end after `from` and not after `to`, without those that begin before
    /// `since`: they are not whole.
    pub(super) async fn read(&self, since: i64, from: i64, to: i64) -> Result<Slice> {
        let (mut tables, mut ends) = (Vec::new(), BTreeSet::new());
        for table in &self.tables {
            let windows = &table.target.windows;
            ends.extend(ends_in(windows, from, to));
            let (first, last) = starts(windows, since, from, to);
            if first < last {
                let rows = table.query.run(&self.cold, &table.target, first, last).await?.rows;
                tables.push(Rows::new(table, &rows)?);
            }
        }
        Ok(Slice { tables, ends })
    }
}

impl Rows {
    fn new(table: &Table, rows: &RecordBatch) -> Result<Self> {
        let by_time = sort_to_indices(rows.column(table.time), None, None);
        let sorted = by_time.and_then(|order| take_record_batch(rows, &order));
        let rows = sorted.map_err(sinks::Error::Arrow)?;
        let starts = rows.column(table.time).as_primitive::<TimestampNanosecondType>();
        let ends = starts.values().iter().map(|start| table.target.windows.end(*start)).collect();
        Ok(Self { source: table.source.clone(), rows, ends })
    }

    /// Those whose windows end at `end`.
    fn ending(&self, end: i64) -> Option<RecordBatch> {
        let from = self.ends.partition_point(|other| *other < end);
        let to = self.ends.partition_point(|other| *other <= end);
        (from < to).then(|| self.rows.slice(from, to - from))
    }
}

impl Slice {
    /// Gives the rows of each end, one after the other.
    pub(super) fn each(&self, mut take: impl FnMut(i64, &[WindowRows<'_>])) {
        for end in &self.ends {
            let closing: Vec<(&Source, RecordBatch, Vec<i64>)> = self
                .tables
                .iter()
                .filter_map(|table| {
                    let rows = table.ending(*end)?;
                    let ends = vec![*end; rows.num_rows()];
                    Some((&table.source, rows, ends))
                })
                .collect();
            let rows = closing.iter().map(|((rollup, tier), rows, window_ends)| WindowRows {
                rollup,
                tier,
                rows,
                window_ends,
                corrected: false,
                withdrawn: None,
            });
            take(*end, &rows.collect::<Vec<_>>());
        }
    }
}

/// Ends of windows after `from` and not after `to`.
fn ends_in(windows: &Windows, from: i64, to: i64) -> impl Iterator<Item = i64> {
    let windows = *windows;
    let first = windows.end_after(windows.ended_by(from));
    std::iter::successors(Some(first), move |end| Some(windows.end_after(*end)))
        .take_while(move |end| *end <= to)
}

/// The starts of the windows that end after `from` and not after `to`, and do not begin before
/// `since`.
fn starts(windows: &Windows, since: i64, from: i64, to: i64) -> (i64, i64) {
    // The oldest window that holds a time is the first one that ends after it.
    (first_window(windows, from).max(next_start(windows, since)), first_window(windows, to))
}

/// `bytes`: of each hour that has points.
fn slices(from: i64, to: i64, bytes: &BTreeMap<i64, u64>) -> Vec<(i64, i64)> {
    let mut slices = Vec::new();
    let mut start = from;
    while start < to {
        let (mut end, mut read) = (start, 0);
        while end < to {
            let hour = end.div_euclid(HOUR).saturating_mul(HOUR);
            let next = hour.saturating_add(HOUR).min(to);
            read += bytes.get(&hour).copied().unwrap_or(0);
            if end > start && (read > CHUNK_BYTES || next.saturating_sub(start) > DAY) {
                break;
            }
            end = next;
        }
        slices.push((start, end));
        start = end;
    }
    slices
}

#[cfg(test)]
mod tests {
    use operators::window::Tumble;

    use super::*;

    #[test]
    fn slices_follow_each_other_and_are_short_where_points_are_dense() {
        let minute = HOUR / 60;
        let dense: BTreeMap<i64, u64> = (0..6).map(|hour| (hour * HOUR, CHUNK_BYTES / 2)).collect();
        for (from, to, bytes, expected) in [
            (0, 0, &BTreeMap::new(), vec![]),
            (minute, 2 * minute, &BTreeMap::new(), vec![(minute, 2 * minute)]),
            (0, 2 * DAY + 1, &BTreeMap::new(), vec![(0, DAY), (DAY, 2 * DAY), (2 * DAY, 2 * DAY + 1)]),
            (minute, DAY + 2 * HOUR, &BTreeMap::new(), vec![(minute, DAY), (DAY, DAY + 2 * HOUR)]),
            (
                HOUR / 2,
                5 * HOUR,
                &dense,
                vec![(HOUR / 2, 2 * HOUR), (2 * HOUR, 4 * HOUR), (4 * HOUR, 5 * HOUR)],
            ),
        ] {
            assert_eq!(slices(from, to, bytes), expected, "{from} to {to}");
        }
    }

    /// Every whole window of a range ends in exactly one slice.
    #[test]
    fn each_window_is_in_one_slice() {
        let (from, to) = (3 * HOUR + 17, 4 * DAY + 5 * HOUR);
        for windows in [
            Windows::tumbling(Tumble::new(HOUR, None).unwrap()),
            Windows::tumbling(Tumble::new(7 * HOUR, None).unwrap()),
            Windows::tumbling(Tumble::new(DAY, Some("Europe/Berlin")).unwrap()),
            Windows::hopping(3 * HOUR, HOUR / 2).unwrap(),
        ] {
            let whole: Vec<i64> = (-4 * DAY..to + 4 * DAY)
                .step_by((HOUR / 2) as usize)
                .filter(|time| windows.start(*time) == *time && *time >= from && windows.end(*time) <= to)
                .collect();
            let mut found = Vec::new();
            for (start, end) in slices(from, to, &BTreeMap::new()) {
                let (first, last) = starts(&windows, from, start, end);
                let inside = whole.iter().filter(|start| (first..last).contains(*start));
                found.extend(inside.copied());
                let ends: BTreeSet<i64> = ends_in(&windows, start, end).collect();
                for window in whole.iter().filter(|window| (first..last).contains(*window)) {
                    assert!(ends.contains(&windows.end(*window)), "{windows}: {window} ends in its slice");
                }
            }
            assert_eq!(found, whole, "{windows}");
        }
    }
}
