//! Points in memory: the name and labels of each series once, and columns of numbers.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, MapArray, RecordBatch, StringArray, StructArray,
    TimestampNanosecondArray, UInt32Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{cast, concat_batches, take};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, TimeUnit, TimestampNanosecondType};

use super::live::HOUR;
use crate::Error;

/// Points, and the series that they are of.
#[derive(Debug, Clone)]
pub struct PointsBySeries {
    /// `name` Utf8, `labels` Map of Utf8 to Utf8 sorted by key: a row for each series, no two
    /// alike.
    series: RecordBatch,
    /// For each point the row of its series.
    of: Vec<u32>,
    /// Nanoseconds since the epoch.
    times: Vec<i64>,
    values: Vec<f64>,
}

impl PointsBySeries {
    /// `series` has the columns `name` and `labels` as any kind of text, and a row for each series,
    /// no two alike. The others are of equal length; `of` has rows of `series`.
    ///
    /// # Errors
    /// When a column of `series` is missing or of another type.
    pub fn new(series: &RecordBatch, of: Vec<u32>, times: Vec<i64>, values: Vec<f64>) -> Result<Self, Error> {
        assert!(of.len() == times.len() && of.len() == values.len(), "columns of one length");
        Ok(Self { series: names_and_labels(series)?, of, times, values })
    }

    /// From rows that each have name, labels, time and value, as in the files; in their order.
    pub(crate) fn of_rows(batches: &[RecordBatch]) -> Result<Self, Error> {
        let mut points = Self {
            series: RecordBatch::new_empty(Arc::new(Schema::empty())),
            of: Vec::new(),
            times: Vec::new(),
            values: Vec::new(),
        };
        let mut known: HashMap<Vec<u8>, u32> = HashMap::new();
        let mut found = Vec::new();
        let mut key = Vec::new();
        for batch in batches {
            let text = names_and_labels(batch)?;
            let times = cast(column(batch, "time")?, &DataType::Timestamp(TimeUnit::Nanosecond, None))?;
            let values = cast(column(batch, "value")?, &DataType::Float64)?;
            points.times.extend(times.as_primitive::<TimestampNanosecondType>().values());
            points.values.extend(values.as_primitive::<Float64Type>().values());
            let series = Series::of(&text);
            let mut new = Vec::new();
            for row in 0..text.num_rows() {
                series.write_key(row, &mut key);
                let number = match known.get(&key) {
                    Some(number) => *number,
                    None => {
                        let number = u32::try_from(known.len()).expect("files are far below 2^32 series");
                        known.insert(key.clone(), number);
                        new.push(row as u32);
                        number
                    }
                };
                points.of.push(number);
            }
            found.push(rows_of(&text, &new)?);
        }
        if let Some(first) = found.first() {
            points.series = concat_batches(&first.schema(), &found)?;
        }
        Ok(points)
    }

    pub fn len(&self) -> usize {
        self.of.len()
    }

    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Memory of it.
    pub fn memory_bytes(&self) -> usize {
        self.series.get_array_memory_size() + self.len() * (size_of::<u32>() + 2 * size_of::<i64>())
    }

    /// The points of each event hour by their positions, ordered by name, labels and time; points
    /// of one series and time keep their order. Keys are the starts of the hours in nanoseconds.
    pub(crate) fn by_hour(&self) -> BTreeMap<i64, Vec<u32>> {
        if self.is_empty() {
            return BTreeMap::new();
        }
        let rank = Series::of(&self.series).ranks();
        // A counting sort: series are few and points many, and most often those of a series come in
        // the order of time.
        let mut next = vec![0; rank.len() + 1];
        for series in &self.of {
            next[rank[*series as usize] as usize + 1] += 1;
        }
        for position in 1..next.len() {
            next[position] += next[position - 1];
        }
        let ends = next[1..].to_vec();
        let mut sorted = vec![0_u32; self.len()];
        for (row, series) in (0..).zip(&self.of) {
            let position = &mut next[rank[*series as usize] as usize];
            sorted[*position] = row;
            *position += 1;
        }
        let time = |row: &u32| self.times[*row as usize];
        let mut hours: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        let mut start = 0;
        for end in ends {
            let of_series = &mut sorted[start..end];
            if !of_series.is_sorted_by_key(time) {
                of_series.sort_by_key(time);
            }
            for of_hour in of_series.chunk_by(|a, b| hour(time(a)) == hour(time(b))) {
                hours.entry(hour(time(&of_hour[0]))).or_default().extend_from_slice(of_hour);
            }
            start = end;
        }
        hours
    }

    /// Some of the points, as rows of the files: `name`, `labels`, `time`, `value`.
    pub(crate) fn rows(&self, rows: &[u32]) -> Result<RecordBatch, Error> {
        let series: Vec<u32> = rows.iter().map(|row| self.of[*row as usize]).collect();
        let text = rows_of(&self.series, &series)?;
        let times = rows.iter().map(|row| self.times[*row as usize]);
        let time = TimestampNanosecondArray::from_iter_values(times).with_timezone("UTC");
        let time: ArrayRef = Arc::new(time);
        let value: ArrayRef = Arc::new(Float64Array::from_iter_values(self.values_at(rows)));
        let columns = [text.columns(), &[time, value]].concat();
        let text_schema = text.schema();
        let fields = text_schema.fields().iter().cloned();
        let numbers = ["time", "value"].into_iter().zip(&columns[2..]);
        let numbers =
            numbers.map(|(name, array)| Arc::new(Field::new(name, array.data_type().clone(), false)));
        let schema = Schema::new(fields.chain(numbers).collect::<Vec<_>>());
        Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
    }

    /// The values of some of the points.
    pub(crate) fn values_at<'a>(&'a self, rows: &'a [u32]) -> impl ExactSizeIterator<Item = f64> + 'a {
        rows.iter().map(|row| self.values[*row as usize])
    }
}

fn hour(time: i64) -> i64 {
    time.div_euclid(HOUR).saturating_mul(HOUR)
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, Error> {
    batch.column_by_name(name).ok_or_else(|| wrong(format!("no column `{name}`")))
}

/// Name and labels in the types and with the names of the files.
fn names_and_labels(batch: &RecordBatch) -> Result<RecordBatch, Error> {
    let name = cast(column(batch, "name")?, &DataType::Utf8)?;
    let labels = column(batch, "labels")?;
    let Some(map) = labels.as_map_opt() else {
        return Err(wrong(format!("column `labels` is no map but {}", labels.data_type())));
    };
    if map.null_count() > 0 || map.values().null_count() > 0 {
        return Err(wrong("null in column `labels`".to_owned()));
    }
    let keys = cast(map.keys(), &DataType::Utf8)?;
    let values = cast(map.values(), &DataType::Utf8)?;
    text_batch(name, map.offsets().clone(), keys, values)
}

fn text_batch(
    name: ArrayRef,
    offsets: OffsetBuffer<i32>,
    keys: ArrayRef,
    values: ArrayRef,
) -> Result<RecordBatch, Error> {
    let field = |name: &str| Field::new(name, DataType::Utf8, false);
    let entries = StructArray::try_new(vec![field("key"), field("value")].into(), vec![keys, values], None)?;
    let entry = Arc::new(Field::new("key_value", entries.data_type().clone(), false));
    let labels = MapArray::try_new(entry, offsets, entries, None, false)?;
    let schema = Schema::new(vec![field("name"), Field::new("labels", labels.data_type().clone(), false)]);
    Ok(RecordBatch::try_new(Arc::new(schema), vec![name, Arc::new(labels)])?)
}

/// Rows of names and labels. Arrow's own `take` copies maps entry by entry, at several times the
/// cost.
fn rows_of(text: &RecordBatch, rows: &[u32]) -> Result<RecordBatch, Error> {
    let map = text.column(1).as_map();
    let offsets = map.value_offsets();
    let mut entries: Vec<u32> = Vec::with_capacity(rows.len() * 2);
    let mut lengths = Vec::with_capacity(rows.len());
    for row in rows {
        let (start, end) = (offsets[*row as usize], offsets[*row as usize + 1]);
        entries.extend(start as u32..end as u32);
        lengths.push((end - start) as usize);
    }
    let entries = UInt32Array::from(entries);
    let name = take(text.column(0), &UInt32Array::from(rows.to_vec()), None)?;
    let (keys, values) = (take(map.keys(), &entries, None)?, take(map.values(), &entries, None)?);
    text_batch(name, OffsetBuffer::from_lengths(lengths), keys, values)
}

fn wrong(reason: String) -> Error {
    Error::Rows { table: "points".into(), reason }
}

/// The text of series by row.
struct Series<'a> {
    names: &'a StringArray,
    map: &'a MapArray,
    keys: &'a StringArray,
    values: &'a StringArray,
}

impl<'a> Series<'a> {
    fn of(text: &'a RecordBatch) -> Self {
        let map = text.column(1).as_map();
        Self {
            names: text.column(0).as_string(),
            map,
            keys: map.keys().as_string(),
            values: map.values().as_string(),
        }
    }

    fn labels(&self, row: usize) -> impl Iterator<Item = (&'a str, &'a str)> {
        let offsets = self.map.value_offsets();
        let (keys, values) = (self.keys, self.values);
        (offsets[row] as usize..offsets[row + 1] as usize)
            .map(move |entry| (keys.value(entry), values.value(entry)))
    }

    /// Different for different series.
    fn write_key(&self, row: usize, key: &mut Vec<u8>) {
        key.clear();
        key.extend_from_slice(self.names.value(row).as_bytes());
        for (label, value) in self.labels(row) {
            for text in [label, value] {
                // No UTF-8 text contains this byte.
                key.push(0xff);
                key.extend_from_slice(text.as_bytes());
            }
        }
    }

    fn compare(&self, a: usize, b: usize) -> Ordering {
        self.names.value(a).cmp(self.names.value(b)).then_with(|| self.labels(a).cmp(self.labels(b)))
    }

    /// For each row its place in the order of names and labels.
    fn ranks(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..).take(self.names.len()).collect();
        order.sort_by(|a, b| self.compare(*a as usize, *b as usize));
        let mut ranks = vec![0; order.len()];
        for (rank, row) in (0..).zip(order) {
            ranks[row as usize] = rank;
        }
        ranks
    }
}
