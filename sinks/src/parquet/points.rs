//! Raw points of one event hour, sorted by series and time, to a Parquet file: encoded for size.
//!
//! Points in series order make name and labels a few runs, times a constant step and neighbouring
//! values alike. Per column:
//!
//! | column | encoding | why |
//! |---|---|---|
//! | `name`, `labels` | dictionary | one run a series |
//! | `time` | DELTA_BINARY_PACKED | a steady interval is nothing but zero bits |
//! | `value` | by the share of different values, see below | gauges repeat; what does not repeat still shares its high bytes |
//!
//! All of it is compressed with zstd. Values, measured on series of the Numenta Anomaly Benchmark
//! in bytes a point (4,032 points a file, level 3; the smallest is what [`value_encoding`]
//! chooses):
//!
//! | series | different values | dictionary | PLAIN | BYTE_STREAM_SPLIT |
//! |---|---|---|---|---|
//! | `ec2_cpu_utilization_24ae8d` | 1 % | **0.8** | 1.2 | 2.6 |
//! | `ec2_cpu_utilization_77c1ca` | 19 % | **1.9** | 2.1 | 4.4 |
//! | `ec2_cpu_utilization_5f5533` | 53 % | 3.7 | **3.3** | 6.7 |
//! | `ec2_network_in_257a54` | 98 % | 4.8 | 3.3 | **2.9** |
//!
//! The schema is spelled as the Parquet format asks for (`key_value`, `key`, `value` inside the
//! map), so that every reader sees labels as a MAP.

use hashbrown::HashSet;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::by_series::PointsBySeries;
use crate::Error;

/// Rows that are expanded at once: a row is several times as large as a point in memory.
const SLICE: usize = 16_384;

/// On the series above level 6 is 1 to 3 % smaller, level 19 up to 5 %, for several times the work.
const ZSTD_LEVEL: i32 = 3;

/// One file of some of the points, in the order of `rows`.
pub(crate) fn encode(
    points: &PointsBySeries,
    rows: &[u32],
    metadata: Vec<KeyValue>,
) -> Result<Vec<u8>, Error> {
    let column = |path: &[&str]| ColumnPath::new(path.iter().map(|part| (*part).to_owned()).collect());
    let value = column(&["value"]);
    let (dictionary, encoding) = value_encoding(points.values_at(rows));
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
    // The Parquet types suffice; a copy of the Arrow schema would be a quarter of a
    // small file.
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let schema = points.rows(&[])?.schema();
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), schema, options)?;
    for slice in rows.chunks(SLICE) {
        writer.write(&points.rows(slice)?)?;
    }
    Ok(writer.into_inner()?)
}

/// Written into each file as `created_by` and `tidemark.writer`.
pub(crate) const WRITER: &str = concat!("tidemark ", env!("CARGO_PKG_VERSION"));

/// Whether the values get a dictionary, and how they are written without one or past its largest
/// size. Up to a quarter of different values a dictionary is smallest, up to three quarters zstd
/// finds the repetitions in plain values better, and beyond that there is little but their high
/// bytes to find.
fn value_encoding(values: impl ExactSizeIterator<Item = f64>) -> (bool, Encoding) {
    let count = values.len();
    let many = count * 3 / 4;
    let mut different = HashSet::new();
    for value in values {
        different.insert(value.to_bits());
        if different.len() > many {
            return (false, Encoding::BYTE_STREAM_SPLIT);
        }
    }
    (different.len() <= count / 4, Encoding::PLAIN)
}

#[cfg(test)]
#[path = "points_tests.rs"]
pub(crate) mod tests;
