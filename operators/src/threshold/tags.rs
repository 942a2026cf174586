//! The groups that rows belong to.

use arrow::array::{Array, ArrayRef};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::fmt::Write as _;

/// The groups that the rows of a batch belong to.
pub(super) struct Tags<'a> {
    columns: Vec<(ArrayFormatter<'a>, &'a ArrayRef)>,
    /// Of the row that was asked for last.
    pub(super) values: Vec<String>,
    key: Vec<u8>,
}

impl<'a> Tags<'a> {
    /// `tags`: column and name of each.
    pub(super) fn new(rows: &'a RecordBatch, tags: &[(usize, String)]) -> Result<Self, String> {
        const OPTIONS: FormatOptions<'static> = FormatOptions::new();
        let mut columns = Vec::new();
        for (column, name) in tags {
            let column =
                rows.columns().get(*column).ok_or_else(|| format!("the rows lack the tag `{name}`"))?;
            let formatter =
                ArrayFormatter::try_new(column.as_ref(), &OPTIONS).map_err(|error| error.to_string())?;
            columns.push((formatter, column));
        }
        let values = vec![String::new(); columns.len()];
        Ok(Self { columns, values, key: Vec::new() })
    }

    /// The key of a row's group. Its tags are in `values` until the next call.
    pub(super) fn key(&mut self, row: usize) -> &[u8] {
        self.key.clear();
        for ((formatter, column), value) in self.columns.iter().zip(&mut self.values) {
            value.clear();
            if column.is_valid(row) {
                let _ = write!(value, "{}", formatter.value(row));
            }
            push_key(&mut self.key, value);
        }
        &self.key
    }
}

pub(super) fn group_key(tags: &[String]) -> Vec<u8> {
    let mut key = Vec::new();
    for tag in tags {
        push_key(&mut key, tag);
    }
    key
}

fn push_key(key: &mut Vec<u8>, tag: &str) {
    key.extend_from_slice(&(tag.len() as u64).to_le_bytes());
    key.extend_from_slice(tag.as_bytes());
}
