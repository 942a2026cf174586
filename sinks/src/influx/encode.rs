//! Rows to InfluxDB line protocol: `measurement,tag=value field=value time`, one line a row.
//!
//! Follows the line protocol reference of InfluxDB 2, and its parser (`models/points.go`) where the
//! reference is silent. What the protocol cannot hold:
//!
//! | in the row | in InfluxDB |
//! |---|---|
//! | null or empty tag | no such tag |
//! | null field | no such field in this line |
//! | NaN or infinite field | no such field, counted in [`Lines::non_finite`] |
//! | row without any field | no line, counted in [`Lines::empty`] |
//! | line break in a tag value | the two characters `\n` or `\r` |
//! | tag value that ends in `\` | the value and a space: it would escape what follows, and without the backslash two groups would become one point |
//! | `\`, control character or leading `#` in a name | `_` |
//!
//! Integers are written with `i`, unsigned ones with `u`, times as nanoseconds.

use std::borrow::Cow;
use std::fmt::Write as _;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, UInt64Type};

use crate::{Error, Table};

/// One line, without the line break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub text: String,
    series_length: usize,
    time: i64,
}

impl Line {
    /// What InfluxDB tells points apart by: measurement with tags, and time.
    pub fn point(&self) -> (&str, i64) {
        (&self.text[..self.series_length], self.time)
    }
}

/// The lines of a batch of rows, in the order of the rows.
#[derive(Debug)]
pub struct Lines {
    series: Series,
    fields: Vec<(String, Values)>,
    row: usize,
    /// Bytes of the longest line so far.
    longest: usize,
    /// Fields left out because they were NaN or infinite.
    pub non_finite: u64,
    /// Rows left out because no field was left.
    pub empty: u64,
}

#[derive(Debug)]
enum Values {
    Float(Float64Array),
    Int(Int64Array),
    UInt(UInt64Array),
    Bool(BooleanArray),
    Text(StringArray),
}

impl Lines {
    /// Fails when a column of `table` is missing or has a type that InfluxDB has no field for.
    pub fn new(table: &Table, rows: &RecordBatch) -> Result<Self, Error> {
        let mut fields = Vec::new();
        for &column in &table.fields {
            let (name, array) = column_at(table, rows, column)?;
            if let Some(values) = field_values(table, name, array)? {
                fields.push((escaped(&stored_name(name)), values));
            }
        }
        Ok(Self { series: Series::new(table, rows)?, fields, row: 0, longest: 0, non_finite: 0, empty: 0 })
    }
}

impl Iterator for Lines {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        while self.row < self.series.len() {
            let row = self.row;
            self.row += 1;
            // One allocation a line: the one before is a good guess of its length.
            let mut text = String::with_capacity(self.longest);
            self.series.write_head(row, &mut text);
            let series_length = text.len();
            let mut separator = ' ';
            for (name, values) in &self.fields {
                if values.is_null(row) {
                    continue;
                }
                if !values.is_finite(row) {
                    self.non_finite += 1;
                    continue;
                }
                text.push(separator);
                text.push_str(name);
                text.push('=');
                values.write(row, &mut text);
                separator = ',';
            }
            if text.len() == series_length {
                self.empty += 1;
                continue;
            }
            let time = self.series.time(row);
            write!(text, " {time}").expect("writing to a string cannot fail");
            self.longest = self.longest.max(text.len());
            return Some(Line { text, series_length, time });
        }
        None
    }
}

impl Values {
    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Float(array) => array.is_null(row),
            Self::Int(array) => array.is_null(row),
            Self::UInt(array) => array.is_null(row),
            Self::Bool(array) => array.is_null(row),
            Self::Text(array) => array.is_null(row),
        }
    }

    /// Whether InfluxDB has a number for it.
    fn is_finite(&self, row: usize) -> bool {
        !matches!(self, Self::Float(array) if !array.value(row).is_finite())
    }

    fn write(&self, row: usize, text: &mut String) {
        let written = match self {
            // Debug switches to an exponent where plain digits would be long.
            Self::Float(array) => write!(text, "{:?}", array.value(row)),
            Self::Int(array) => write!(text, "{}i", array.value(row)),
            Self::UInt(array) => write!(text, "{}u", array.value(row)),
            Self::Bool(array) => write!(text, "{}", array.value(row)),
            Self::Text(array) => write!(text, "{}", quoted(array.value(row))),
        };
        written.expect("writing to a string cannot fail");
    }
}

/// The key of the rows as InfluxDB stores it: measurement, tags and time.
#[derive(Debug)]
pub(crate) struct Series {
    measurement: String,
    escaped_measurement: String,
    /// Sorted by name, which saves the server the sorting.
    tags: Vec<(String, StringArray)>,
    /// Of the tags.
    escaped_names: Vec<String>,
    time: Int64Array,
}

impl Series {
    pub(crate) fn new(table: &Table, rows: &RecordBatch) -> Result<Self, Error> {
        let (name, time) = column_at(table, rows, table.time)?;
        if !matches!(time.data_type(), DataType::Timestamp(..)) || time.null_count() > 0 {
            return Err(wrong_rows(table, format!("column `{name}` must be a timestamp and never null")));
        }
        let time = cast(&cast(time, &DataType::Timestamp(TimeUnit::Nanosecond, None))?, &DataType::Int64)?;
        let mut tags = Vec::new();
        for &column in &table.tags {
            let (name, values) = column_at(table, rows, column)?;
            let values = cast(values, &DataType::Utf8)?;
            tags.push((stored_name(name), values.as_string::<i32>().clone()));
        }
        tags.sort_by(|a, b| a.0.cmp(&b.0));
        let measurement = stored_name(&table.rollup);
        Ok(Self {
            escaped_measurement: with_backslashes(&measurement, |c| matches!(c, ',' | ' ')),
            measurement,
            escaped_names: tags.iter().map(|(name, _)| escaped(name)).collect(),
            tags,
            time: time.as_primitive::<Int64Type>().clone(),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.time.len()
    }

    pub(crate) fn time(&self, row: usize) -> i64 {
        self.time.value(row)
    }

    pub(crate) fn measurement(&self) -> &str {
        &self.measurement
    }

    /// Names and values as they are stored; none where the row has no such tag.
    pub(crate) fn tags(&self, row: usize) -> impl Iterator<Item = (&str, Option<Cow<'_, str>>)> {
        self.tags.iter().map(move |(name, values)| {
            let present = values.is_valid(row) && !values.value(row).is_empty();
            (name.as_str(), present.then(|| stored_tag_value(values.value(row))))
        })
    }

    /// The line up to the fields.
    pub(crate) fn line_head(&self, row: usize) -> String {
        let mut head = String::new();
        self.write_head(row, &mut head);
        head
    }

    fn write_head(&self, row: usize, head: &mut String) {
        head.push_str(&self.escaped_measurement);
        for ((_, value), name) in self.tags(row).zip(&self.escaped_names) {
            let Some(value) = value else { continue };
            head.push(',');
            head.push_str(name);
            head.push('=');
            push_escaped(head, &value, is_special);
        }
    }
}

fn column_at<'a>(
    table: &Table,
    rows: &'a RecordBatch,
    column: usize,
) -> Result<(&'a str, &'a ArrayRef), Error> {
    if column >= rows.num_columns() {
        let reason = format!("column {column} is missing, there are {}", rows.num_columns());
        return Err(wrong_rows(table, reason));
    }
    Ok((rows.schema_ref().field(column).name(), rows.column(column)))
}

fn wrong_rows(table: &Table, reason: String) -> Error {
    Error::Rows { table: table.rollup.clone(), reason }
}

/// The column as the InfluxDB type it is written as. None for a column of nulls without a type.
fn field_values(table: &Table, name: &str, array: &ArrayRef) -> Result<Option<Values>, Error> {
    let mut data_type = array.data_type();
    if let DataType::Dictionary(_, values) = data_type {
        data_type = values;
    }
    Ok(Some(match data_type {
        DataType::Null => return Ok(None),
        DataType::Boolean => Values::Bool(cast(array, &DataType::Boolean)?.as_boolean().clone()),
        unsigned if unsigned.is_unsigned_integer() => {
            Values::UInt(cast(array, &DataType::UInt64)?.as_primitive::<UInt64Type>().clone())
        }
        signed if signed.is_signed_integer() => {
            Values::Int(cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
        }
        number if number.is_floating() || number.is_decimal() => {
            Values::Float(cast(array, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
        }
        DataType::Timestamp(..) => {
            let nanoseconds = cast(array, &DataType::Timestamp(TimeUnit::Nanosecond, None))?;
            Values::Int(cast(&nanoseconds, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            Values::Text(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())
        }
        other => {
            let reason =
                format!("InfluxDB has no field type for {other}, cast it in the SELECT column=`{name}`");
            return Err(wrong_rows(table, reason));
        }
    }))
}

/// A measurement, tag or field name as InfluxDB stores it.
pub fn stored_name(name: &str) -> String {
    let mut stored = name.replace(|c: char| c == '\\' || c.is_control(), "_");
    if stored.starts_with('#') {
        stored.replace_range(..1, "_");
    }
    stored
}

/// A tag value as InfluxDB stores it.
fn stored_tag_value(value: &str) -> Cow<'_, str> {
    if !value.contains(['\n', '\r']) && !value.ends_with('\\') {
        return Cow::Borrowed(value);
    }
    let mut stored = value.replace('\n', "\\n").replace('\r', "\\r");
    if stored.ends_with('\\') {
        stored.push(' ');
    }
    Cow::Owned(stored)
}

/// In tag names, tag values and field names. A backslash elsewhere than before one of these stands
/// for itself.
fn is_special(c: char) -> bool {
    matches!(c, ',' | '=' | ' ')
}

fn escaped(text: &str) -> String {
    with_backslashes(text, is_special)
}

/// A string field. Line breaks may stand in quotes.
fn quoted(text: &str) -> String {
    format!("\"{}\"", with_backslashes(text, |c| matches!(c, '"' | '\\')))
}

fn with_backslashes(text: &str, special: fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    push_escaped(&mut out, text, special);
    out
}

fn push_escaped(out: &mut String, text: &str, special: fn(char) -> bool) {
    for part in text.split_inclusive(special) {
        let end = part.char_indices().next_back().filter(|(_, last)| special(*last));
        match end {
            Some((end, last)) => {
                out.push_str(&part[..end]);
                out.push('\\');
                out.push(last);
            }
            None => out.push_str(part),
        }
    }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
