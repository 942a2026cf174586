//! Raw points to Parquet: split by event hour, sorted by series and time, encoded for size.
//!
//! Points in series order make name and labels a few runs, times a constant step and neighbouring values
//! alike. Per column:
//!
//! | column | encoding | why |
//! |---|---|---|
//! | `name`, `labels` | dictionary | one run a series |
//! | `time` | DELTA_BINARY_PACKED | a steady interval is nothing but zero bits |
//! | `value` | by the share of different values, see below | gauges repeat; what does not repeat still shares its high bytes |
//!
//! All of it is compressed with zstd. Values, measured on series of the Numenta Anomaly Benchmark in bytes a point
//! (4,032 points a file, level 3; the smallest is what [`value_encoding`] chooses):
//!
//! | series | different values | dictionary | PLAIN | BYTE_STREAM_SPLIT |
//! |---|---|---|---|---|
//! | `ec2_cpu_utilization_24ae8d` | 1 % | **0.8** | 1.2 | 2.6 |
//! | `ec2_cpu_utilization_77c1ca` | 19 % | **1.9** | 2.1 | 4.4 |
//! | `ec2_cpu_utilization_5f5533` | 53 % | 3.7 | **3.3** | 6.7 |
//! | `ec2_network_in_257a54` | 98 % | 4.8 | 3.3 | **2.9** |
//!
//! The schema is spelled as the Parquet format asks for (`key_value`,
//! `key`, `value` inside the map), so that every reader sees labels as a MAP.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, MapArray, RecordBatch, StringArray, StructArray, TimestampNanosecondArray,
    UInt32Array,
};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, TimeUnit, TimestampNanosecondType};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use crate::Error;

const HOUR: i64 = 3_600_000_000_000;

/// On the series above level 6 is 1 to 3 % smaller, level 19 up to 5 %, for several times the work.
const ZSTD_LEVEL: i32 = 3;

/// The points of each event hour, in the schema of the files, sorted by name, labels and time. Keys are
/// the starts of the hours in nanoseconds. Points of one series and time keep their order.
pub(crate) fn by_hour(points: &RecordBatch) -> Result<BTreeMap<i64, RecordBatch>, Error> {
    let points = file_schema(points)?;
    let times = points.column(2).as_primitive::<TimestampNanosecondType>().clone();
    let mut hours: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
    for row in sorted(&points, &times) {
        let hour = times.value(row as usize).div_euclid(HOUR);
        hours.entry(hour).or_default().push(row);
    }
    let mut batches = BTreeMap::new();
    for (hour, rows) in hours {
        batches.insert(hour.saturating_mul(HOUR), take_record_batch(&points, &UInt32Array::from(rows))?);
    }
    Ok(batches)
}

/// One file of points that are sorted and in the schema of the files, as [`by_hour`] makes them.
pub(crate) fn encode(points: &RecordBatch, metadata: Vec<KeyValue>) -> Result<Vec<u8>, Error> {
    let column = |path: &[&str]| ColumnPath::new(path.iter().map(|part| (*part).to_owned()).collect());
    let value = column(&["value"]);
    let (dictionary, encoding) = value_encoding(points);
    let properties = WriterProperties::builder()
        .set_created_by(WRITER.to_owned())
        .set_key_value_metadata(Some(metadata))
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_sorting_columns(Some(vec![SortingColumn {
            column_idx: 0,
            descending: false,
            nulls_first: false,
        }]))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_column_dictionary_enabled(column(&["time"]), false)
        .set_column_encoding(column(&["time"]), Encoding::DELTA_BINARY_PACKED)
        .set_column_dictionary_enabled(value.clone(), dictionary)
        .set_column_encoding(value, encoding)
        .build();
    // The Parquet types say all there is to know; a copy of the Arrow schema would be a quarter of a
    // small file.
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), points.schema(), options)?;
    writer.write(points)?;
    Ok(writer.into_inner()?)
}

/// Written into each file as `created_by` and `tidemark.writer`.
pub(crate) const WRITER: &str = concat!("tidemark ", env!("CARGO_PKG_VERSION"));

/// Whether the values get a dictionary, and how they are written without one or past its largest size. Up to a
/// quarter of different values a dictionary is smallest, up to three quarters zstd finds the repetitions in
/// plain values better, and beyond that there is little but their high bytes to find.
fn value_encoding(points: &RecordBatch) -> (bool, Encoding) {
    let values = points.column(3).as_primitive::<Float64Type>().values();
    let many = values.len() * 3 / 4;
    let mut different = HashSet::new();
    for value in values {
        different.insert(value.to_bits());
        if different.len() > many {
            return (false, Encoding::BYTE_STREAM_SPLIT);
        }
    }
    (different.len() <= values.len() / 4, Encoding::PLAIN)
}

/// The columns name, labels, time, value in the types and names of the files.
pub(crate) fn file_schema(points: &RecordBatch) -> Result<RecordBatch, Error> {
    let column =
        |name: &str| points.column_by_name(name).ok_or_else(|| wrong_points(format!("no column `{name}`")));
    let name = cast(column("name")?, &DataType::Utf8)?;
    let labels = file_labels(column("labels")?)?;
    let time = cast(column("time")?, &DataType::Timestamp(TimeUnit::Nanosecond, None))?;
    let value = cast(column("value")?, &DataType::Float64)?;
    let schema = Schema::new(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("labels", labels.data_type().clone(), labels.is_nullable()),
        Field::new("time", time.data_type().clone(), false),
        Field::new("value", DataType::Float64, false),
    ]);
    Ok(RecordBatch::try_new(Arc::new(schema), vec![name, labels, time, value])?)
}

fn file_labels(labels: &ArrayRef) -> Result<ArrayRef, Error> {
    let Some(map) = labels.as_map_opt() else {
        return Err(wrong_points(format!("column `labels` is no map but {}", labels.data_type())));
    };
    let keys = cast(map.keys(), &DataType::Utf8)?;
    let values = cast(map.values(), &DataType::Utf8)?;
    let fields = vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Utf8, map.values().is_nullable()),
    ];
    let entries = StructArray::try_new(fields.into(), vec![keys, values], None)?;
    let entry = Arc::new(Field::new("key_value", entries.data_type().clone(), false));
    Ok(Arc::new(MapArray::try_new(entry, map.offsets().clone(), entries, map.nulls().cloned(), false)?))
}

fn wrong_points(reason: String) -> Error {
    Error::Rows { table: "points".into(), reason }
}

/// The rows in the order of series and time.
fn sorted(points: &RecordBatch, times: &TimestampNanosecondArray) -> Vec<u32> {
    let names = points.column(0).as_string::<i32>();
    let labels = Labels::new(points.column(1));

    // Series are few and points many: number the series, then compare numbers.
    let mut numbers: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut first_rows: Vec<usize> = Vec::new();
    let mut series: Vec<usize> = Vec::with_capacity(names.len());
    let mut key = Vec::new();
    for row in 0..names.len() {
        key.clear();
        key.extend_from_slice(names.value(row).as_bytes());
        for (label, value) in labels.of(row) {
            for text in [label, value] {
                // No UTF-8 text contains this byte.
                key.push(0xff);
                key.extend_from_slice(text.as_bytes());
            }
        }
        let number = match numbers.get(&key) {
            Some(&number) => number,
            None => {
                numbers.insert(key.clone(), first_rows.len());
                first_rows.push(row);
                first_rows.len() - 1
            }
        };
        series.push(number);
    }

    let mut in_order: Vec<usize> = (0..first_rows.len()).collect();
    in_order.sort_by(|&a, &b| {
        let (a, b) = (first_rows[a], first_rows[b]);
        names.value(a).cmp(names.value(b)).then_with(|| labels.of(a).cmp(labels.of(b)))
    });
    let mut rank = vec![0; in_order.len()];
    for (position, &number) in in_order.iter().enumerate() {
        rank[number] = position;
    }

    let mut rows: Vec<u32> = (0_u32..).take(names.len()).collect();
    rows.sort_by_key(|&row| (rank[series[row as usize]], times.value(row as usize)));
    rows
}

/// Label pairs by row.
struct Labels<'a> {
    map: &'a MapArray,
    keys: &'a StringArray,
    values: &'a StringArray,
}

impl<'a> Labels<'a> {
    fn new(labels: &'a ArrayRef) -> Self {
        let map = labels.as_map();
        Self { map, keys: map.keys().as_string(), values: map.values().as_string() }
    }

    fn of(&self, row: usize) -> impl Iterator<Item = (&'a str, &'a str)> {
        let offsets = self.map.value_offsets();
        let entries = match self.map.is_valid(row) {
            true => offsets[row] as usize..offsets[row + 1] as usize,
            false => 0..0,
        };
        let (keys, values) = (self.keys, self.values);
        entries.map(move |entry| {
            let value = if values.is_valid(entry) { values.value(entry) } else { "" };
            (keys.value(entry), value)
        })
    }
}

#[cfg(test)]
#[path = "points_tests.rs"]
pub(crate) mod tests;
