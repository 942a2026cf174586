//! States of groups where an aggregate fails: it costs the group, and no other.
//!
//! A stage fails as a whole. What it gives for the groups that do not fail is found by halving the
//! groups.

use std::collections::BTreeSet;
use std::ops::Range;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::row::OwnedRow;

use crate::error::Result;
use crate::keys::Keys;

/// How often parts of the groups are tried: enough to find some hundred that fail. What has not
/// been tried by then is given up with them.
const TRIES: usize = 4_096;

/// What became of states by group.
pub(super) struct Apart<T> {
    /// What the stage gave, for parts of the groups that follow each other.
    pub(super) done: Vec<T>,
    /// States of the groups that failed.
    pub(super) failed: Vec<RecordBatch>,
    /// How many these are.
    pub(super) groups: u64,
}

/// Runs a stage, which has failed on all of these states, over parts of them.
pub(super) fn apart<T>(
    keys: &Keys<'_>,
    states: &[RecordBatch],
    run: impl Fn(Vec<RecordBatch>) -> Result<T>,
) -> Result<Apart<T>> {
    let of_batches = states.iter().map(|batch| keys.of_states(batch)).collect::<Result<Vec<_>>>()?;
    let groups: BTreeSet<&OwnedRow> = of_batches.iter().flatten().collect();
    let groups: Vec<&OwnedRow> = groups.into_iter().collect();
    let part = |range: &Range<usize>| {
        let (first, last) = (groups[range.start], groups[range.end - 1]);
        let mut part = Vec::new();
        for (batch, keys) in states.iter().zip(&of_batches) {
            let inside: BooleanArray = keys.iter().map(|key| Some((first..=last).contains(&key))).collect();
            part.push(filter_record_batch(batch, &inside)?);
        }
        part.retain(|batch| batch.num_rows() > 0);
        Ok::<_, crate::Error>(part)
    };
    let mut apart = Apart { done: Vec::new(), failed: Vec::new(), groups: 0 };
    let mut todo = Vec::new();
    todo.push(0..groups.len());
    let mut tries = 0;
    while let Some(range) = todo.pop() {
        if range.is_empty() {
            continue;
        }
        let states = part(&range)?;
        tries += 1;
        // All of them have failed already.
        let is_tried = range.len() == groups.len() && range.len() > 1;
        if tries <= TRIES
            && !is_tried
            && let Ok(done) = run(states.clone())
        {
            apart.done.push(done);
        } else if range.len() > 1 && tries <= TRIES {
            let middle = range.start + range.len() / 2;
            todo.extend([middle..range.end, range.start..middle]);
        } else {
            apart.groups += range.len() as u64;
            apart.failed.extend(states);
        }
    }
    Ok(apart)
}
