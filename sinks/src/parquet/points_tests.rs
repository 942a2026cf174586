//! Order, schema and size of the files of raw points.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Float64Array, MapBuilder, RecordBatch, StringBuilder, StringViewArray,
    TimestampNanosecondArray,
};
use arrow::datatypes::{DataType, Float64Type, TimeUnit, TimestampNanosecondType};
use bytes::Bytes;
use chrono::NaiveDateTime;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::*;

const HOUR: i64 = super::super::live::HOUR;

/// Name, labels, time and value of a point.
pub(crate) type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], i64, f64);

pub(crate) fn points(rows: &[Row<'_>]) -> PointsBySeries {
    PointsBySeries::of_rows(&[batch(rows)]).unwrap()
}

fn batch(rows: &[Row<'_>]) -> RecordBatch {
    let mut labels = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    for (_, pairs, ..) in rows {
        for (key, value) in *pairs {
            labels.keys().append_value(key);
            labels.values().append_value(value);
        }
        labels.append(true).unwrap();
    }
    let columns: [(&str, ArrayRef); 4] = [
        ("name", Arc::new(StringViewArray::from_iter_values(rows.iter().map(|row| row.0)))),
        ("labels", Arc::new(labels.finish())),
        ("time", Arc::new(TimestampNanosecondArray::from_iter_values(rows.iter().map(|row| row.2)))),
        ("value", Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.3)))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

pub(crate) fn read(bytes: Vec<u8>) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).unwrap();
    let schema = reader.schema().clone();
    let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
    arrow::compute::concat_batches(&schema, &batches).unwrap()
}

/// The points of each hour as they would be written.
fn hours(points: &PointsBySeries) -> BTreeMap<i64, RecordBatch> {
    points.by_hour().into_iter().map(|(hour, rows)| (hour, points.rows(&rows).unwrap())).collect()
}

/// `name{key=value} time value` for each row.
pub(crate) fn shown(points: &RecordBatch) -> Vec<String> {
    let labels = points.column(1).as_map();
    (0..points.num_rows())
        .map(|row| {
            let entries = labels.value(row);
            let text = |column: usize| entries.column(column).as_string::<i32>().iter().flatten();
            let pairs: Vec<_> = text(0).zip(text(1)).map(|(key, value)| format!("{key}={value}")).collect();
            format!(
                "{}{{{}}} {} {}",
                points.column(0).as_string::<i32>().value(row),
                pairs.join(","),
                points.column(2).as_primitive::<TimestampNanosecondType>().value(row),
                points.column(3).as_primitive::<Float64Type>().value(row)
            )
        })
        .collect()
}

#[test]
fn points_are_split_by_hour_and_sorted_by_series_and_time() {
    let eu: &[(&str, &str)] = &[("region", "eu")];
    let hours = hours(&points(&[
        ("cpu.load", eu, HOUR + 2, 1.0),
        ("cpu", &[("host", "b"), ("region", "eu")], HOUR + 1, 2.0),
        ("cpu", &[], HOUR, 3.0),
        ("cpu", &[("host", "a")], 2 * HOUR - 1, 4.0),
        ("cpu", eu, -1, 5.0),
        ("cpu.load", eu, HOUR + 1, 6.0),
        ("cpu.load", eu, HOUR + 1, 7.0),
    ]));
    let shown: Vec<_> = hours.iter().map(|(hour, points)| (*hour, shown(points))).collect();
    let expected = [
        (-HOUR, vec!["cpu{region=eu} -1 5".to_owned()]),
        (
            HOUR,
            [
                format!("cpu{{}} {HOUR} 3"),
                format!("cpu{{host=a}} {} 4", 2 * HOUR - 1),
                format!("cpu{{host=b,region=eu}} {} 2", HOUR + 1),
                format!("cpu.load{{region=eu}} {} 6", HOUR + 1),
                format!("cpu.load{{region=eu}} {} 7", HOUR + 1),
                format!("cpu.load{{region=eu}} {} 1", HOUR + 2),
            ]
            .to_vec(),
        ),
    ];
    assert_eq!(shown, expected);
}

#[test]
fn files_read_back_and_carry_a_standard_map() {
    let labels: &[(&str, &str)] = &[("host", "h1")];
    let rows: Vec<Row<'_>> = (0..1000).map(|i| ("cpu", labels, i * 1_000_000_000, (i % 7) as f64)).collect();
    let points = points(&rows);
    let rows = points.by_hour().remove(&0).unwrap();
    let bytes = encode(&points, &rows, vec![KeyValue::new("a".into(), Some("b".to_owned()))]).unwrap();

    let file = SerializedFileReader::new(Bytes::from(bytes.clone())).unwrap();
    let metadata = file.metadata();
    let paths: Vec<_> = metadata.row_group(0).columns().iter().map(|c| c.column_path().string()).collect();
    assert_eq!(paths, ["name", "labels.key_value.key", "labels.key_value.value", "time", "value"]);
    let encodings: Vec<_> = metadata.row_group(0).column(3).encodings().collect();
    assert!(encodings.contains(&Encoding::DELTA_BINARY_PACKED), "{encodings:?}");
    assert!(metadata.row_group(0).column(3).statistics().is_some());
    assert!(metadata.row_group(0).column(4).dictionary_page_offset().is_some(), "7 values make a dictionary");
    assert_eq!(metadata.file_metadata().key_value_metadata().unwrap()[0].key, "a");

    let back = read(bytes);
    assert_eq!(shown(&back), shown(&points.rows(&rows).unwrap()));
    assert_eq!(
        back.schema().field(2).data_type(),
        &DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))
    );
}

#[test]
fn values_are_encoded_by_how_many_differ() {
    for (different, dictionary, encoding) in [
        (1, true, Encoding::RLE_DICTIONARY),
        (250, true, Encoding::RLE_DICTIONARY),
        (251, false, Encoding::PLAIN),
        (750, false, Encoding::PLAIN),
        (751, false, Encoding::BYTE_STREAM_SPLIT),
    ] {
        let rows: Vec<Row<'_>> =
            (0..1000).map(|i| ("cpu", [].as_slice(), i, ((i % different) as f64).sqrt())).collect();
        let points = points(&rows);
        let rows = points.by_hour().remove(&0).unwrap();
        let bytes = encode(&points, &rows, Vec::new()).unwrap();
        let file = SerializedFileReader::new(Bytes::from(bytes.clone())).unwrap();
        let value = file.metadata().row_group(0).column(4).clone();
        assert_eq!(value.dictionary_page_offset().is_some(), dictionary, "{different}");
        assert!(value.encodings().any(|used| used == encoding), "{different}: {value:?}");
        assert_eq!(shown(&read(bytes)), shown(&points.rows(&rows).unwrap()));
    }
}

#[test]
fn points_without_their_columns_are_refused() {
    let batch = batch(&[("cpu", &[], 1, 1.0)]).project(&[0, 2, 3]).unwrap();
    assert!(PointsBySeries::of_rows(&[batch]).unwrap_err().to_string().contains("no column `labels`"));
}

/// Measures real series: CPU utilisation from the Numenta Anomaly Benchmark, one point every five
/// minutes. Reads the CSV files in `TIDEMARK_NAB`, or in `shared/data/nab` beside the checkout.
#[test]
fn real_cpu_series_take_few_bytes() {
    let folder = std::env::var_os("TIDEMARK_NAB").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/nab")),
        PathBuf::from,
    );
    let Ok(files) = std::fs::read_dir(&folder) else {
        println!("skipped: no CSV files in {}, set TIDEMARK_NAB to their folder", folder.display());
        return;
    };
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains("cpu")));
    files.sort();

    let mut best = f64::INFINITY;
    for path in &files {
        let host = path.file_stem().unwrap().to_string_lossy().into_owned();
        let labels = [("host", host.as_str())];
        let rows: Vec<(i64, f64)> = std::fs::read_to_string(path)
            .unwrap()
            .lines()
            .skip(1)
            .map(|line| {
                let (time, value) = line.split_once(',').unwrap();
                let time = NaiveDateTime::parse_from_str(time, "%Y-%m-%d %H:%M:%S").unwrap();
                (time.and_utc().timestamp_nanos_opt().unwrap(), value.parse().unwrap())
            })
            .collect();
        let rows: Vec<Row<'_>> =
            rows.iter().map(|(time, value)| ("cpu", labels.as_slice(), *time, *value)).collect();
        let all = points(&rows);

        let hours = all.by_hour();
        let sorted: Vec<u32> = hours.values().flatten().copied().collect();
        let one = encode(&all, &sorted, Vec::new()).unwrap().len() as f64 / rows.len() as f64;
        let hourly: usize = hours.values().map(|rows| encode(&all, rows, Vec::new()).unwrap().len()).sum();
        println!(
            "{host}: {} points, {one:.2} bytes a point in one file, {:.0} in {} hourly files of 12 points",
            rows.len(),
            hourly as f64 / rows.len() as f64,
            hours.len(),
        );
        best = best.min(one);
    }
    assert!(best < 2.0, "{best} bytes a point");
}
