//! One epoch of points to one message per rollup partition.
//!
//! Every rollup's states are split by their group key, so that equal groups of different rollups
//! meet in one place and each group has exactly one owner.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringViewArray, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use twox_hash::XxHash3_64;

use crate::error::{Error, Result};
use crate::exchange::{Partials, compact};
use crate::failure::{Cause, Failure};
use crate::sql::{Failed, Rollup};
use crate::watermark::EpochFacts;

/// Arrow schema of the points that [`aggregate`] takes: `name: Utf8View`,
/// `time: Timestamp(Nanosecond)`, `value: Float64`, then `labels['x']: Utf8View` for each label of
/// the catalog.
pub fn points_schema(labels: &[String]) -> SchemaRef {
    crate::sql::points_schema(labels)
}

/// One epoch, aggregated.
#[derive(Debug)]
pub struct Aggregated {
    /// One message per rollup partition; each carries the epoch's facts, with or without states.
    pub messages: Vec<Partials>,
    /// What rollups failed on; everything else is complete.
    pub failures: Vec<Failure>,
}

/// How often parts of an epoch are tried to find the points that fail: enough for some hundred of
/// them. What has not been tried by then is given up with them.
const TRIES: usize = 4_096;

/// Aggregates one epoch's points for every rollup.
pub fn aggregate(
    rollups: &[Arc<Rollup>],
    points: &[RecordBatch],
    facts: &EpochFacts,
    partitions: usize,
) -> Aggregated {
    aggregate_each(rollups, || points.to_vec(), facts, partitions)
}

/// As [`aggregate`], of points that `points` yields again for each rollup.
pub fn aggregate_each<B>(
    rollups: &[Arc<Rollup>],
    points: impl Fn() -> B,
    facts: &EpochFacts,
    partitions: usize,
) -> Aggregated
where
    B: IntoIterator<Item = RecordBatch, IntoIter: Send + 'static>,
{
    let plans: BTreeMap<_, _> =
        rollups.iter().map(|rollup| (rollup.name.clone(), rollup.fingerprint)).collect();
    let message = Partials { facts: facts.clone(), plans, states: vec![] };
    let mut messages = vec![message; partitions];
    let mut failures = Vec::new();
    for rollup in rollups {
        let (states, failed) = salvage(rollup, &points);
        failures.extend(failed);
        for states in states {
            match split(rollup, &states, partitions) {
                Ok(parts) => {
                    for (message, rows) in messages.iter_mut().zip(parts) {
                        if rows.num_rows() > 0 {
                            message.push(rollup, rows);
                        }
                    }
                }
                Err(error) => failures.push(failure_of(rollup, points(), &error)),
            }
        }
    }
    Aggregated { messages, failures }
}

/// The states of all points but those that an aggregate does not take, which are found by halving.
pub(crate) fn salvage<B>(rollup: &Rollup, points: impl Fn() -> B) -> (Vec<RecordBatch>, Vec<Failure>)
where
    B: IntoIterator<Item = RecordBatch, IntoIter: Send + 'static>,
{
    let mut lost = match rollup.partial(points()) {
        Ok((states, failed)) => return (vec![states], Vec::from_iter(failed.of(rollup))),
        Err(error) => failure_of(rollup, [], &error),
    };
    let (mut states, mut failed) = (Vec::new(), Failed::default());
    let mut todo: Vec<RecordBatch> = points().into_iter().collect();
    todo.reverse();
    let mut tries = 0;
    while let Some(part) = todo.pop() {
        let rows = part.num_rows();
        if tries == TRIES {
            lost.count += rows as u64;
            continue;
        }
        tries += 1;
        match rollup.partial([part.clone()]) {
            Ok((found, also_failed)) => {
                states.push(found);
                failed.add(also_failed);
            }
            Err(_) if rows > 1 => {
                todo.push(part.slice(rows / 2, rows - rows / 2));
                todo.push(part.slice(0, rows / 2));
            }
            Err(_) => lost.count += rows as u64,
        }
    }
    let failures = failed.of(rollup).into_iter().chain([lost]).filter(|failure| failure.count > 0);
    (states, failures.collect())
}

fn failure_of(rollup: &Rollup, points: impl IntoIterator<Item = RecordBatch>, error: &Error) -> Failure {
    let count = points.into_iter().map(|batch| batch.num_rows() as u64).sum();
    Failure { rollup: rollup.name.clone(), cause: Cause::Point, count, first: error.root() }
}

/// The states of each partition.
pub(crate) fn split(rollup: &Rollup, states: &RecordBatch, partitions: usize) -> Result<Vec<RecordBatch>> {
    if partitions == 1 {
        return Ok(vec![states.clone()]);
    }
    let keys = GroupKeys::new(rollup, states)?;
    let mut rows: Vec<Vec<u32>> = vec![Vec::new(); partitions];
    for (hash, index) in keys.hashes().zip(0u32..) {
        let partition = hash % partitions as u64;
        rows[partition as usize].push(index);
    }
    rows.into_iter().map(|rows| compact(&take_record_batch(states, &UInt32Array::from(rows))?)).collect()
}

/// Hashes groups by label names and values alone, in the order of the names: the same for all
/// rollups, versions and machines. A label that the group lacks does not count.
pub(crate) struct GroupKeys<'a> {
    tags: Vec<(&'a str, StringViewArray)>,
    rows: usize,
}

impl<'a> GroupKeys<'a> {
    pub(crate) fn new(rollup: &'a Rollup, states: &RecordBatch) -> Result<Self> {
        let mut tags = Vec::new();
        for (name, column) in rollup.tag_columns() {
            let values = cast(states.column(column), &DataType::Utf8View)?;
            tags.push((name, values.as_string_view().clone()));
        }
        tags.sort_by_key(|(name, _)| *name);
        Ok(Self { tags, rows: states.num_rows() })
    }

    /// Of each row.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = u64> + '_ {
        let mut key = Vec::with_capacity(64);
        (0..self.rows).map(move |row| {
            key.clear();
            for (name, values) in &self.tags {
                if values.is_valid(row) {
                    add_tag(&mut key, name, values.value(row));
                }
            }
            XxHash3_64::oneshot(&key)
        })
    }

    /// Of the group whose tags all read `text`.
    pub(crate) fn hash_of(rollup: &Rollup, text: &str) -> u64 {
        let mut names: Vec<&str> = rollup.tag_columns().map(|(name, _)| name).collect();
        names.sort_unstable();
        let mut key = Vec::new();
        for name in names {
            add_tag(&mut key, name, text);
        }
        XxHash3_64::oneshot(&key)
    }
}

fn add_tag(key: &mut Vec<u8>, name: &str, value: &str) {
    for part in [name.as_bytes(), value.as_bytes()] {
        key.extend_from_slice(&(part.len() as u32).to_le_bytes());
        key.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{ArrayRef, Float64Array, TimestampNanosecondArray};
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::sql::compile;

    #[test]
    fn a_point_that_an_operation_fails_on_has_no_value_and_costs_the_others_nothing() {
        let by_pattern = "CREATE MATERIALIZED VIEW by_pattern AS
            SELECT tumble(time, INTERVAL '1 minute') AS w, regexp_replace(name, labels['pattern'], '') AS found,
                   count(*) AS n
            FROM points GROUP BY 1, 2";
        let all = "CREATE MATERIALIZED VIEW everything AS
            SELECT tumble(time, INTERVAL '1 minute') AS w, count(*) AS n FROM points GROUP BY 1";
        let catalog = compile(&[("a.sql".into(), by_pattern.into()), ("b.sql".into(), all.into())]);
        assert_eq!(catalog.errors, []);

        let patterns = (0..1_000).map(|row| if row % 250 == 3 { "(" } else { "cpu" });
        let points = RecordBatch::try_new(
            points_schema(&catalog.labels),
            vec![
                Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n("cpu", 1_000))) as ArrayRef,
                Arc::new(TimestampNanosecondArray::from_iter_values(0..1_000)),
                Arc::new(Float64Array::from_iter_values(std::iter::repeat_n(1.0, 1_000))),
                Arc::new(StringViewArray::from_iter_values(patterns)),
            ],
        )
        .unwrap();
        let facts = EpochFacts {
            wall: 0,
            uptime: None,
            topics: BTreeMap::new(),
            partitions: Vec::new(),
            owner: None,
        };
        let aggregated = aggregate(&catalog.rollups, &[points], &facts, 4);

        let failures: Vec<_> =
            aggregated.failures.iter().map(|f| (f.rollup.as_str(), f.cause, f.count)).collect();
        assert_eq!(failures, [("by_pattern", Cause::Value, 4)]);
        for rollup in &catalog.rollups {
            let sections = aggregated.messages.iter().flat_map(|message| &message.states);
            let of_rollup = sections.filter(|section| section.rollup == rollup.name);
            let batches = of_rollup.flat_map(|section| &section.batches);
            let counts = batches.map(|states| {
                let counts = states.column(rollup.points_column()).as_primitive::<Int64Type>();
                arrow::compute::sum(counts).unwrap()
            });
            assert_eq!(counts.sum::<i64>(), 1_000, "{}", rollup.name);
        }
    }
}
