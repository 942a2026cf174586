//! The results, as a table for people and as JSON.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::case::{Case, Work};
use crate::load::Loaded;

/// What was measured of one case.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) case: Case,
    pub(crate) points: usize,
    /// From the first point until all were read.
    pub(crate) ingest_seconds: Option<f64>,
    /// From the first point until all results were written.
    pub(crate) result_seconds: Option<f64>,
    /// From the start of the process to the first point.
    pub(crate) start_seconds: Option<f64>,
    /// Start included, except where only counting was measured.
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_bytes: Option<u64>,
}

/// A run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) machine: Vec<(&'static str, String)>,
    pub(crate) versions: Vec<(&'static str, String)>,
    pub(crate) inputs: Vec<Loaded>,
    pub(crate) measured: Vec<Measured>,
}

/// The numbers of a row; None is what was not measured.
#[derive(Debug)]
struct Row {
    case: String,
    ingest_rate: Option<f64>,
    result_rate: Option<f64>,
    cpu_seconds_per_million: f64,
    peak_mebibytes: Option<f64>,
    /// The rate of results, against that of counting the same topic.
    share_of_count: Option<f64>,
    start_seconds: Option<f64>,
}

impl Report {
    fn rows(&self) -> Vec<Row> {
        self.measured.iter().map(|measured| self.row(measured)).collect()
    }

    fn row(&self, measured: &Measured) -> Row {
        let points = measured.points as f64;
        let rate = |seconds: Option<f64>| seconds.map(|seconds| points / seconds);
        let is_count =
            |other: &&Measured| other.case.work == Work::Count && other.case.input == measured.case.input;
        let count_seconds = self.measured.iter().find(is_count).and_then(|count| count.ingest_seconds);
        Row {
            case: measured.case.to_string(),
            ingest_rate: rate(measured.ingest_seconds),
            result_rate: rate(measured.result_seconds),
            cpu_seconds_per_million: measured.cpu_seconds / points * 1e6,
            peak_mebibytes: measured.peak_bytes.map(|bytes| bytes as f64 / f64::from(1 << 20)),
            share_of_count: count_seconds.zip(measured.result_seconds).map(|(count, result)| count / result),
            start_seconds: measured.start_seconds,
        }
    }

    /// One object, with the table's columns by name; what was not measured is null.
    pub(crate) fn json(&self) -> Value {
        let facts = |pairs: &[(&str, String)]| -> Map<String, Value> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect()
        };
        let input = |input: &Loaded| {
            json!({
                "input": input.input.to_string(), "points": input.points, "messages": input.messages,
                "partitions": input.partitions, "bytes": input.bytes, "result_rows": input.result_rows,
            })
        };
        let case = |row: Row| {
            json!({
                "case": row.case,
                "ingest_points_per_second": row.ingest_rate,
                "result_points_per_second": row.result_rate,
                "cpu_seconds_per_million_points": row.cpu_seconds_per_million,
                "peak_mebibytes": row.peak_mebibytes,
                "share_of_count": row.share_of_count,
                "start_seconds": row.start_seconds,
            })
        };
        json!({
            "machine": facts(&self.machine),
            "versions": facts(&self.versions),
            "inputs": self.inputs.iter().map(input).collect::<Vec<_>>(),
            "cases": self.rows().into_iter().map(case).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.machine.iter().chain(&self.versions) {
            writeln!(f, "{name}: {value}")?;
        }
        for input in &self.inputs {
            writeln!(
                f,
                "input {}: {} points in {} messages of {} MB over {} partitions, lz4; {} result rows",
                input.input,
                grouped(input.points as f64),
                grouped(input.messages as f64),
                input.bytes / 1_000_000,
                input.partitions,
                grouped(input.result_rows as f64),
            )?;
        }
        let titles = ["case", "read/s", "to results/s", "CPU s/M", "peak MiB", "of count", "start s"];
        writeln!(f, "\n{}", line(&titles.map(str::to_owned)))?;
        for row in self.rows() {
            let cells = [
                row.case,
                shown(row.ingest_rate, grouped),
                shown(row.result_rate, grouped),
                format!("{:.2}", row.cpu_seconds_per_million),
                shown(row.peak_mebibytes, grouped),
                shown(row.share_of_count, |share| format!("{:.0} %", share * 100.0)),
                shown(row.start_seconds, |seconds| format!("{seconds:.1}")),
            ];
            writeln!(f, "{}", line(&cells))?;
        }
        write!(
            f,
            "\nread/s, to results/s: points a second from the first point until all are read, until all results are \
             written.\nCPU s/M: processor seconds of the process for a million points, its start included."
        )
    }
}

/// Names to the left, numbers to the right.
fn line(cells: &[String; 7]) -> String {
    let [case, numbers @ ..] = cells;
    let mut line = format!("{case:24}");
    for number in numbers {
        line += &format!(" {number:>13}");
    }
    line
}

fn shown(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

/// A whole number with a comma between thousands.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
