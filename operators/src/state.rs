//! The open and correctable windows of one tier of a rollup in one partition: states by pane,
//! merged as they come.
//!
//! A tumbling window is one pane, a hopping one several: its result is that of their states
//! together, and a pane is forgotten with the last window that holds it.
//!
//! A merge costs a pass over the pane's rows, so it waits until the unmerged rows outnumber the
//! merged ones: every row is merged a bounded number of times, and memory is groups times panes,
//! not groups times epochs.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch, TimestampNanosecondArray};
use arrow::compute::{concat_batches, filter_record_batch, sort_to_indices, take_record_batch};
use arrow::datatypes::{Int64Type, TimestampNanosecondType};
use arrow::row::OwnedRow;

use crate::detach::{COLUMN_BYTES, detach};
use crate::error::Result;
use crate::failure::Failure;
use crate::gaps::{Gap, Gaps};
use crate::keys::Keys;
use crate::overflow::{Bounds, Gate, Overflow, content_bytes};
use crate::sql::{Finished, Reduced, Rollup, Tier};
use crate::window::Windows;

mod correct;

/// Below these a pane's unmerged part is left as it is.
const UNMERGED_ROWS: usize = 256;
const UNMERGED_BATCHES: usize = 32;

#[derive(Debug)]
pub(crate) struct WindowStates {
    rollup: Arc<Rollup>,
    windows: Windows,
    panes: BTreeMap<i64, Pane>,
    /// States of closed windows that have come since the last correction, by window.
    touched: Vec<RecordBatch>,
    /// States of open windows that have come since the last look, by window, when anyone looks at
    /// these.
    fresh: Option<Vec<RecordBatch>>,
    gate: Gate,
    gaps: Gaps,
    /// What has failed since the last [`WindowStates::take_failures`].
    failures: Vec<Failure>,
}

#[derive(Debug, Default)]
struct Pane {
    /// What the last merge made, once there was one, then what has come since.
    batches: Vec<RecordBatch>,
    /// Batches that the last merge made: one, and one more of states that could not be merged.
    merged: usize,
    merged_rows: usize,
    unmerged_rows: usize,
    merged_bytes: usize,
    unmerged_bytes: usize,
    /// Batches at the end that have come for closed windows since the last correction.
    touching: usize,
}

/// States of one pane.
#[derive(Debug, Clone)]
pub(crate) struct PaneRows {
    pub(crate) start: i64,
    pub(crate) rows: RecordBatch,
}

/// What became of the rows of one pane.
#[derive(Debug)]
pub(crate) struct Absorbed {
    /// What final windows miss, by window.
    pub(crate) missed: Vec<RecordBatch>,
    /// Whether a window that is given out by the stream has them.
    pub(crate) kept: bool,
    pub(crate) overflow: Option<Overflow>,
}

impl WindowStates {
    pub(crate) fn new(rollup: Arc<Rollup>, tier: &Tier) -> Self {
        let gate = Gate::new(&rollup, tier, &Bounds::default());
        Self {
            rollup,
            windows: tier.windows,
            panes: BTreeMap::new(),
            touched: Vec::new(),
            fresh: None,
            gate,
            gaps: Gaps::default(),
            failures: Vec::new(),
        }
    }

    /// Admits no more groups than `bounds` from now on.
    pub(crate) fn bound(&mut self, tier: &Tier, bounds: &Bounds) {
        self.gate = Gate::new(&self.rollup, tier, bounds);
    }

    /// Remembers from now on what came to open windows, for [`WindowStates::open_results`].
    pub(crate) fn watch_open(&mut self) {
        self.fresh = Some(Vec::new());
    }

    pub(crate) fn gaps(&self) -> &Gaps {
        &self.gaps
    }

    pub(crate) fn gaps_mut(&mut self) -> &mut Gaps {
        &mut self.gaps
    }

    /// Leaves out the windows that lack states of points up to `newest`, see [`Gaps::add`].
    pub(crate) fn leave_out(&mut self, watermark: Option<i64>, newest: i64) -> Option<&Gap> {
        let gap = self.gaps.add(&self.windows, self.rollup.allowed_lateness, watermark, newest)?;
        // The newest window that holds a pane starts with it, and so do all others in the gap or
        // before.
        self.panes.retain(|start, _| !gap.holds(*start));
        self.gate.retain(|start| self.panes.contains_key(&start));
        Some(gap)
    }

    /// The gaps that are due at `watermark`, see [`Gaps::due`].
    pub(crate) fn due_gaps(&self, watermark: Option<i64>) -> impl Iterator<Item = &Gap> {
        self.gaps.due(&self.windows, self.rollup.allowed_lateness, watermark)
    }

    pub(crate) fn windows(&self) -> &Windows {
        &self.windows
    }

    pub(crate) fn rows(&self) -> usize {
        self.panes.values().map(|pane| pane.merged_rows + pane.unmerged_rows).sum()
    }

    /// Start and rows of the windows that have not closed at `watermark`, without those in gaps.
    pub(crate) fn open_windows(&self, watermark: Option<i64>) -> BTreeMap<i64, usize> {
        let mut open = BTreeMap::new();
        for (start, pane) in &self.panes {
            for window in self.windows.holding(*start) {
                let is_open = watermark.is_none_or(|at| self.windows.end(window) > at);
                if is_open && !self.gaps.hold(window) {
                    *open.entry(window).or_default() += pane.merged_rows + pane.unmerged_rows;
                }
            }
        }
        open
    }

    pub(crate) fn panes(&self) -> usize {
        self.panes.len()
    }

    /// Cuts states by the panes of these windows. The states of a finer tier fit, as each of its
    /// windows lies in one pane.
    pub(crate) fn by_pane(&self, states: &RecordBatch) -> Result<Vec<PaneRows>> {
        let pane = self.windows.pane();
        let starts = starts_of(&self.rollup, states).unary(|start| pane.start(start));
        let order = sort_to_indices(&starts, None, None)?;
        let sorted = take_record_batch(&with_starts(&self.rollup, states, starts)?, &order)?;
        let starts = starts_of(&self.rollup, &sorted);
        let mut parts = Vec::new();
        let mut from = 0;
        for to in 1..=sorted.num_rows() {
            if to < sorted.num_rows() && starts.value(to) == starts.value(from) {
                continue;
            }
            parts.push(PaneRows { start: starts.value(from), rows: sorted.slice(from, to - from) });
            from = to;
        }
        Ok(parts)
    }

    /// What the states weigh, with room for each pane's unmerged part to grow as large as the
    /// merged one.
    pub(crate) fn bytes(&self) -> usize {
        let panes = self.panes.values();
        panes.map(|pane| pane.merged_bytes + pane.merged_bytes.max(pane.unmerged_bytes)).sum()
    }

    /// Merges rows of one pane into its state, unless no window needs it: they are final at
    /// `watermark` or in a gap. Groups that the pane has no place for become its overflow group; a
    /// `crowded` partition has no place for any new one.
    pub(crate) fn absorb(
        &mut self,
        part: PaneRows,
        watermark: Option<i64>,
        crowded: bool,
    ) -> Result<Absorbed> {
        let (mut missed, mut open) = (Vec::new(), Vec::new());
        for start in self.windows.holding(part.start) {
            if self.gaps.is_final(start, self.final_at(start), watermark) {
                missed.push(self.in_window(&part.rows, start)?);
            } else if !self.gaps.hold(start) {
                open.push(start);
            }
        }
        if open.is_empty() {
            return Ok(Absorbed { missed, kept: false, overflow: None });
        }
        let held = self.panes.get(&part.start).map_or(&[][..], |pane| &pane.batches);
        let (part, overflow) = self.gate.admit(&self.rollup, part, held, crowded)?;
        let mut touches = false;
        for start in open {
            if watermark.is_some_and(|at| self.windows.end(start) <= at) {
                self.touched.push(self.in_window(&part.rows, start)?);
                touches = true;
            } else if self.fresh.is_some() {
                let rows = self.in_window(&part.rows, start)?;
                self.fresh.get_or_insert_default().push(rows);
            }
        }
        let pane = self.panes.entry(part.start).or_default();
        let rows = detach(&part.rows)?;
        pane.unmerged_rows += rows.num_rows();
        pane.unmerged_bytes += held_bytes(&rows);
        pane.batches.push(rows);
        if touches {
            // Merged with the correction, which has to know what there was before.
            pane.touching += 1;
        } else {
            pane.merge_if_due(&self.rollup)?;
        }
        Ok(Absorbed { missed, kept: true, overflow })
    }

    /// Results of all windows that end after `after` (all, when none) and not after `until`, oldest
    /// first.
    pub(crate) fn close(&mut self, after: Option<i64>, until: i64) -> Result<RecordBatch> {
        let mut due = BTreeSet::new();
        for pane in self.panes.keys() {
            let ending = self.windows.ending(*pane, after, until);
            due.extend(ending.filter(|start| !self.gaps.hold(*start)));
        }
        let mut states = Vec::new();
        for start in due {
            states.extend(self.states_of(start)?);
        }
        self.finish(states)
    }

    /// Results of states, oldest first.
    fn finish(&mut self, states: Vec<RecordBatch>) -> Result<RecordBatch> {
        let Finished { rows, failures, .. } = self.rollup.finish(states)?;
        self.failures.extend(failures);
        oldest_first(&self.rollup, &rows)
    }

    /// Results of what final windows miss. A group whose results cannot be computed is given out
    /// without its fields.
    pub(crate) fn finish_missed(&mut self, states: Vec<RecordBatch>) -> Result<RecordBatch> {
        let Finished { rows, lost, failures } = self.rollup.finish(states)?;
        self.failures.extend(failures);
        Ok(concat_batches(&self.rollup.schema, [&rows, &lost])?)
    }

    pub(crate) fn take_failures(&mut self) -> Vec<Failure> {
        std::mem::take(&mut self.failures)
    }

    /// Results, as they are now, of the groups in windows still open at `watermark` that states
    /// have come for since the last call. Empty unless [`WindowStates::watch_open`].
    pub(crate) fn open_results(&mut self, watermark: Option<i64>) -> Result<Option<RecordBatch>> {
        let Some(fresh) = self.fresh.as_mut().map(std::mem::take).filter(|fresh| !fresh.is_empty()) else {
            return Ok(None);
        };
        let rollup = Arc::clone(&self.rollup);
        let keys = Keys::new(&rollup)?;
        let windows = self.windows;
        let is_open = |start: i64| watermark.is_none_or(|at| windows.end(start) > at);
        let before = self.take_failures();
        let found = self.results_of(&keys, &fresh, is_open);
        // What fails counts when the window closes.
        self.failures = before;
        let (_, rows) = found?;
        Ok(Some(rows).filter(|rows| rows.num_rows() > 0))
    }

    /// Keys and results of the groups that some states are of, in those of their windows that are
    /// wanted.
    fn results_of(
        &mut self,
        keys: &Keys<'_>,
        touched: &[RecordBatch],
        is_wanted: impl Fn(i64) -> bool,
    ) -> Result<(HashSet<OwnedRow>, RecordBatch)> {
        let (mut wanted, mut starts) = (HashSet::new(), BTreeSet::new());
        for rows in touched {
            wanted.extend(keys.of_states(rows)?);
            starts.extend(starts_of(&self.rollup, rows).values().iter().filter(|start| is_wanted(**start)));
        }
        let mut states = Vec::new();
        for start in starts {
            for batch in self.states_of(start)? {
                let mask: BooleanArray =
                    keys.of_states(&batch)?.iter().map(|key| Some(wanted.contains(key))).collect();
                states.push(filter_record_batch(&batch, &mask)?);
            }
        }
        Ok((wanted, self.finish(states)?))
    }

    /// Forgets the panes whose windows can no longer be corrected at `watermark`.
    pub(crate) fn purge(&mut self, watermark: i64) {
        let (windows, lateness) = (self.windows, self.rollup.allowed_lateness);
        // The last window that holds a pane starts with it.
        self.panes.retain(|start, _| windows.end(*start).saturating_add(lateness) > watermark);
        self.gate.retain(|start| self.panes.contains_key(&start));
    }

    /// All states as they are, for a snapshot, and which batches a merge has made. When panes are
    /// merged next must follow from the log alone, or a replay would add floats in another order.
    pub(crate) fn snapshot(&self) -> (Vec<RecordBatch>, Vec<bool>) {
        let (mut batches, mut merged) = (Vec::new(), Vec::new());
        for pane in self.panes.values() {
            for (position, batch) in pane.batches.iter().enumerate() {
                batches.push(batch.clone());
                merged.push(position < pane.merged);
            }
        }
        (batches, merged)
    }

    /// Puts back one batch of a snapshot, all of one pane.
    pub(crate) fn restore(&mut self, batch: RecordBatch, is_merged: bool) {
        if batch.num_rows() == 0 {
            return;
        }
        // Copying the rows of a snapshot fails only where reading them would have.
        let batch = detach(&batch).unwrap_or(batch);
        let pane = self.panes.entry(starts_of(&self.rollup, &batch).value(0)).or_default();
        if is_merged {
            pane.merged += 1;
            pane.merged_rows += batch.num_rows();
            pane.merged_bytes += held_bytes(&batch);
        } else {
            pane.unmerged_rows += batch.num_rows();
            pane.unmerged_bytes += held_bytes(&batch);
        }
        pane.batches.push(batch);
    }

    /// What the batches take in memory, buffers that several share counted in each.
    #[cfg(test)]
    pub(crate) fn allocated(&self) -> usize {
        let batches = self.panes.values().flat_map(|pane| &pane.batches);
        batches.map(RecordBatch::get_array_memory_size).sum()
    }

    fn final_at(&self, start: i64) -> i64 {
        self.windows.end(start).saturating_add(self.rollup.allowed_lateness)
    }

    /// The states of one window, those of all its panes.
    fn states_of(&self, start: i64) -> Result<Vec<RecordBatch>> {
        let mut states = Vec::new();
        for (_, pane) in self.panes.range(start..self.windows.end(start)) {
            for batch in &pane.batches {
                states.push(self.in_window(batch, start)?);
            }
        }
        Ok(states)
    }

    /// States of a pane as those of one of the windows that hold it.
    fn in_window(&self, states: &RecordBatch, start: i64) -> Result<RecordBatch> {
        if !self.windows.is_hopping() {
            return Ok(states.clone());
        }
        let starts = TimestampNanosecondArray::from_value(start, states.num_rows());
        with_starts(&self.rollup, states, starts)
    }
}

impl Pane {
    fn merge_if_due(&mut self, rollup: &Rollup) -> Result<()> {
        let many_rows = self.unmerged_rows > self.merged_rows.max(UNMERGED_ROWS);
        if many_rows || self.batches.len() > UNMERGED_BATCHES {
            self.merge(rollup)?;
        }
        Ok(())
    }

    fn merge(&mut self, rollup: &Rollup) -> Result<()> {
        if self.unmerged_rows == 0 {
            return Ok(());
        }
        let Reduced { merged, left } = rollup.reduce(self.batches.clone())?;
        let left = concat_batches(&merged.schema(), &left)?;
        let made = [merged, left].into_iter().filter(|batch| batch.num_rows() > 0);
        self.batches = made.map(|batch| detach(&batch)).collect::<std::result::Result<_, _>>()?;
        self.merged = self.batches.len();
        self.merged_rows = self.batches.iter().map(RecordBatch::num_rows).sum();
        self.merged_bytes = self.batches.iter().map(held_bytes).sum();
        (self.unmerged_rows, self.unmerged_bytes) = (0, 0);
        Ok(())
    }
}

/// What a batch of states weighs, by its content and its columns alone: all replays count alike.
fn held_bytes(states: &RecordBatch) -> usize {
    content_bytes(states) + COLUMN_BYTES * states.num_columns()
}

/// How many points some states hold.
pub(crate) fn points_in(rollup: &Rollup, states: &RecordBatch) -> u64 {
    let counts = states.column(rollup.points_column()).as_primitive::<Int64Type>();
    arrow::compute::sum(counts).unwrap_or(0).unsigned_abs()
}

/// The window column of some states.
fn starts_of<'a>(rollup: &Rollup, states: &'a RecordBatch) -> &'a TimestampNanosecondArray {
    states.column(rollup.window_column()).as_primitive::<TimestampNanosecondType>()
}

/// The states with another window column.
fn with_starts(
    rollup: &Rollup,
    states: &RecordBatch,
    starts: TimestampNanosecondArray,
) -> Result<RecordBatch> {
    let mut columns = states.columns().to_vec();
    columns[rollup.window_column()] = Arc::new(starts);
    Ok(RecordBatch::try_new(states.schema(), columns)?)
}

fn oldest_first(rollup: &Rollup, results: &RecordBatch) -> Result<RecordBatch> {
    let order = sort_to_indices(results.column(rollup.shape.time), None, None)?;
    Ok(take_record_batch(results, &order)?)
}
