//! One epoch of points to one message per rollup partition.
//!
//! Every rollup's states are split by their group key, so that equal groups of different rollups meet in one
//! place and each group has exactly one owner.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringViewArray, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use twox_hash::XxHash3_64;

use crate::error::{Error, Result};
use crate::exchange::{Partials, compact};
use crate::sql::Rollup;
use crate::watermark::EpochFacts;

/// Arrow schema of the points that [`aggregate`] takes: `name: Utf8View`, `time: Timestamp(Nanosecond)`,
/// `value: Float64`, then `labels['x']: Utf8View` for each label of the catalog.
pub fn points_schema(labels: &[String]) -> SchemaRef {
    crate::sql::points_schema(labels)
}

/// One epoch, aggregated.
#[derive(Debug)]
pub struct Aggregated {
    /// One message per rollup partition; each carries the epoch's facts, with or without states.
    pub messages: Vec<Partials>,
    /// Rollups that failed on these points, which are missing from them; the others are complete.
    pub failures: Vec<Error>,
}

/// Aggregates one epoch's points for every rollup.
pub fn aggregate(
    rollups: &[Arc<Rollup>],
    points: &[RecordBatch],
    facts: &EpochFacts,
    partitions: usize,
) -> Aggregated {
    let plans: BTreeMap<_, _> =
        rollups.iter().map(|rollup| (rollup.name.clone(), rollup.fingerprint)).collect();
    let message = Partials { facts: facts.clone(), plans, states: vec![] };
    let mut messages = vec![message; partitions];
    let mut failures = Vec::new();
    for rollup in rollups {
        let parts = rollup.partial(points.to_vec()).and_then(|states| split(rollup, &states, partitions));
        match parts {
            Ok(parts) => {
                for (message, rows) in messages.iter_mut().zip(parts) {
                    if rows.num_rows() > 0 {
                        message.push(rollup, rows);
                    }
                }
            }
            Err(error) => failures.push(error),
        }
    }
    Aggregated { messages, failures }
}

/// The states of each partition.
pub(crate) fn split(rollup: &Rollup, states: &RecordBatch, partitions: usize) -> Result<Vec<RecordBatch>> {
    if partitions == 1 {
        return Ok(vec![states.clone()]);
    }
    let keys = GroupKeys::new(rollup, states)?;
    let mut rows: Vec<Vec<u32>> = vec![Vec::new(); partitions];
    for (row, index) in (0..states.num_rows()).zip(0u32..) {
        let partition = keys.hash(row) % partitions as u64;
        rows[partition as usize].push(index);
    }
    rows.into_iter().map(|rows| compact(&take_record_batch(states, &UInt32Array::from(rows))?)).collect()
}

/// Hashes groups by label names and values alone, in the order of the names: the same for all rollups,
/// versions and machines. A label that the group lacks does not count.
struct GroupKeys<'a> {
    tags: Vec<(&'a str, StringViewArray)>,
}

impl<'a> GroupKeys<'a> {
    fn new(rollup: &'a Rollup, states: &RecordBatch) -> Result<Self> {
        let mut tags = Vec::new();
        for (name, column) in rollup.tag_columns() {
            let values = cast(states.column(column), &DataType::Utf8View)?;
            tags.push((name, values.as_string_view().clone()));
        }
        tags.sort_by_key(|(name, _)| *name);
        Ok(Self { tags })
    }

    fn hash(&self, row: usize) -> u64 {
        let mut key = Vec::with_capacity(64);
        for (name, values) in &self.tags {
            if values.is_null(row) {
                continue;
            }
            for part in [name.as_bytes(), values.value(row).as_bytes()] {
                key.extend_from_slice(&(part.len() as u32).to_le_bytes());
                key.extend_from_slice(part);
            }
        }
        XxHash3_64::oneshot(&key)
    }
}
