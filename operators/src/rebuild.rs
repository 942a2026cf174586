//! Windows that the stream has to leave out, and what is computed for them from raw points instead.
//!
//! States can be missing: the SQL file changed and another plan made them, another release wrote
//! the snapshot or a message, retention removed messages that nobody had read. What they belong to
//! is left out of the stream (see [`crate::gaps`]) and never given out as a fragment. When all
//! windows of a gap are final, and the archive holds every point that came for them, they are
//! computed from it by the same stages and in the same way as the stream does.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, TimestampNanosecondType};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::failure::Failure;
use crate::gaps::{Gap, Gaps};
use crate::overflow::Bounds;
use crate::partial::{salvage, split};
use crate::sql::{Rollup, Tier};
use crate::state::WindowStates;

/// Windows of one tier of a rollup, in one partition, that are left to be rebuilt.
#[derive(Debug, Clone)]
pub struct Rebuild {
    pub rollup: Arc<Rollup>,
    /// Which of the rollup's tiers.
    pub tier: usize,
    pub gap: Gap,
}

impl Rebuild {
    pub(crate) fn new(rollup: &Arc<Rollup>, tier: usize, gap: Gap) -> Self {
        Self { rollup: Arc::clone(rollup), tier, gap }
    }

    pub fn tier(&self) -> &Tier {
        &self.rollup.tiers()[self.tier]
    }

    /// The watermark at which all windows are final.
    pub fn due(&self) -> i64 {
        self.gap.end(&self.tier().windows).saturating_add(self.rollup.allowed_lateness)
    }
}

/// What a snapshot tells of a plan, to compare it with the one that reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) fingerprint: u64,
    pub(crate) results: u64,
    pub(crate) allowed_lateness: i64,
    pub(crate) fields: Vec<String>,
    /// What each tag and field is for stores, see [`kinds`].
    #[serde(default)]
    pub(crate) kinds: BTreeMap<String, String>,
    /// Open windows, in all tiers.
    pub(crate) windows: usize,
    /// What each tier lacks, by its name.
    pub(crate) tiers: BTreeMap<String, Gaps>,
}

impl Plan {
    /// The plan without anything of its state.
    pub(crate) fn of(rollup: &Rollup) -> Self {
        Self {
            fingerprint: rollup.fingerprint,
            results: rollup.results_fingerprint,
            allowed_lateness: rollup.allowed_lateness,
            fields: fields(rollup).map(str::to_owned).collect(),
            kinds: kinds(rollup).map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect(),
            windows: 0,
            tiers: BTreeMap::new(),
        }
    }

    pub(crate) fn has_fields_beyond(&self, rollup: &Rollup) -> bool {
        self.fields.iter().any(|field| !fields(rollup).any(|own| own == field))
    }

    /// Columns that are of another kind in `rollup`, which stores that have rows of this plan do
    /// not take, or cannot read together with those.
    pub(crate) fn retyped(&self, rollup: &Rollup) -> Vec<Retyped> {
        let other = |(column, now): (&str, &'static str)| {
            let before = self.kinds.get(column).filter(|before| *before != now)?;
            Some(Retyped { column: column.to_owned(), before: before.clone(), now })
        };
        kinds(rollup).filter_map(other).collect()
    }
}

/// A column that was of another kind in the plan of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retyped {
    pub column: String,
    pub before: String,
    pub now: &'static str,
}

/// Each tag and field of a rollup, and what it is in InfluxDB: `tag` or the type of a field.
fn kinds(rollup: &Rollup) -> impl Iterator<Item = (&str, &'static str)> {
    let tags = rollup.tag_columns().map(|(name, _)| (name, "tag"));
    let of_field = |column: &usize| {
        let field = rollup.schema.field(*column);
        let kind = match field.data_type() {
            DataType::Boolean => "boolean",
            data_type if data_type.is_unsigned_integer() => "unsigned integer",
            data_type if data_type.is_integer() => "integer",
            data_type if data_type.is_floating() || data_type.is_decimal() => "float",
            DataType::Timestamp(..) => "time",
            _ => "string",
        };
        (field.name().as_str(), kind)
    };
    tags.chain(rollup.shape.fields.iter().map(of_field))
}

fn fields(rollup: &Rollup) -> impl Iterator<Item = &str> {
    rollup.shape.fields.iter().map(|column| rollup.schema.field(*column).name().as_str())
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
        /// Tiers that start over, as the snapshot does not have them.
        new_tiers: Vec<String>,
    },
    /// The states of this many windows are of another plan or format and left out.
    StartsOver { windows: usize },
    /// The snapshot does not know the rollup.
    New,
    /// The rollup is no more, and so are the states of this many windows.
    Removed { windows: usize },
}

/// Computes windows of one tier from raw points, for some partitions of the partials topic at once.
#[derive(Debug)]
pub struct Rebuilder {
    rollup: Arc<Rollup>,
    tier: usize,
    wanted: BTreeMap<i32, Wanted>,
    failures: Vec<Failure>,
}

#[derive(Debug)]
struct Wanted {
    gap: Gap,
    bounds: Bounds,
    windows: WindowStates,
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
    /// `wanted` are the gaps to be filled, by partition, with its bounds. Groups beyond the series
    /// limit overflow as in the stream; memory is that of the windows between two calls of
    /// [`Self::take`].
    pub fn new(rollup: &Arc<Rollup>, tier: usize, wanted: BTreeMap<i32, (Gap, Bounds)>) -> Self {
        let wanted = wanted.into_iter().map(|(partition, (gap, bounds))| {
            let windows = empty(rollup, tier, &bounds);
            (partition, Wanted { gap, bounds, windows })
        });
        Self { rollup: Arc::clone(rollup), tier, wanted: wanted.collect(), failures: Vec::new() }
    }

    /// Takes in points, in the schema of [`crate::partial::points_schema`]. What fails costs as
    /// much as in the stream, see [`Self::take_failures`].
    ///
    /// # Errors
    /// When states cannot be merged.
    pub fn push(&mut self, points: &[RecordBatch]) -> Result<()> {
        let partitions = self.wanted.values().next().map_or(1, |wanted| wanted.bounds.partitions);
        let (states, failures) = salvage(&self.rollup, || points.to_vec());
        self.failures.extend(failures);
        for states in states {
            for (partition, part) in (0..).zip(split(&self.rollup, &states, partitions)?) {
                let Some(Wanted { windows, .. }) = self.wanted.get_mut(&partition) else { continue };
                for pane in windows.by_pane(&part)? {
                    windows.absorb(pane, None, false)?;
                }
            }
        }
        Ok(())
    }

    /// Gives out the windows that start from `from` up to, without, `to`, and forgets everything
    /// that was pushed: all points of these windows must have been.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn take(&mut self, from: i64, to: i64) -> Result<Vec<Rebuilt>> {
        let mut rebuilt = Vec::new();
        let tier = &self.rollup.tiers()[self.tier];
        for (partition, Wanted { gap, bounds, windows }) in &mut self.wanted {
            let mut states = std::mem::replace(windows, empty(&self.rollup, self.tier, bounds));
            let whole = states.whole(from.max(gap.from), to.min(gap.to))?;
            self.failures.extend(states.take_failures());
            let Some(whole) = whole else { continue };
            let mut withdrawn = Vec::from_iter(whole.withdrawn);
            if gap.other_fields {
                withdrawn.push(whole.rows.clone());
            }
            let withdrawn = concat_batches(&self.rollup.schema, &withdrawn)?;
            let withdrawn = filter_record_batch(&withdrawn, &written(&self.rollup, tier, gap, &withdrawn))?;
            let withdrawn = Some(withdrawn).filter(|rows| rows.num_rows() > 0);
            rebuilt.push(Rebuilt { partition: *partition, rows: whole.rows, withdrawn });
        }
        Ok(rebuilt)
    }

    /// What has failed since the last call.
    pub fn take_failures(&mut self) -> Vec<Failure> {
        std::mem::take(&mut self.failures)
    }
}

fn empty(rollup: &Arc<Rollup>, tier: usize, bounds: &Bounds) -> WindowStates {
    let tier = &rollup.tiers()[tier];
    let mut windows = WindowStates::new(Arc::clone(rollup), tier);
    windows.bound(tier, bounds);
    windows
}

/// Which rows are of windows that may have been given out before.
fn written(rollup: &Rollup, tier: &Tier, gap: &Gap, rows: &RecordBatch) -> BooleanArray {
    let starts = rows.column(rollup.shape.time).as_primitive::<TimestampNanosecondType>();
    let is_written = |start: &i64| gap.written.is_some_and(|until| tier.windows.end(*start) <= until);
    starts.values().iter().map(|start| Some(is_written(start))).collect()
}

#[cfg(test)]
#[path = "rebuild_tests.rs"]
mod tests;
