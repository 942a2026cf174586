//! What late points make of closed windows.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::row::OwnedRow;

use super::{WindowStates, oldest_first};
use crate::error::Result;
use crate::keys::Keys;
use crate::sql::Rollup;

/// A corrected window's rows, and the keys of those that are no more, or that lack a field which
/// the version before had: a store that unites fields would keep it.
#[derive(Debug)]
pub(crate) struct Corrected {
    pub(crate) rows: RecordBatch,
    pub(crate) withdrawn: Option<RecordBatch>,
}

impl WindowStates {
    /// Results, as they are now, of the groups in closed windows that states have come for since
    /// the last call.
    pub(crate) fn correct(&mut self) -> Result<Option<Corrected>> {
        let corrected = self.compare(true);
        for pane in self.panes.values_mut().filter(|pane| pane.touching > 0) {
            pane.touching = 0;
            pane.merge_if_due(&self.rollup)?;
        }
        corrected
    }

    /// `knows_before`: the version before is that of the states which are not [`Pane::touching`];
    /// otherwise any may have been.
    fn compare(&mut self, knows_before: bool) -> Result<Option<Corrected>> {
        let touched = std::mem::take(&mut self.touched);
        if touched.is_empty() {
            return Ok(None);
        }
        let rollup = Arc::clone(&self.rollup);
        let keys = Keys::new(&rollup)?;
        let (mut lost, rows) = self.results_of(&keys, &touched, |_| true)?;
        for key in keys.of_results(&rows)? {
            lost.remove(&key);
        }
        let incomplete = filter_record_batch(&rows, &lacks_a_field(&self.rollup, &rows))?;
        let withdrawn = match knows_before {
            true => self.taken_back(&keys, lost, &incomplete)?,
            false => {
                lost.extend(keys.of_results(&incomplete)?);
                lost
            }
        };
        let withdrawn = match withdrawn.is_empty() {
            true => None,
            false => Some(oldest_first(&self.rollup, &keys.to_results(&withdrawn)?)?),
        };
        Ok(Some(Corrected { rows, withdrawn }))
    }

    /// The keys among those that are lost whose row was there before, and those of incomplete rows
    /// that lack a field which was there.
    fn taken_back(
        &mut self,
        keys: &Keys<'_>,
        lost: HashSet<OwnedRow>,
        incomplete: &RecordBatch,
    ) -> Result<HashSet<OwnedRow>> {
        let mut now: HashMap<OwnedRow, Option<usize>> = lost.into_iter().map(|key| (key, None)).collect();
        now.extend(keys.of_results(incomplete)?.into_iter().zip((0..).map(Some)));
        if now.is_empty() {
            return Ok(HashSet::new());
        }
        let mut states = Vec::new();
        // Panes that nothing has touched hold none of these keys' windows.
        let touched: Vec<i64> =
            self.panes.iter().filter(|(_, pane)| pane.touching > 0).map(|(start, _)| *start).collect();
        let starts: BTreeSet<i64> = touched.iter().flat_map(|pane| self.windows.holding(*pane)).collect();
        for start in starts {
            for (_, pane) in self.panes.range(start..self.windows.end(start)) {
                for batch in &pane.batches[..pane.batches.len() - pane.touching] {
                    let batch = self.in_window(batch, start)?;
                    let mask: BooleanArray =
                        keys.of_states(&batch)?.iter().map(|key| Some(now.contains_key(key))).collect();
                    states.push(filter_record_batch(&batch, &mask)?);
                }
            }
        }
        // What failed then was counted then.
        let failures = self.take_failures();
        let before = self.finish(states);
        self.failures = failures;
        let before = before?;
        let had = |row: usize, now: &usize| {
            let mut fields = self.rollup.shape.fields.iter();
            fields.any(|column| {
                before.column(*column).is_valid(row) && incomplete.column(*column).is_null(*now)
            })
        };
        let mut taken_back = HashSet::new();
        for (row, key) in keys.of_results(&before)?.into_iter().enumerate() {
            if now.get(&key).is_some_and(|now| now.as_ref().is_none_or(|now| had(row, now))) {
                taken_back.insert(key);
            }
        }
        Ok(taken_back)
    }

    /// Results of all windows that start from `from` up to, without, `to`, as a correction of every
    /// group gives them.
    pub(crate) fn whole(&mut self, from: i64, to: i64) -> Result<Option<Corrected>> {
        let holding = self.panes.keys().flat_map(|pane| self.windows.holding(*pane));
        let starts: BTreeSet<i64> = holding.filter(|start| (from..to).contains(start)).collect();
        for start in starts {
            let states = self.states_of(start)?;
            self.touched.extend(states);
        }
        self.compare(false)
    }
}

/// Which rows have a field that is null, and so is not stored.
fn lacks_a_field(rollup: &Rollup, rows: &RecordBatch) -> BooleanArray {
    let lacks = |row: usize| rollup.shape.fields.iter().any(|column| rows.column(*column).is_null(row));
    (0..rows.num_rows()).map(|row| Some(lacks(row))).collect()
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;

    use crate::fold::{Applied, Fold};
    use crate::testing::{OPTIONS, message, rollup};

    /// Hosts of the rows that are taken back.
    fn withdrawn(applied: &Applied) -> Vec<String> {
        let withdrawn = applied.results.iter().filter_map(|results| results.withdrawn.as_ref());
        let hosts =
            withdrawn.flat_map(|rows| rows.column(1).as_string_view().iter().flatten().map(str::to_owned));
        hosts.collect()
    }

    #[test]
    fn only_what_was_there_is_taken_back() {
        let sql = "CREATE MATERIALIZED VIEW r AS SELECT tumble(time, INTERVAL '1 minute') AS w, labels['host'] AS host,
                   count(*) AS n, max(value) FILTER (WHERE value > 100) AS high,
                   CASE WHEN max(value) < 50 THEN max(value) END AS low
                   FROM points GROUP BY 1, 2 HAVING min(value) > 0";
        let rollups = [rollup(sql)];
        let mut fold = Fold::new(&rollups, OPTIONS);
        fold.apply(&message(
            &rollups,
            &[("plain", 1, 60.0), ("low", 2, 10.0), ("out", 3, 60.0), ("never", 4, -1.0)],
        ));
        fold.apply(&message(&rollups, &[("plain", 90, 60.0)]));
        // None has `high`, before and after: nothing is to be erased. Nor is a row that HAVING has
        // always refused.
        let applied =
            fold.apply(&message(&rollups, &[("plain", 5, 70.0), ("never", 6, 70.0), ("new", 7, 60.0)]));
        assert_eq!(withdrawn(&applied), [""; 0]);
        // One loses a field, one its row.
        let applied =
            fold.apply(&message(&rollups, &[("low", 8, 60.0), ("out", 9, -1.0), ("plain", 10, 70.0)]));
        assert_eq!(withdrawn(&applied), ["low", "out"]);
        let applied = fold.apply(&message(&rollups, &[("low", 8, 60.0), ("out", 9, 1.0)]));
        assert_eq!(withdrawn(&applied), [""; 0], "they are gone already");
    }
}
