//! A case: rollups, and the points that they see.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use operators::failure::{Cause, Failure};
use operators::partial::points_schema;
use operators::sql::{Catalog, compile};
use points::decode::{DecodeOptions, Decoder, Format, Points};

#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) catalog: Catalog,
    decoder: Decoder,
    points: Points,
    /// Whether operations fail on some of its points and rows.
    values_fail: bool,
}

impl Case {
    /// The `.sql` files of a folder, without `bounds.sql`, and its `points.jsonl`.
    pub(crate) fn read(folder: &Path) -> Result<Self, String> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.ends_with(".sql") && name != "bounds.sql" {
                files.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
        files.sort();
        let points =
            fs::read(folder.join("points.jsonl")).map_err(|error| format!("points.jsonl: {error}"))?;
        let case = Self::new(&files, &points)?;
        Ok(Self { values_fail: folder.ends_with("operations_that_fail"), ..case })
    }

    /// Compiles rollups given as (file, text) and decodes points given as JSON lines. Windows are
    /// never final.
    pub(crate) fn new(files: &[(String, String)], json: &[u8]) -> Result<Self, String> {
        let mut catalog = compile(files);
        if let Some(error) = catalog.errors.first() {
            return Err(error.to_string());
        }
        for rollup in &mut catalog.rollups {
            let rollup = Arc::get_mut(rollup).expect("nobody else has the catalog yet");
            rollup.allowed_lateness = i64::MAX;
        }
        let options = DecodeOptions {
            format: Format::Json,
            max_message_bytes: usize::MAX,
            oldest: i64::MIN,
            ..DecodeOptions::default()
        };
        let mut decoder = Decoder::new(options, catalog.labels.clone());
        let (mut points, mut rejected) = (Points::default(), Vec::new());
        decoder.decode(json, None, i64::MAX, &mut points, &mut rejected);
        match rejected.first() {
            Some(rejection) => Err(format!("a point is refused: {rejection:?}")),
            None => Ok(Self { catalog, decoder, points, values_fail: false }),
        }
    }

    /// Whether nothing has failed that does not belong to the case.
    pub(crate) fn has_known(&self, failures: &[Failure]) -> bool {
        failures.iter().all(|failure| self.values_fail && failure.cause == Cause::Value)
    }

    pub(crate) fn len(&self) -> usize {
        self.points.len()
    }

    /// Event time of a point, and the number of its series.
    pub(crate) fn time_and_series(&self, point: usize) -> (i64, u32) {
        (self.points.time[point], self.points.series[point])
    }

    /// All points as they are in cold storage.
    pub(crate) fn stored(&mut self) -> RecordBatch {
        let series = self.decoder.series();
        let (name, _) = series.columns(&self.points.series);
        let labels = series.labels_map(&self.points.series);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(name),
            Arc::new(labels),
            Arc::new(TimestampNanosecondArray::from(self.points.time.clone())),
            Arc::new(Float64Array::from(self.points.value.clone())),
        ];
        let schema = Schema::new(vec![
            Field::new("name", DataType::Utf8View, false),
            Field::new("labels", columns[1].data_type().clone(), false),
            Field::new("time", DataType::Timestamp(TimeUnit::Nanosecond, None), false),
            Field::new("value", DataType::Float64, false),
        ]);
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    /// Some points as `ingest` aggregates them.
    pub(crate) fn ingested(&mut self, points: &[usize]) -> RecordBatch {
        let series: Vec<u32> = points.iter().map(|point| self.points.series[*point]).collect();
        let times = points.iter().map(|point| self.points.time[*point]);
        let values = points.iter().map(|point| self.points.value[*point]);
        let (name, labels) = self.decoder.series().columns(&series);
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(name),
            Arc::new(TimestampNanosecondArray::from_iter_values(times)),
            Arc::new(Float64Array::from_iter_values(values)),
        ];
        columns.extend(labels.into_iter().map(|label| Arc::new(label) as ArrayRef));
        RecordBatch::try_new(points_schema(&self.catalog.labels), columns).unwrap()
    }
}
