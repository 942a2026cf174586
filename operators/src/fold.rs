//! What a `rollup` partition does with its log: a deterministic fold.
//!
//! Each message first merges its states, then moves the watermark by its facts, then closes the
//! windows that the watermark passed. A window closes when the watermark reaches its end. Until
//! `allowed_lateness` has also passed, states that arrive for it correct it: the groups they touch
//! are given out again, whole. After that the window is final. Replaying the log from a snapshot
//! gives the same results. Windows of which states are missing are not given out at all, see
//! [`crate::rebuild`].
//!
//! A rollup has one or more tiers, each with windows of its own length. Every state is merged into
//! each tier, so each closes, corrects and is final by its own windows: what comes too late for a
//! minute may still correct the day. States are late, and given out as such once, when a window of
//! the finest tier that should hold them was final.

mod snapshot;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampNanosecondType;

use crate::error::Error;
use crate::exchange::{Partials, Section};
use crate::failure::{Cause, Failure};
use crate::gaps::Gap;
use crate::overflow::{Bounds, Overflow};
use crate::rebuild::Rebuild;
use crate::sql::{Rollup, Tier};
use crate::state::{WindowStates, points_in};
use crate::threshold::UnknownWindows;
use crate::watermark::{Holder, Source, SourceView, Watermark, WatermarkOptions};

pub use snapshot::{Captured, Restored, snapshot_watermark};

/// The state of one partition of the partials topic.
///
/// ```
/// use std::{collections::BTreeMap, sync::Arc};
///
/// use operators::{epoch::EpochPoints, exchange::Partials, fold::{Fold, ResultKind}};
/// use operators::watermark::{EpochFacts, PartitionFacts, WatermarkOptions};
/// use operators::{partial::aggregate_each, sql::compile};
/// use points::decode::{DecodeOptions, Decoder, Points};
///
/// let sql = "CREATE MATERIALIZED VIEW load AS
///     SELECT tumble(time, INTERVAL '1 minute') AS start, labels['host'] AS host, avg(value) AS avg
///     FROM points GROUP BY 1, 2";
/// let catalog = compile(&[("load.sql".to_owned(), sql.to_owned())]);
///
/// // `ingest` decodes an epoch of messages, and sends the states that its points come to.
/// let mut decoder = Decoder::new(DecodeOptions::default(), catalog.labels.clone());
/// let mut epoch = |lines: &[u8], offset: i64, newest: i64| {
///     let mut points = Points::default();
///     decoder.decode(lines, None, i64::MAX, &mut points, &mut Vec::new());
///     let points = Arc::new(EpochPoints::new(decoder.series(), [points]));
///     let partition = PartitionFacts {
///         topic: "points".to_owned(),
///         partition: 0,
///         from: offset,
///         to: offset + 1,
///         high: Some(newest),
///         low: None,
///         at_end: true,
///         silent: 0,
///     };
///     let facts = EpochFacts {
///         topics: BTreeMap::from([("points".to_owned(), 1)]),
///         partitions: vec![partition],
///         ..EpochFacts::nothing()
///     };
///     let message = aggregate_each(&catalog.rollups, || points.batches(), &facts, 1).messages.remove(0);
///     Partials::decode(&message.encode().unwrap()).unwrap()
/// };
///
/// // `rollup` merges states; a window closes when event time has passed its end.
/// let second = 1_000_000_000;
/// let start = 1_700_000_040 * second;
/// let minute = 60 * second;
/// let options =
///     WatermarkOptions { max_out_of_orderness: 0, idle_timeout: minute, owner_timeout: minute };
/// let mut fold = Fold::new(&catalog.rollups, options);
/// let lines = b"cpu,host=a value=1 1700000040000000000\ncpu,host=a value=5 1700000070000000000";
/// assert!(fold.apply(&epoch(lines, 0, start + 30 * second)).results.is_empty());
/// let applied = fold.apply(&epoch(b"cpu,host=a value=2 1700000100000000000", 1, start + 60 * second));
/// let closed = &applied.results[0];
/// assert_eq!((closed.kind, closed.window_ends.as_slice()), (ResultKind::Closed, &[start + 60 * second][..]));
/// // start, host, avg
/// assert_eq!(arrow::util::display::array_value_to_string(closed.rows.column(2), 0).unwrap(), "3.0");
/// ```
#[derive(Debug)]
pub struct Fold {
    options: WatermarkOptions,
    watermark: Watermark,
    rollups: Vec<RollupStates>,
    bounds: Bounds,
    /// See [`Fold::hold_beside`].
    beside: usize,
}

#[derive(Debug)]
struct RollupStates {
    rollup: Arc<Rollup>,
    /// In the order of the rollup's tiers.
    tiers: Vec<WindowStates>,
}

/// What one message led to.
#[derive(Debug, Default)]
pub struct Applied {
    /// Closed and corrected windows, in the order in which they must be written.
    pub results: Vec<Results>,
    /// Windows that are still open, as far as they have come: for those alone who asked by
    /// [`Fold::watching_open`].
    pub open: Vec<Results>,
    /// States that came after a window of the finest tier was final.
    pub late: Vec<Late>,
    /// Points merged, by rollup; each is either here, in `set_aside` or in `late`.
    pub points: Vec<(String, u64)>,
    /// What was merged into overflow groups, because its own group had no place.
    pub overflows: Vec<Overflow>,
    /// Points in windows of the finest tier that are left to be rebuilt, by rollup.
    pub set_aside: Vec<(String, u64)>,
    /// Windows that have to be rebuilt because this message lacks their states.
    pub rebuilds: Vec<Rebuild>,
    /// What failed on this message; everything else is complete.
    pub failures: Vec<Failure>,
}

/// Rows of one tier of a rollup, oldest window first.
#[derive(Debug)]
pub struct Results {
    pub rollup: Arc<Rollup>,
    /// Which of the rollup's tiers.
    pub tier: usize,
    pub rows: RecordBatch,
    /// End of each row's window, nanoseconds.
    pub window_ends: Vec<i64>,
    pub kind: ResultKind,
    /// Keys, with null fields, of rows to remove before `rows` are written: those that HAVING now
    /// refuses, and those whose new version lacks a field.
    pub withdrawn: Option<RecordBatch>,
}

impl Results {
    pub fn tier(&self) -> &Tier {
        &self.rollup.tiers()[self.tier]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultKind {
    /// Windows that have just closed.
    Closed,
    /// Windows that had closed before and have got late points since.
    Corrected,
    /// Windows that will get more points.
    Open,
}

/// What came too late for one rollup: the rollup of the late points alone.
#[derive(Debug)]
pub struct Late {
    pub rollup: Arc<Rollup>,
    /// What the windows of the finest tier miss.
    pub rows: RecordBatch,
    pub points: u64,
    /// From the end of the first window that misses them to the watermark, nanoseconds.
    pub age: i64,
}

impl Fold {
    pub fn new(rollups: &[Arc<Rollup>], options: WatermarkOptions) -> Self {
        let rollups = rollups.iter().map(RollupStates::new).collect();
        Self { options, watermark: Watermark::default(), rollups, bounds: Bounds::default(), beside: 0 }
    }

    /// With bounds on its groups and its state from now on.
    #[must_use]
    pub fn bounded(mut self, bounds: Bounds) -> Self {
        for kept in &mut self.rollups {
            for (states, tier) in kept.tiers.iter_mut().zip(kept.rollup.tiers()) {
                states.bound(tier, &bounds);
            }
        }
        self.bounds = bounds;
        self
    }

    /// Tells from now on, for these rollups and tiers, what the groups of open windows have come
    /// to.
    #[must_use]
    pub fn watching_open(mut self, is_watched: impl Fn(&str, &str) -> bool) -> Self {
        for kept in &mut self.rollups {
            for (states, tier) in kept.tiers.iter_mut().zip(kept.rollup.tiers()) {
                if is_watched(&kept.rollup.name, &tier.name) {
                    states.watch_open();
                }
            }
        }
        self
    }

    /// Sets what is held beside the fold for the same groups, within the same bound: no more groups
    /// are admitted when both together have come to it.
    pub fn hold_beside(&mut self, bytes: usize) {
        self.beside = bytes;
    }

    /// What the state weighs by its content; memory is up to three times as much while windows are
    /// merged.
    pub fn bytes(&self) -> usize {
        self.rollups.iter().flat_map(|kept| &kept.tiers).map(WindowStates::bytes).sum()
    }

    pub fn watermark(&self) -> Option<i64> {
        self.watermark.value()
    }

    /// The source partition that holds the watermark, and why; none when all are idle.
    pub fn holder(&self) -> Option<Holder> {
        self.watermark.holder(&self.options)
    }

    /// What the watermark is made of.
    pub fn sources(&self) -> Vec<SourceView> {
        self.watermark.sources(&self.options)
    }

    /// Wall time of the newest facts in the log.
    pub fn wall(&self) -> i64 {
        self.watermark.wall()
    }

    /// The windows of each tier that have state and have not closed: start, and rows of its panes.
    pub fn open_windows(&self) -> impl Iterator<Item = (&Tier, BTreeMap<i64, usize>)> {
        let watermark = self.watermark.value();
        self.rollups.iter().flat_map(move |kept| {
            let tiers = kept.rollup.tiers().iter().zip(&kept.tiers);
            tiers.map(move |(tier, states)| (tier, states.open_windows(watermark)))
        })
    }

    /// Rows and panes of state in all tiers, by rollup.
    pub fn sizes(&self) -> impl Iterator<Item = (&str, usize, usize)> {
        self.rollups.iter().map(|kept| {
            let rows = kept.tiers.iter().map(WindowStates::rows).sum();
            let panes = kept.tiers.iter().map(WindowStates::panes).sum();
            (kept.rollup.name.as_str(), rows, panes)
        })
    }

    /// Next offset of every source partition, by the log so far.
    pub fn source_offsets(&self) -> impl Iterator<Item = (&Source, i64)> {
        self.watermark.offsets()
    }

    #[cfg(test)]
    pub(crate) fn allocated(&self) -> usize {
        self.rollups.iter().flat_map(|kept| &kept.tiers).map(WindowStates::allocated).sum()
    }

    /// Windows that are left to be rebuilt.
    pub fn rebuilds(&self) -> Vec<Rebuild> {
        self.rebuilds_of(|states| states.gaps().all().to_vec())
    }

    /// The windows of [`Self::rebuilds`], as rules leave them out.
    pub fn unknown(&self) -> Vec<UnknownWindows> {
        let mut unknown = Vec::new();
        for rebuild in self.rebuilds() {
            let windows = &rebuild.tier().windows;
            let from = rebuild.gap.from;
            unknown.push(UnknownWindows {
                rollup: rebuild.rollup.name.clone(),
                tier: rebuild.tier().name.clone(),
                first: if from == i64::MIN { from } else { windows.end(from) },
                last: rebuild.gap.end(windows),
            });
        }
        unknown
    }

    /// Those of [`Self::rebuilds`] whose windows are final: every point of theirs is before
    /// [`Self::source_offsets`].
    pub fn due_rebuilds(&self) -> Vec<Rebuild> {
        let now = self.watermark.value();
        self.rebuilds_of(|states| states.due_gaps(now).cloned().collect())
    }

    fn rebuilds_of(&self, gaps: impl Fn(&WindowStates) -> Vec<Gap>) -> Vec<Rebuild> {
        let mut rebuilds = Vec::new();
        for kept in &self.rollups {
            for (tier, states) in kept.tiers.iter().enumerate() {
                let rollup = &kept.rollup;
                rebuilds.extend(gaps(states).into_iter().map(|gap| Rebuild::new(rollup, tier, gap)));
            }
        }
        rebuilds
    }

    /// Windows that were due have been rebuilt, or are given up.
    pub fn rebuilt(&mut self, done: &Rebuild) {
        if let Some(kept) = self.rollups.iter_mut().find(|kept| kept.rollup.name == done.rollup.name) {
            kept.tiers[done.tier].gaps_mut().remove(&done.gap);
        }
    }

    /// Something in the log could not be read. `newest` bounds the event times of its points.
    pub fn missed(&mut self, newest: i64) -> Vec<Rebuild> {
        self.leave_out(newest, |_| true)
    }

    /// Leaves out the windows with points up to `newest` of rollups whose states are missing.
    /// Returns what that adds to the windows that are left to be rebuilt.
    fn leave_out(&mut self, newest: i64, lacks: impl Fn(&Rollup) -> bool) -> Vec<Rebuild> {
        let watermark = self.watermark.value();
        let mut added = Vec::new();
        for kept in self.rollups.iter_mut().filter(|kept| lacks(&kept.rollup)) {
            for (tier, states) in kept.tiers.iter_mut().enumerate() {
                let gap = states.leave_out(watermark, newest).cloned();
                added.extend(gap.map(|gap| Rebuild::new(&kept.rollup, tier, gap)));
            }
        }
        added
    }

    /// Takes in one message. A rollup that fails does not stop the others.
    pub fn apply(&mut self, message: &Partials) -> Applied {
        let mut applied = Applied::default();
        let before = self.watermark.value();
        if let Some(newest) = message.newest() {
            applied.rebuilds = self.leave_out(newest, |rollup| !message.covers(rollup));
        }
        for section in &message.states {
            let crowded = self.bytes().saturating_add(self.beside) >= self.bounds.state_bytes;
            let Some(kept) = self.states_for(section) else { continue };
            for batch in &section.batches {
                kept.merge(batch, before, crowded, &mut applied);
            }
        }
        self.watermark.observe(&message.facts, &self.options);
        let now = self.watermark.value();
        for kept in &mut self.rollups {
            if !message.covers(&kept.rollup) {
                kept.tiers.iter_mut().for_each(|states| states.gaps_mut().may_be_written(now));
            }
            for tier in 0..kept.tiers.len() {
                kept.correct(tier, &mut applied);
                if let Some(now) = now.filter(|_| now != before) {
                    kept.close(tier, before, now, &mut applied);
                }
                kept.look_at_open(tier, now, &mut applied);
                applied.failures.extend(kept.tiers[tier].take_failures());
            }
        }
        applied
    }

    /// The states that a section belongs to; none when another plan made it.
    fn states_for(&mut self, section: &Section) -> Option<&mut RollupStates> {
        self.rollups
            .iter_mut()
            .find(|kept| kept.rollup.name == section.rollup && kept.rollup.fingerprint == section.fingerprint)
    }
}

impl RollupStates {
    fn new(rollup: &Arc<Rollup>) -> Self {
        let tiers = rollup.tiers().iter().map(|tier| WindowStates::new(Arc::clone(rollup), tier));
        Self { rollup: Arc::clone(rollup), tiers: tiers.collect() }
    }

    /// Merges states into every tier. What a tier cannot take in costs no other tier, and none of
    /// its other panes.
    fn merge(&mut self, batch: &RecordBatch, watermark: Option<i64>, crowded: bool, applied: &mut Applied) {
        let rollup = &self.rollup;
        let (mut points, mut set_aside) = (0, 0);
        for (tier, states) in self.tiers.iter_mut().enumerate() {
            let parts = states.by_pane(batch).unwrap_or_else(|error| {
                applied.failures.push(lost(rollup, batch.num_rows(), &error));
                Vec::new()
            });
            for part in parts {
                let pane_end = states.windows().pane().end(part.start);
                let (rows, of_part) = (part.rows.num_rows(), points_in(rollup, &part.rows));
                let absorbed = match states.absorb(part, watermark, crowded) {
                    Ok(absorbed) => absorbed,
                    Err(error) => {
                        applied.failures.push(lost(rollup, rows, &error));
                        continue;
                    }
                };
                applied.overflows.extend(absorbed.overflow);
                // What a coarser window misses was also too late for the finest.
                if tier > 0 {
                    continue;
                }
                if absorbed.missed.is_empty() {
                    *(if absorbed.kept { &mut points } else { &mut set_aside }) += of_part;
                    continue;
                }
                let rows = states.finish_missed(absorbed.missed).unwrap_or_else(|error| {
                    applied.failures.push(lost(rollup, rows, &error));
                    RecordBatch::new_empty(Arc::clone(&rollup.schema))
                });
                // The first window that holds a pane ends with it.
                let age = watermark.unwrap_or(pane_end).saturating_sub(pane_end);
                applied.late.push(Late { rollup: Arc::clone(rollup), rows, points: of_part, age });
            }
        }
        applied.points.push((rollup.name.clone(), points));
        applied.set_aside.push((rollup.name.clone(), set_aside));
    }

    /// Gives out what late states have changed. Comes before [`Self::close`]: it concerns older
    /// windows.
    fn correct(&mut self, tier: usize, applied: &mut Applied) {
        match self.tiers[tier].correct() {
            Ok(None) => {}
            Ok(Some(corrected)) => {
                let results = self.results(tier, corrected.rows, ResultKind::Corrected, corrected.withdrawn);
                applied.results.extend(results);
            }
            Err(error) => applied.failures.push(lost(&self.rollup, 1, &error)),
        }
    }

    /// Gives out the windows that the watermark has passed, and forgets those that are final.
    fn close(&mut self, tier: usize, before: Option<i64>, now: i64, applied: &mut Applied) {
        match self.tiers[tier].close(before, now) {
            Ok(closed) => applied.results.extend(self.results(tier, closed, ResultKind::Closed, None)),
            Err(error) => applied.failures.push(lost(&self.rollup, 1, &error)),
        }
        self.tiers[tier].purge(now);
    }

    fn look_at_open(&mut self, tier: usize, now: Option<i64>, applied: &mut Applied) {
        match self.tiers[tier].open_results(now) {
            Ok(None) => {}
            Ok(Some(rows)) => applied.open.extend(self.results(tier, rows, ResultKind::Open, None)),
            Err(error) => applied.failures.push(lost(&self.rollup, 1, &error)),
        }
    }

    fn results(
        &self,
        tier: usize,
        rows: RecordBatch,
        kind: ResultKind,
        withdrawn: Option<RecordBatch>,
    ) -> Option<Results> {
        let nothing_withdrawn = withdrawn.as_ref().is_none_or(|rows| rows.num_rows() == 0);
        if rows.num_rows() == 0 && nothing_withdrawn {
            return None;
        }
        let windows = self.tiers[tier].windows();
        let starts = rows.column(self.rollup.shape.time).as_primitive::<TimestampNanosecondType>();
        let window_ends = starts.values().iter().map(|start| windows.end(*start)).collect();
        Some(Results { rollup: Arc::clone(&self.rollup), tier, rows, window_ends, kind, withdrawn })
    }
}

/// States that could not be used. Arrow refuses no states of a rollup's own plan, so this is for
/// what nobody thought of.
fn lost(rollup: &Rollup, states: usize, error: &Error) -> Failure {
    let (rollup, count) = (rollup.name.clone(), states as u64);
    Failure { rollup, cause: Cause::State, count, first: error.root() }
}

#[cfg(test)]
mod failing_tests;
#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
