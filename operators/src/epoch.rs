//! The points of an epoch as the columns that rollups are computed over.
//!
//! A point is 20 bytes while it is decoded, and several times that with its texts in columns. So
//! the columns are made a slice at a time, when a plan asks for them and where it runs: they are
//! still in the processor's cache when it reads them, and their memory serves the next slice, where
//! new memory for all of an epoch would have to be cleared by the operating system first.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, TimestampNanosecondArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;

use points::decode::Points;
use points::series::SeriesTable;

use crate::sql::points_schema;
use crate::stages::ROWS;

/// Points, with the text of the series that were known when they were taken.
#[derive(Debug)]
pub struct EpochPoints {
    schema: SchemaRef,
    /// Name and labels, a row for each series.
    text: Vec<ArrayRef>,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    series: UInt32Array,
    time: TimestampNanosecondArray,
    value: Float64Array,
}

impl EpochPoints {
    /// `parts` have ids of `series` as it is now; what becomes of it later changes nothing.
    pub fn new(series: &mut SeriesTable, parts: impl IntoIterator<Item = Points>) -> Self {
        let parts = parts.into_iter().filter(|points| !points.is_empty()).map(|points| Part {
            series: points.series.into(),
            time: points.time.into(),
            value: points.value.into(),
        });
        Self {
            schema: points_schema(series.wanted_labels()),
            parts: parts.collect(),
            text: series.text().to_vec(),
        }
    }

    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.series.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// In the schema of [`crate::partial::points_schema`], in the order of arrival.
    pub fn batches(self: &Arc<Self>) -> impl Iterator<Item = RecordBatch> + Send + use<> {
        let points = Arc::clone(self);
        (0..points.parts.len()).flat_map(move |part| {
            let points = Arc::clone(&points);
            let rows = points.parts[part].series.len();
            (0..rows).step_by(ROWS).map(move |from| points.slice(part, from, ROWS.min(rows - from)))
        })
    }

    fn slice(&self, part: usize, from: usize, rows: usize) -> RecordBatch {
        let part = &self.parts[part];
        let series = part.series.slice(from, rows);
        let mut texts = self.text.iter().map(|column| {
            take(column, &series, None).expect("ids are rows of the table that they were taken with")
        });
        let mut columns = vec![
            texts.next().expect("the first column is the name"),
            Arc::new(part.time.slice(from, rows)) as ArrayRef,
            Arc::new(part.value.slice(from, rows)),
        ];
        columns.extend(texts);
        RecordBatch::try_new(Arc::clone(&self.schema), columns).expect("the columns are those of the schema")
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;

    use super::*;
    use points::decode::{DecodeOptions, Decoder};

    #[test]
    fn slices_have_the_points_in_their_order_whatever_becomes_of_the_table() {
        let mut decoder = Decoder::new(DecodeOptions::default(), vec!["host".into()]);
        let decode = |decoder: &mut Decoder, host: &str, count: usize| {
            let mut points = Points::default();
            for row in 0..count {
                let line = format!("cpu,host={host} value={row} {}", 1_700_000_000_000_000_000 + row as i64);
                decoder.decode(line.as_bytes(), None, i64::MAX, &mut points, &mut Vec::new());
            }
            points
        };
        let parts = [decode(&mut decoder, "a", ROWS + 1), Points::default(), decode(&mut decoder, "b", 3)];
        let points = Arc::new(EpochPoints::new(decoder.series(), parts));
        decoder.series().clear();
        decode(&mut decoder, "other", 1);

        assert_eq!(points.len(), ROWS + 4);
        for _ in 0..2 {
            let batches: Vec<RecordBatch> = points.batches().collect();
            let rows: Vec<usize> = batches.iter().map(RecordBatch::num_rows).collect();
            assert_eq!(rows, [ROWS, 1, 3]);
            let hosts: Vec<&str> =
                batches.iter().map(|batch| batch.column(3).as_string_view().value(0)).collect();
            assert_eq!(hosts, ["a", "a", "b"]);
            let value =
                |batch: &RecordBatch| batch["value"].as_primitive::<arrow::datatypes::Float64Type>().value(0);
            assert_eq!(batches.iter().map(value).collect::<Vec<_>>(), [0.0, ROWS as f64, 0.0]);
        }
    }
}
