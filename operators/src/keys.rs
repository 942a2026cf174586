//! What tells the rows of a rollup apart, in a form that compares across states and results.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::row::{OwnedRow, RowConverter, SortField};

use crate::error::Result;
use crate::sql::Rollup;

/// The identity of a row: its window and tags.
pub(crate) struct Keys<'a> {
    rollup: &'a Rollup,
    converter: RowConverter,
    /// Group column and result column of the window and of each tag.
    columns: Vec<(usize, usize)>,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(rollup: &'a Rollup) -> Result<Self> {
        let columns = rollup.key_columns();
        let fields = columns
            .iter()
            .map(|(_, result)| SortField::new(rollup.schema.field(*result).data_type().clone()))
            .collect();
        Ok(Self { rollup, converter: RowConverter::new(fields)?, columns })
    }

    pub(crate) fn of_states(&self, states: &RecordBatch) -> Result<Vec<OwnedRow>> {
        self.of(self.columns.iter().map(|(group, _)| states.column(*group)))
    }

    pub(crate) fn of_results(&self, results: &RecordBatch) -> Result<Vec<OwnedRow>> {
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

    /// The keys as result rows whose fields are null, in the same order every time.
    pub(crate) fn to_results(&self, keys: &HashSet<OwnedRow>) -> Result<RecordBatch> {
        let mut keys: Vec<&OwnedRow> = keys.iter().collect();
        keys.sort_unstable();
        let arrays = self.converter.convert_rows(keys.iter().map(|key| key.row()))?;
        let schema = &self.rollup.schema;
        let mut columns: Vec<ArrayRef> =
            schema.fields().iter().map(|field| new_null_array(field.data_type(), keys.len())).collect();
        for (array, (_, result)) in arrays.into_iter().zip(&self.columns) {
            columns[*result] = array;
        }
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }
}
