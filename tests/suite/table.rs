//! Results as text: rows by their identity, compared with a tolerance for floats.

use std::collections::BTreeMap;
use std::fmt::Write;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use operators::sql::Rollup;

/// How a null is written.
const NULL: &str = "∅";
/// Sums depend on the order of addition.
const TOLERANCE: f64 = 1e-9;

/// Rows of one rollup. The window's start and the tags come first, then the fields, each in the
/// order of the SELECT.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Table {
    pub(crate) header: Vec<String>,
    /// How many leading columns are the row's identity.
    pub(crate) keys: usize,
    pub(crate) rows: BTreeMap<Vec<String>, Vec<String>>,
}

/// Exact limits between which an approximate field must lie: tables with `<field>_low` and
/// `<field>_high`.
pub(crate) type Bounds = Table;

impl Table {
    /// An empty table for the results of `rollup`.
    pub(crate) fn new(rollup: &Rollup) -> Self {
        let header = columns(rollup).map(|column| rollup.schema.field(column).name().clone()).collect();
        Self { header, keys: 1 + rollup.shape.tags.len(), rows: BTreeMap::new() }
    }

    /// Writes rows, over those of the same identity.
    pub(crate) fn write(&mut self, rollup: &Rollup, rows: &RecordBatch) {
        for (key, fields) in cells(rollup, rows, self.keys) {
            self.rows.insert(key, fields);
        }
    }

    /// Removes the rows with these identities.
    pub(crate) fn withdraw(&mut self, rollup: &Rollup, rows: &RecordBatch) {
        for (key, _) in cells(rollup, rows, self.keys) {
            self.rows.remove(&key);
        }
    }

    /// The table of a batch whose first `keys` columns are the identity.
    pub(crate) fn of_batch(batch: &RecordBatch, keys: usize) -> Self {
        let header = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
        let rows = rows_of(batch, 0..batch.num_columns(), keys).into_iter().collect();
        Self { header, keys, rows }
    }

    pub(crate) fn to_csv(&self) -> String {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(&self.header).unwrap();
        for (key, fields) in &self.rows {
            writer.write_record(key.iter().chain(fields)).unwrap();
        }
        String::from_utf8(writer.into_inner().unwrap()).unwrap()
    }

    pub(crate) fn from_csv(text: &str, keys: usize) -> Self {
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let owned = |record: &csv::StringRecord| record.iter().map(str::to_owned).collect::<Vec<_>>();
        let header = owned(reader.headers().unwrap());
        let mut rows = BTreeMap::new();
        for record in reader.records() {
            let mut key = owned(&record.unwrap());
            let fields = key.split_off(keys);
            rows.insert(key, fields);
        }
        Self { header, keys, rows }
    }

    /// What `other` has otherwise, in words; empty when it has the same rows. Fields that `bounds`
    /// limits are compared with their limits only.
    pub(crate) fn differences(&self, other: &Self, bounds: Option<&Bounds>) -> String {
        let mut text = String::new();
        if self.header != other.header {
            let _ = writeln!(text, "columns {:?}, not {:?}", other.header, self.header);
            return text;
        }
        for (key, fields) in &self.rows {
            let Some(found) = other.rows.get(key) else {
                let _ = writeln!(text, "{key:?}: no row, instead of {fields:?}");
                continue;
            };
            for ((name, expected), found) in self.header[self.keys..].iter().zip(fields).zip(found) {
                let limits = bounds.and_then(|bounds| bounds.limits(key, name));
                match limits {
                    Some((low, high)) if within(found, &low, &high) => {}
                    Some((low, high)) => {
                        let _ = writeln!(text, "{key:?}: {name} is {found}, not within {low} to {high}");
                    }
                    None if close(expected, found) => {}
                    None => {
                        let _ = writeln!(text, "{key:?}: {name} is {found}, not {expected}");
                    }
                }
            }
        }
        for key in other.rows.keys().filter(|key| !self.rows.contains_key(*key)) {
            let _ = writeln!(text, "{key:?}: a row too many, {:?}", other.rows[key]);
        }
        text
    }

    /// Low and high limit of a field, when there are any.
    fn limits(&self, key: &[String], field: &str) -> Option<(String, String)> {
        let limit = |name: String| {
            let column = self.header.iter().position(|other| *other == name)?;
            Some(self.rows.get(key)?[column - self.keys].clone())
        };
        Some((limit(format!("{field}_low"))?, limit(format!("{field}_high"))?))
    }
}

/// Columns of a result: time, tags, fields.
fn columns(rollup: &Rollup) -> impl Iterator<Item = usize> + '_ {
    let shape = &rollup.shape;
    std::iter::once(shape.time).chain(shape.tags.iter().copied()).chain(shape.fields.iter().copied())
}

fn cells(rollup: &Rollup, rows: &RecordBatch, keys: usize) -> Vec<(Vec<String>, Vec<String>)> {
    rows_of(rows, columns(rollup), keys)
}

fn rows_of(
    batch: &RecordBatch,
    columns: impl Iterator<Item = usize>,
    keys: usize,
) -> Vec<(Vec<String>, Vec<String>)> {
    let options = FormatOptions::new().with_null(NULL);
    let formatters: Vec<_> = columns
        .map(|column| ArrayFormatter::try_new(batch.column(column).as_ref(), &options).unwrap())
        .collect();
    let row = |row: usize| {
        let mut key: Vec<String> =
            formatters.iter().map(|formatter| formatter.value(row).to_string()).collect();
        let fields = key.split_off(keys);
        (key, fields)
    };
    (0..batch.num_rows()).map(row).collect()
}

fn close(expected: &str, found: &str) -> bool {
    if expected == found {
        return true;
    }
    let (Ok(a), Ok(b)) = (expected.parse::<f64>(), found.parse::<f64>()) else { return false };
    (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()).max(TOLERANCE)
}

fn within(found: &str, low: &str, high: &str) -> bool {
    match (found.parse::<f64>(), low.parse::<f64>(), high.parse::<f64>()) {
        (Ok(found), Ok(low), Ok(high)) => low <= found && found <= high,
        _ => found == low && found == high,
    }
}
