//! Bounds on the groups of a rollup, and the group that takes what is beyond them.
//!
//! A partition admits so many groups of a rollup to a window, and so many bytes of state in all.
//! Points of a group that is new to a window beyond that are merged into the window's *overflow
//! group*, whose tags all read `__overflow__<partition>`: no point is lost, and sums and counts
//! over all groups stay right. The number of the partition is part of the name because each row has
//! one owner, and InfluxDB would keep one of two rows with equal tags.
//!
//! Which groups a window has admitted follows from its state alone, and what its state weighs from
//! the content of the rows. So a replay, and a fold that was restored from a snapshot, divert the
//! same points.

use std::collections::BTreeMap;
use std::iter::repeat_n;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringViewArray};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{cast, concat_batches, filter_record_batch, not};
use arrow::datatypes::DataType;
use hashbrown::HashTable;

use crate::error::Result;
use crate::partial::GroupKeys;
use crate::sql::{Reduced, Rollup, Tier};
use crate::state::{PaneRows, points_in};

/// What the tags of an overflow group begin with; the number of the rollup partition follows.
pub const OVERFLOW: &str = "__overflow__";

/// Texts up to this long are part of their view.
const INLINE_TEXT: u32 = 12;

/// How much one partition may hold. All processes of a deployment need the same, or a replay would
/// differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub partition: usize,
    /// Of the partials topic; the series limit is divided over them.
    pub partitions: usize,
    /// Groups of a rollup in one window, all partitions together, unless its SQL file sets it.
    pub series_limit: u64,
    /// State of all rollups in this partition, and of the alerts of their groups, see
    /// [`crate::fold::Fold::hold_beside`].
    pub state_bytes: usize,
}

impl Default for Bounds {
    /// None.
    fn default() -> Self {
        Self { partition: 0, partitions: 1, series_limit: u64::MAX, state_bytes: usize::MAX }
    }
}

/// What went to the overflow group of a window, out of one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overflow {
    pub rollup: String,
    pub tier: String,
    /// Start of the window, nanoseconds.
    pub window: i64,
    /// States that were diverted. A group counts again in each epoch, since who was diverted is not
    /// remembered.
    pub groups: u64,
    pub points: u64,
    /// Whether it is the first of its window in this partition.
    pub is_first: bool,
    /// Whether there was no memory left, rather than no place within the series limit.
    pub out_of_memory: bool,
}

/// Decides for one rollup in one partition which groups a window admits.
#[derive(Debug)]
pub(crate) struct Gate {
    tier: String,
    limit: usize,
    label: String,
    label_hash: u64,
    /// Of the windows that may have come to the limit; for the others the number of their rows
    /// suffices.
    windows: BTreeMap<i64, Members>,
}

/// The groups of one window, by hash. Two groups with one hash are admitted as one: the limit is
/// exceeded by one then.
#[derive(Debug, Default)]
struct Members {
    groups: HashTable<u64>,
    has_overflow: bool,
}

impl Gate {
    pub(crate) fn new(rollup: &Rollup, tier: &Tier, bounds: &Bounds) -> Self {
        let label = format!("{OVERFLOW}{}", bounds.partition);
        let limit = share_of(rollup.series_limit.unwrap_or(bounds.series_limit), bounds);
        Self {
            tier: tier.name.clone(),
            limit,
            label_hash: GroupKeys::hash_of(rollup, &label),
            label,
            windows: BTreeMap::new(),
        }
    }

    /// The rows as they are to be merged: those of groups that the window has no place for are one
    /// row of its overflow group. `held` is the window's state so far; a `crowded` partition takes
    /// no new group at all.
    pub(crate) fn admit(
        &mut self,
        rollup: &Rollup,
        part: PaneRows,
        held: &[RecordBatch],
        crowded: bool,
    ) -> Result<(PaneRows, Option<Overflow>)> {
        // Without tags a window has one group.
        if rollup.tag_columns().next().is_none() {
            return Ok((part, None));
        }
        let rows = held.iter().map(RecordBatch::num_rows).sum::<usize>() + part.rows.num_rows();
        if !crowded && rows <= self.limit && !self.windows.contains_key(&part.start) {
            return Ok((part, None));
        }
        if !self.windows.contains_key(&part.start) {
            let members = Members::of(rollup, held, self.label_hash)?;
            self.windows.insert(part.start, members);
        }
        let members = self.windows.entry(part.start).or_default();
        let places = if crowded { 0 } else { self.limit };
        let admitted: BooleanArray = GroupKeys::new(rollup, &part.rows)?
            .hashes()
            .map(|hash| Some(hash == self.label_hash || members.admit(hash, places)))
            .collect();
        if admitted.true_count() == admitted.len() {
            return Ok((part, None));
        }
        let diverted = filter_record_batch(&part.rows, &not(&admitted)?)?;
        let overflow = Overflow {
            rollup: rollup.name.clone(),
            tier: self.tier.clone(),
            window: part.start,
            groups: diverted.num_rows() as u64,
            points: points_in(rollup, &diverted),
            is_first: !members.has_overflow,
            out_of_memory: crowded && members.groups.len() < self.limit,
        };
        members.has_overflow = true;
        let Reduced { merged, left } = rollup.reduce(vec![labelled(rollup, &diverted, &self.label)?])?;
        let kept = filter_record_batch(&part.rows, &admitted)?;
        let rows = concat_batches(&part.rows.schema(), [&kept, &merged].into_iter().chain(&left))?;
        Ok((PaneRows { rows, ..part }, Some(overflow)))
    }

    /// Forgets the windows that are not `open` any more.
    pub(crate) fn retain(&mut self, open: impl Fn(i64) -> bool) {
        self.windows.retain(|start, _| open(*start));
    }
}

impl Members {
    fn of(rollup: &Rollup, held: &[RecordBatch], label_hash: u64) -> Result<Self> {
        let mut members = Self::default();
        for batch in held {
            for hash in GroupKeys::new(rollup, batch)?.hashes() {
                if hash == label_hash {
                    members.has_overflow = true;
                } else {
                    members.admit(hash, usize::MAX);
                }
            }
        }
        Ok(members)
    }

    /// Whether the group is one of them, or becomes one.
    fn admit(&mut self, hash: u64, places: usize) -> bool {
        if self.groups.find(spread(hash), |known| *known == hash).is_some() {
            return true;
        }
        if self.groups.len() >= places {
            return false;
        }
        self.groups.insert_unique(spread(hash), hash, |known| spread(*known));
        true
    }
}

/// All groups of a partition have the same remainder, which is what a table would look at first.
fn spread(hash: u64) -> u64 {
    hash.rotate_left(32)
}

/// A partition's part of the limit; the parts add up to it.
fn share_of(limit: u64, bounds: &Bounds) -> usize {
    let (partition, partitions) = (bounds.partition as u64, bounds.partitions.max(1) as u64);
    let share = limit / partitions + u64::from(partition < limit % partitions);
    usize::try_from(share).unwrap_or(usize::MAX)
}

/// The states under the name of the overflow group.
fn labelled(rollup: &Rollup, states: &RecordBatch, label: &str) -> Result<RecordBatch> {
    let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values(repeat_n(label, states.num_rows())));
    let mut columns = states.columns().to_vec();
    for (_, column) in rollup.tag_columns() {
        columns[column] = cast(&texts, states.column(column).data_type())?;
    }
    Ok(RecordBatch::try_new(states.schema(), columns)?)
}

/// What rows weigh by their content: the same for equal rows, however their buffers came to be.
/// Allocated memory is more.
pub(crate) fn content_bytes(rows: &RecordBatch) -> usize {
    rows.columns().iter().map(array_bytes).sum()
}

fn array_bytes(array: &ArrayRef) -> usize {
    let offsets = |offsets: &ScalarBuffer<i32>| (offsets[offsets.len() - 1] - offsets[0]) as usize;
    let rows = array.len();
    match array.data_type() {
        DataType::Utf8View => rows * size_of::<u128>() + long_texts(array.as_string_view().views()),
        DataType::BinaryView => rows * size_of::<u128>() + long_texts(array.as_binary_view().views()),
        DataType::Utf8 => rows * size_of::<i32>() + offsets(array.as_string::<i32>().offsets().inner()),
        DataType::Binary => rows * size_of::<i32>() + offsets(array.as_binary::<i32>().offsets().inner()),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let used = offsets(list.offsets().inner());
            rows * size_of::<i32>() + array_bytes(&list.values().slice(list.offsets()[0] as usize, used))
        }
        DataType::Struct(_) => array.as_struct().columns().iter().map(array_bytes).sum(),
        other => rows * other.primitive_width().unwrap_or(size_of::<u64>()),
    }
}

fn long_texts(views: &[u128]) -> usize {
    // The length is the first four bytes of a view.
    let lengths = views.iter().map(|view| *view as u32).filter(|length| *length > INLINE_TEXT);
    lengths.map(|length| length as usize).sum()
}

#[cfg(test)]
#[path = "overflow_tests.rs"]
mod tests;
