//! What a planned rollup computes: points to states, states to fewer states, states to rows.
//!
//! Operations are total, so what can fail is an aggregate: on points, which are left out then (see
//! [`crate::partial`]), or on the states of a group, which costs that group.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;

use super::by_group::apart;
use super::rollup::Rollup;
use super::total::Failed;
use crate::error::{Error, Result};
use crate::failure::{Cause, Failure};
use crate::keys::Keys;

/// States that were merged.
#[derive(Debug)]
pub(crate) struct Reduced {
    /// One row a group and window.
    pub(crate) merged: RecordBatch,
    /// States that an aggregate cannot merge, as they were.
    pub(crate) left: Vec<RecordBatch>,
}

/// Results of states.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) rows: RecordBatch,
    /// Keys, with null fields, of the groups that have no row because an aggregate failed.
    pub(crate) lost: RecordBatch,
    pub(crate) failures: Vec<Failure>,
}

impl Rollup {
    /// Points to states. Input: `name`, `time`, `value`, then a column per label of the catalog.
    /// Operations that fail on a point give null for it, and are counted.
    ///
    /// # Errors
    /// When an aggregate does not take a point.
    pub(crate) fn partial<B>(&self, points: B) -> Result<(RecordBatch, Failed)>
    where
        B: IntoIterator<Item = RecordBatch, IntoIter: Send + 'static>,
    {
        self.stages.partial.run(points, &self.context).map_err(Error::compute(&self.name))
    }

    /// States to fewer states.
    ///
    /// # Errors
    /// When they are not states of this rollup.
    #[expect(clippy::needless_pass_by_value, reason = "states are gathered for this call")]
    pub(crate) fn reduce(&self, states: Vec<RecordBatch>) -> Result<Reduced> {
        if let Ok(merged) = self.reduce_whole(states.clone()) {
            return Ok(Reduced { merged, left: Vec::new() });
        }
        let parts = apart(&Keys::new(self)?, &states, |states| self.reduce_whole(states))?;
        Ok(Reduced { merged: concat_batches(&self.stages.reduce.schema(), &parts.done)?, left: parts.failed })
    }

    /// States to results with the columns of `schema`, without the rows that HAVING refuses.
    ///
    /// # Errors
    /// When they are not states of this rollup.
    #[expect(clippy::needless_pass_by_value, reason = "states are gathered for this call")]
    pub(crate) fn finish(&self, states: Vec<RecordBatch>) -> Result<Finished> {
        let none = RecordBatch::new_empty(Arc::clone(&self.schema));
        let error = match self.finish_whole(states.clone()) {
            Ok((rows, failed)) => {
                return Ok(Finished { rows, lost: none, failures: Vec::from_iter(failed.of(self)) });
            }
            Err(error) => error,
        };
        let keys = Keys::new(self)?;
        let parts = apart(&keys, &states, |states| self.finish_whole(states))?;
        let mut failed = Failed::default();
        let mut rows = Vec::new();
        for (part, also_failed) in parts.done {
            rows.push(part);
            failed.add(also_failed);
        }
        let mut lost = HashSet::new();
        for states in &parts.failed {
            lost.extend(keys.of_states(states)?);
        }
        let group = Failure {
            rollup: self.name.clone(),
            cause: Cause::Group,
            count: parts.groups,
            first: error.root(),
        };
        Ok(Finished {
            rows: concat_batches(&self.schema, &rows)?,
            lost: keys.to_results(&lost)?,
            failures: failed
                .of(self)
                .into_iter()
                .chain([group])
                .filter(|failure| failure.count > 0)
                .collect(),
        })
    }

    fn reduce_whole(&self, states: Vec<RecordBatch>) -> Result<RecordBatch> {
        let reduced = self.stages.reduce.run(states, &self.context);
        Ok(reduced.map_err(Error::compute(&self.name))?.0)
    }

    fn finish_whole(&self, states: Vec<RecordBatch>) -> Result<(RecordBatch, Failed)> {
        let finished = self.stages.finish.run(states, &self.context);
        let (results, failed) = finished.map_err(Error::compute(&self.name))?;
        let columns = results.columns()[..self.schema.fields().len()].to_vec();
        Ok((RecordBatch::try_new(Arc::clone(&self.schema), columns)?, failed))
    }
}

impl Failed {
    /// Operations of a rollup that gave null for some rows, if any did.
    pub(crate) fn of(self, rollup: &Rollup) -> Option<Failure> {
        let (count, first) = (self.rows, self.first?);
        (count > 0).then(|| Failure { rollup: rollup.name.clone(), cause: Cause::Value, count, first })
    }
}
