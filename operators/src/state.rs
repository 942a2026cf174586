//! The open and correctable windows of one rollup in one partition: states by window, merged as they come.
//!
//! A merge costs a pass over the window's rows, so it waits until the unmerged rows outnumber the merged ones:
//! every row is merged a bounded number of times, and memory is groups times windows, not groups times epochs.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::{cast, filter_record_batch, sort_to_indices, take_record_batch};
use arrow::datatypes::{Float64Type, Int64Type, TimestampNanosecondType};
use arrow::row::{OwnedRow, RowConverter, SortField};

use crate::error::Result;
use crate::sql::Rollup;

/// Below these a window's unmerged part is left as it is.
const UNMERGED_ROWS: usize = 256;
const UNMERGED_BATCHES: usize = 32;

#[derive(Debug)]
pub(crate) struct WindowStates {
    rollup: Arc<Rollup>,
    windows: BTreeMap<i64, Window>,
}

#[derive(Debug, Default)]
struct Window {
    /// The first is the result of the last merge, once there was one.
    batches: Vec<RecordBatch>,
    merged_rows: usize,
    unmerged_rows: usize,
}

/// Rows of one window, cut out of a message.
#[derive(Debug, Clone)]
pub(crate) struct WindowRows {
    pub(crate) start: i64,
    pub(crate) end: i64,
    pub(crate) rows: RecordBatch,
}

/// A corrected window's rows, and the keys of those that are no more, or that lack a field which an earlier version may
/// have had: a store that unites fields would keep it.
#[derive(Debug)]
pub(crate) struct Corrected {
    pub(crate) rows: RecordBatch,
    pub(crate) withdrawn: Option<RecordBatch>,
}

impl WindowStates {
    pub(crate) fn new(rollup: Arc<Rollup>) -> Self {
        Self { rollup, windows: BTreeMap::new() }
    }

    pub(crate) fn rows(&self) -> usize {
        self.windows.values().map(|window| window.merged_rows + window.unmerged_rows).sum()
    }

    /// Merges rows of one window into its state.
    pub(crate) fn absorb(&mut self, rows: WindowRows) -> Result<()> {
        let window = self.windows.entry(rows.start).or_default();
        window.unmerged_rows += rows.rows.num_rows();
        window.batches.push(rows.rows);
        let many_rows = window.unmerged_rows > window.merged_rows.max(UNMERGED_ROWS);
        if many_rows || window.batches.len() > UNMERGED_BATCHES {
            window.merge(&self.rollup)?;
        }
        Ok(())
    }

    /// Results of all windows that end after `after` (all, when none) and not after `until`, oldest first.
    pub(crate) fn close(&self, after: Option<i64>, until: i64) -> Result<RecordBatch> {
        let ends = |start: &i64| self.rollup.windows.end(*start);
        let due = self.windows.iter().filter(|(start, _)| {
            let end = ends(start);
            end <= until && after.is_none_or(|after| end > after)
        });
        let states = due.flat_map(|(_, window)| window.batches.iter().cloned()).collect();
        oldest_first(&self.rollup, &self.rollup.finish(states)?)
    }

    /// Results, as they are now, of the groups that `touched` names.
    pub(crate) fn correct(&self, touched: &[WindowRows]) -> Result<Corrected> {
        let keys = Keys::new(&self.rollup)?;
        let mut wanted = HashSet::new();
        for part in touched {
            wanted.extend(keys.of_states(&part.rows)?);
        }
        let mut states = Vec::new();
        let starts: HashSet<i64> = touched.iter().map(|part| part.start).collect();
        for start in starts {
            let Some(window) = self.windows.get(&start) else { continue };
            for batch in &window.batches {
                let mask: BooleanArray =
                    keys.of_states(batch)?.iter().map(|key| Some(wanted.contains(key))).collect();
                states.push(filter_record_batch(batch, &mask)?);
            }
        }
        let rows = oldest_first(&self.rollup, &self.rollup.finish(states)?)?;
        for key in keys.of_results(&rows)? {
            wanted.remove(&key);
        }
        let incomplete = filter_record_batch(&rows, &lacks_a_field(&self.rollup, &rows))?;
        wanted.extend(keys.of_results(&incomplete)?);
        let withdrawn = if wanted.is_empty() { None } else { Some(keys.to_results(&wanted)?) };
        Ok(Corrected { rows, withdrawn })
    }

    /// Forgets the windows that can no longer be corrected at `watermark`.
    pub(crate) fn purge(&mut self, watermark: i64) {
        let rollup = &self.rollup;
        self.windows.retain(|start, _| {
            rollup.windows.end(*start).saturating_add(rollup.allowed_lateness) > watermark
        });
    }

    /// Forgets the windows that start from `from` up to, without, `to`.
    pub(crate) fn forget(&mut self, from: i64, to: i64) {
        self.windows.retain(|start, _| !(from..to).contains(start));
    }

    /// Results of all windows, as [`Self::correct`] gives them.
    pub(crate) fn all(&self) -> Result<Corrected> {
        let mut all = Vec::new();
        for (start, window) in &self.windows {
            let end = self.rollup.windows.end(*start);
            all.extend(window.batches.iter().map(|rows| WindowRows {
                start: *start,
                end,
                rows: rows.clone(),
            }));
        }
        self.correct(&all)
    }

    /// All states as they are, for a snapshot, and which batches a merge has made. When windows are merged next
    /// must follow from the log alone, or a replay would add floats in another order.
    pub(crate) fn snapshot(&self) -> (Vec<RecordBatch>, Vec<bool>) {
        let (mut batches, mut merged) = (Vec::new(), Vec::new());
        for window in self.windows.values() {
            for (position, batch) in window.batches.iter().enumerate() {
                batches.push(batch.clone());
                merged.push(position == 0 && window.merged_rows > 0);
            }
        }
        (batches, merged)
    }

    /// Puts back one batch of a snapshot, all of one window.
    pub(crate) fn restore(&mut self, batch: RecordBatch, is_merged: bool) {
        if batch.num_rows() == 0 {
            return;
        }
        let starts = batch.column(self.rollup.window_column()).as_primitive::<TimestampNanosecondType>();
        let window = self.windows.entry(starts.value(0)).or_default();
        if is_merged {
            window.merged_rows = batch.num_rows();
        } else {
            window.unmerged_rows += batch.num_rows();
        }
        window.batches.push(batch);
    }

    pub(crate) fn windows(&self) -> usize {
        self.windows.len()
    }
}

impl Window {
    fn merge(&mut self, rollup: &Rollup) -> Result<()> {
        if self.unmerged_rows == 0 {
            return Ok(());
        }
        let merged = rollup.reduce(self.batches.clone())?;
        self.merged_rows = merged.num_rows();
        self.unmerged_rows = 0;
        self.batches = vec![merged];
        Ok(())
    }
}

/// Cuts a batch of states by window.
pub(crate) fn by_window(rollup: &Rollup, states: &RecordBatch) -> Result<Vec<WindowRows>> {
    let order = sort_to_indices(states.column(rollup.window_column()), None, None)?;
    let sorted = take_record_batch(states, &order)?;
    let starts = sorted.column(rollup.window_column()).as_primitive::<TimestampNanosecondType>();
    let mut parts = Vec::new();
    let mut from = 0;
    for to in 1..=sorted.num_rows() {
        if to < sorted.num_rows() && starts.value(to) == starts.value(from) {
            continue;
        }
        let start = starts.value(from);
        let end = rollup.windows.end(start);
        parts.push(WindowRows { start, end, rows: sorted.slice(from, to - from) });
        from = to;
    }
    Ok(parts)
}

/// How many points stand behind some states.
pub(crate) fn points_in(rollup: &Rollup, states: &RecordBatch) -> u64 {
    let counts = states.column(rollup.points_column()).as_primitive::<Int64Type>();
    arrow::compute::sum(counts).unwrap_or(0).unsigned_abs()
}

/// Which rows have a field that is null or not a number, and so is not stored.
fn lacks_a_field(rollup: &Rollup, rows: &RecordBatch) -> BooleanArray {
    let lacks = |row: usize| {
        rollup.shape.fields.iter().any(|column| {
            let values = rows.column(*column);
            let floats = values.as_primitive_opt::<Float64Type>();
            values.is_null(row) || floats.is_some_and(|floats| !floats.value(row).is_finite())
        })
    };
    (0..rows.num_rows()).map(|row| Some(lacks(row))).collect()
}

fn oldest_first(rollup: &Rollup, results: &RecordBatch) -> Result<RecordBatch> {
    let order = sort_to_indices(results.column(rollup.shape.time), None, None)?;
    Ok(take_record_batch(results, &order)?)
}

/// The identity of a row, window and tags, in a form that compares across states and results.
struct Keys<'a> {
    rollup: &'a Rollup,
    converter: RowConverter,
    /// Group column and result column of the window and of each tag.
    columns: Vec<(usize, usize)>,
}

impl<'a> Keys<'a> {
    fn new(rollup: &'a Rollup) -> Result<Self> {
        let columns = rollup.key_columns();
        let fields = columns
            .iter()
            .map(|(_, result)| SortField::new(rollup.schema.field(*result).data_type().clone()))
            .collect();
        Ok(Self { rollup, converter: RowConverter::new(fields)?, columns })
    }

    fn of_states(&self, states: &RecordBatch) -> Result<Vec<OwnedRow>> {
        self.of(self.columns.iter().map(|(group, _)| states.column(*group)))
    }

    fn of_results(&self, results: &RecordBatch) -> Result<Vec<OwnedRow>> {
        self.of(self.columns.iter().map(|(_, result)| results.column(*result)))
    }

    fn of<'b>(&self, arrays: impl Iterator<Item = &'b ArrayRef>) -> Result<Vec<OwnedRow>> {
        let mut columns = Vec::new();
        for (array, (_, result)) in arrays.zip(&self.columns) {
            columns.push(cast(array, self.rollup.schema.field(*result).data_type())?);
        }
        let rows = self.converter.convert_columns(&columns)?;
        Ok(rows.iter().map(|row| row.owned()).collect())
    }

    /// The keys as result rows whose fields are null.
    fn to_results(&self, keys: &HashSet<OwnedRow>) -> Result<RecordBatch> {
        let arrays = self.converter.convert_rows(keys.iter().map(OwnedRow::row))?;
        let schema = &self.rollup.schema;
        let mut columns: Vec<ArrayRef> =
            schema.fields().iter().map(|field| new_null_array(field.data_type(), keys.len())).collect();
        for (array, (_, result)) in arrays.into_iter().zip(&self.columns) {
            columns[*result] = array;
        }
        let batch = RecordBatch::try_new(Arc::clone(schema), columns)?;
        oldest_first(self.rollup, &batch)
    }
}
