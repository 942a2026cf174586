//! Windows that the stream cannot give whole, and what is computed for them from raw points instead.
//!
//! States can be missing: the SQL file changed and another plan made them, another release wrote the snapshot or a
//! message, retention removed messages that nobody had read. Every window that they may belong to is then left out
//! of the stream, never given out as a fragment. No point behind what is missing is newer than the highest event time
//! known by then, which is in the log, so these are the windows from the oldest that was not final to the one that
//! holds that time. When all of them are final, and the archive holds every point that came for them, they are
//! computed from it by the same stages and in the same way as the stream does.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::TimestampNanosecondType;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::partial::split;
use crate::sql::Rollup;
use crate::state::{WindowStates, by_window};

/// Windows of one rollup, in one partition, that are left to be rebuilt. All times are nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuild {
    pub rollup: String,
    /// Start of the first window; `i64::MIN` when there is no oldest one, as nothing was final yet.
    pub from: i64,
    /// End of the last window: the stream's own results begin here.
    pub to: i64,
    /// Windows that end by then may have been written, whole, from the states that are missing now.
    pub written: Option<i64>,
    /// What was written may have fields that the rollup no longer has.
    pub other_fields: bool,
}

impl Rebuild {
    fn is_same(&self, other: &Self) -> bool {
        (&self.rollup, self.from, self.to) == (&other.rollup, other.from, other.to)
    }

    /// Whether all windows of `other` are among these.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        self.rollup == other.rollup && self.from <= other.from && other.to <= self.to
    }
}

/// What a snapshot tells of a plan, to compare it with the one that reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    fingerprint: u64,
    results: u64,
    allowed_lateness: i64,
    fields: Vec<String>,
    /// Windows in the state.
    windows: usize,
}

impl Plan {
    pub(crate) fn of(rollup: &Rollup, windows: usize) -> Self {
        Self {
            fingerprint: rollup.fingerprint,
            results: rollup.results_fingerprint,
            allowed_lateness: rollup.allowed_lateness,
            fields: fields(rollup).map(str::to_owned).collect(),
            windows,
        }
    }

    pub(crate) fn windows(&self) -> usize {
        self.windows
    }

    pub(crate) fn made_states_of(&self, rollup: &Rollup) -> bool {
        self.fingerprint == rollup.fingerprint
    }

    fn has_fields_beyond(&self, rollup: &Rollup) -> bool {
        self.fields.iter().any(|field| !fields(rollup).any(|own| own == field))
    }
}

/// What became of a rollup's state when a snapshot was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The states go on.
    Kept {
        /// The lateness before, when it is another one now.
        lateness_before: Option<i64>,
        /// Whether HAVING or the columns computed from the aggregates are others now.
        other_results: bool,
    },
    /// The states of this many windows are of another plan or format and left out.
    Anew { windows: usize, rebuild: Option<Rebuild> },
    /// The snapshot does not know the rollup.
    New { rebuild: Option<Rebuild> },
    /// The rollup is no more, and so are the states of this many windows.
    Removed { windows: usize },
}

/// What the states of a fold lack. Part of its snapshot.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Gaps {
    /// Those of a rollup do not overlap.
    rebuilds: Vec<Rebuild>,
    /// Windows that start before this are final, by rollup: their states were forgotten before the lateness grew.
    forgotten: BTreeMap<String, i64>,
}

impl Gaps {
    /// Whether a window takes nothing in any more.
    pub(crate) fn is_final(&self, rollup: &Rollup, start: i64, end: i64, watermark: Option<i64>) -> bool {
        let forgotten = self.forgotten.get(&rollup.name).is_some_and(|before| start < *before);
        forgotten || watermark.is_some_and(|at| end.saturating_add(rollup.allowed_lateness) <= at)
    }

    /// Whether a window is left out of the stream.
    pub(crate) fn hold(&self, rollup: &Rollup, start: i64) -> bool {
        self.of(rollup).any(|rebuild| (rebuild.from..rebuild.to).contains(&start))
    }

    /// Takes in that states behind points up to `newest` are missing. Returns the windows that are to be rebuilt
    /// because of that; none when all that can be concerned were final at `watermark`.
    pub(crate) fn add(
        &mut self,
        rollup: &Rollup,
        watermark: Option<i64>,
        newest: i64,
    ) -> Option<&mut Rebuild> {
        let from = watermark.map_or(i64::MIN, |at| first_open(rollup, at));
        let from = self.forgotten.get(&rollup.name).map_or(from, |before| from.max(*before));
        let to = rollup.windows.end(rollup.windows.start(newest));
        if to <= from {
            return None;
        }
        let mut whole =
            Rebuild { rollup: rollup.name.clone(), from, to, written: watermark, other_fields: false };
        self.rebuilds.retain(|old| {
            let overlaps = old.rollup == rollup.name && old.to > from && old.from < to;
            if overlaps {
                whole.from = whole.from.min(old.from);
                whole.to = whole.to.max(old.to);
                whole.written = whole.written.max(old.written);
                whole.other_fields |= old.other_fields;
            }
            !overlaps
        });
        self.rebuilds.push(whole);
        self.rebuilds.last_mut()
    }

    /// Compares the plan of a snapshot with the one that reads it, and takes in what is missing. `newest` is the highest
    /// event time that the snapshot knows.
    pub(crate) fn compare(
        &mut self,
        rollup: &Rollup,
        plan: Option<&Plan>,
        watermark: Option<i64>,
        newest: Option<i64>,
    ) -> Change {
        if let Some(plan) = plan.filter(|plan| plan.made_states_of(rollup)) {
            let before = plan.allowed_lateness;
            if let Some(at) = watermark.filter(|_| before < rollup.allowed_lateness) {
                let kept = rollup.windows.start(at.saturating_sub(before));
                let forgotten = self.forgotten.entry(rollup.name.clone()).or_insert(kept);
                *forgotten = kept.max(*forgotten);
            }
            return Change::Kept {
                lateness_before: Some(before).filter(|before| *before != rollup.allowed_lateness),
                other_results: plan.results != rollup.results_fingerprint,
            };
        }
        self.forgotten.remove(&rollup.name);
        let rebuild = newest.and_then(|newest| self.add(rollup, watermark, newest));
        match plan {
            Some(plan) => {
                let rebuild = rebuild.map(|rebuild| {
                    rebuild.other_fields |= plan.has_fields_beyond(rollup);
                    rebuild.clone()
                });
                Change::Anew { windows: plan.windows, rebuild }
            }
            None => Change::New { rebuild: rebuild.cloned() },
        }
    }

    /// Windows that end by `watermark` may have been written by whoever had the states that are missing here.
    pub(crate) fn may_be_written(&mut self, rollup: &Rollup, watermark: Option<i64>) {
        if let Some(newest) = self.rebuilds.iter_mut().rev().find(|rebuild| rebuild.rollup == rollup.name) {
            newest.written = newest.written.max(watermark);
        }
    }

    /// Rebuilds whose windows are all final at `watermark`: no more points will come for them.
    pub(crate) fn due<'a>(
        &'a self,
        rollup: &'a Rollup,
        watermark: Option<i64>,
    ) -> impl Iterator<Item = &'a Rebuild> {
        let last = watermark.map_or(i64::MIN, |at| first_open(rollup, at));
        self.of(rollup).filter(move |rebuild| rebuild.to <= last)
    }

    pub(crate) fn all(&self) -> &[Rebuild] {
        &self.rebuilds
    }

    /// The windows have been rebuilt, or are given up. Changes nothing in the stream: they were final.
    pub(crate) fn remove(&mut self, done: &Rebuild) {
        self.rebuilds.retain(|rebuild| !rebuild.is_same(done));
    }

    /// Forgets the rollups that are no more.
    pub(crate) fn keep_only(&mut self, rollups: &[Arc<Rollup>]) {
        let is_known = |name: &str| rollups.iter().any(|rollup| rollup.name == name);
        self.rebuilds.retain(|rebuild| is_known(&rebuild.rollup));
        self.forgotten.retain(|name, _| is_known(name));
    }

    fn of(&self, rollup: &Rollup) -> impl Iterator<Item = &Rebuild> {
        self.rebuilds.iter().filter(|rebuild| rebuild.rollup == rollup.name)
    }
}

/// Start of the oldest window that is not final at `watermark`.
fn first_open(rollup: &Rollup, watermark: i64) -> i64 {
    rollup.windows.start(watermark.saturating_sub(rollup.allowed_lateness))
}

fn fields(rollup: &Rollup) -> impl Iterator<Item = &str> {
    rollup.shape.fields.iter().map(|column| rollup.schema.field(*column).name().as_str())
}

/// Computes windows from raw points, for some partitions of the partials topic at once.
#[derive(Debug)]
pub struct Rebuilder {
    rollup: Arc<Rollup>,
    /// All partitions of the topic.
    partitions: usize,
    wanted: BTreeMap<i32, (Rebuild, WindowStates)>,
}

/// Whole windows of one partition, to be written over what may be there.
#[derive(Debug)]
pub struct Rebuilt {
    pub partition: i32,
    /// Columns of the rollup's results, oldest window first.
    pub rows: RecordBatch,
    /// Keys of rows to remove before, as in [`crate::fold::Results::withdrawn`].
    pub withdrawn: Option<RecordBatch>,
}

impl Rebuilder {
    /// `wanted` are the windows to be rebuilt, by partition.
    pub fn new(rollup: &Arc<Rollup>, wanted: BTreeMap<i32, Rebuild>, partitions: usize) -> Self {
        let states = |rebuild| (rebuild, WindowStates::new(Arc::clone(rollup)));
        Self {
            rollup: Arc::clone(rollup),
            partitions,
            wanted: wanted.into_iter().map(|(partition, rebuild)| (partition, states(rebuild))).collect(),
        }
    }

    /// Takes in points, in the schema of [`crate::partial::points_schema`].
    ///
    /// # Errors
    /// When the rollup cannot be computed on them.
    pub fn push(&mut self, points: Vec<RecordBatch>) -> Result<()> {
        let states = self.rollup.partial(points)?;
        for (partition, part) in (0..).zip(split(&self.rollup, &states, self.partitions)?) {
            let Some((rebuild, windows)) = self.wanted.get_mut(&partition) else { continue };
            for rows in by_window(&self.rollup, &part)? {
                if (rebuild.from..rebuild.to).contains(&rows.start) {
                    windows.absorb(rows)?;
                }
            }
        }
        Ok(())
    }

    /// Everything that was pushed since the last call: call it between two windows.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn take(&mut self) -> Result<Vec<Rebuilt>> {
        let mut rebuilt = Vec::new();
        for (partition, (rebuild, windows)) in &mut self.wanted {
            let whole = std::mem::replace(windows, WindowStates::new(Arc::clone(&self.rollup))).all()?;
            let mut withdrawn = Vec::from_iter(whole.withdrawn);
            if rebuild.other_fields {
                withdrawn.push(whole.rows.clone());
            }
            let withdrawn = concat_batches(&self.rollup.schema, &withdrawn)?;
            let withdrawn = filter_record_batch(&withdrawn, &written(&self.rollup, rebuild, &withdrawn))?;
            let withdrawn = Some(withdrawn).filter(|rows| rows.num_rows() > 0);
            rebuilt.push(Rebuilt { partition: *partition, rows: whole.rows, withdrawn });
        }
        Ok(rebuilt)
    }
}

/// Which rows are of windows that may have been written before.
fn written(rollup: &Rollup, rebuild: &Rebuild, rows: &RecordBatch) -> BooleanArray {
    let starts = rows.column(rollup.shape.time).as_primitive::<TimestampNanosecondType>();
    let is_written = |start: &i64| rebuild.written.is_some_and(|until| rollup.windows.end(*start) <= until);
    starts.values().iter().map(|start| Some(is_written(start))).collect()
}

#[cfg(test)]
#[path = "rebuild_tests.rs"]
mod tests;
