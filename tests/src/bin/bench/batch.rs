//! DataFusion alone: the query over points in memory, which no pipeline that computes with it can
//! beat.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringViewArray, TimestampNanosecondArray};
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use operators::sql::batch_functions;
use tidemark_tests::input::Point;

use crate::case::Case;
use crate::load::Loaded;
use crate::machine;
use crate::report::Measured;

const QUERY: &str =
    "SELECT tumble(time, INTERVAL '1 minute') AS window_start, host, region, count(*) AS points,
       avg(value) AS avg, max(value) AS max, min(value) AS min
FROM points WHERE name = 'cpu.load' GROUP BY 1, 2, 3";

/// Rows of a batch: DataFusion's own default.
const ROWS: usize = 8_192;

/// Puts the points into memory, unmeasured, and runs the query on all cores.
///
/// # Panics
/// When the query gives other rows than there should be.
pub(crate) fn measure(case: Case, input: &Loaded, points: &[Point]) -> Measured {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut partitions = vec![Vec::new(); cores];
    for (number, chunk) in points.chunks(ROWS).enumerate() {
        partitions[number % cores].push(batch(chunk));
    }
    let schema = partitions[0][0].schema();
    let table = MemTable::try_new(schema, partitions).unwrap();
    let session = SessionContext::new();
    for function in batch_functions() {
        session.register_udf(function);
    }
    session.register_table("points", Arc::new(table)).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();

    let start = Instant::now();
    let cpu = machine::cpu_seconds(std::process::id());
    let batches = runtime.block_on(async { session.sql(QUERY).await.unwrap().collect().await }).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    let cpu = machine::cpu_seconds(std::process::id()) - cpu;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(rows, input.result_rows, "{case}: rows");
    Measured {
        result_seconds: Some(seconds),
        cpu_seconds: vec![("", cpu)],
        ..Measured::new(case, points.len())
    }
}

fn batch(points: &[Point]) -> RecordBatch {
    let text = |of: &dyn for<'a> Fn(&'a Point) -> &'a str| -> ArrayRef {
        Arc::new(StringViewArray::from_iter_values(points.iter().map(of)))
    };
    let columns: [(&str, ArrayRef); 5] = [
        ("name", text(&|point| &point.series.name)),
        ("host", text(&|point| &point.series.labels["host"])),
        ("region", text(&|point| &point.series.labels["region"])),
        ("time", Arc::new(TimestampNanosecondArray::from_iter_values(points.iter().map(|point| point.time)))),
        ("value", Arc::new(Float64Array::from_iter_values(points.iter().map(|point| point.value)))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}
