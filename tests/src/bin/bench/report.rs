//! The results, as a table for people and as JSON.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::attempt::Attempts;
use crate::case::{Case, Work};
use crate::load::Loaded;

/// What was measured of one case.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) case: Case,
    pub(crate) points: usize,
    /// From the first point until all were read.
    pub(crate) read_seconds: Option<f64>,
    /// From the first point until all results were written, and all points archived if they should
    /// be.
    pub(crate) result_seconds: Option<f64>,
    /// By process, start included; of the references without it.
    pub(crate) cpu_seconds: Vec<(&'static str, f64)>,
    pub(crate) peak_bytes: Vec<(&'static str, u64)>,
    /// Partial states in Kafka, and raw Parquet.
    pub(crate) partials_bytes: Option<u64>,
    pub(crate) archive_bytes: Option<u64>,
}

impl Measured {
    /// Of this case, and nothing measured yet.
    pub(crate) fn new(case: Case, points: usize) -> Self {
        Self {
            case,
            points,
            read_seconds: None,
            result_seconds: None,
            cpu_seconds: Vec::new(),
            peak_bytes: Vec::new(),
            partials_bytes: None,
            archive_bytes: None,
        }
    }

    /// Of results, or of reading where there are none.
    fn rate(&self) -> Option<f64> {
        self.result_seconds.or(self.read_seconds).map(|seconds| self.points as f64 / seconds)
    }

    fn per_point(&self, bytes: Option<u64>) -> Option<f64> {
        bytes.map(|bytes| bytes as f64 / self.points as f64)
    }

    fn cpu_per_million(&self) -> Vec<(&'static str, f64)> {
        self.cpu_seconds.iter().map(|(role, seconds)| (*role, seconds / self.points as f64 * 1e6)).collect()
    }
}

/// Milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Percentiles {
    count: usize,
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl Percentiles {
    /// Of values in any order.
    pub(crate) fn of(values: &mut [f64]) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len().max(1)) - 1;
            values.get(index).copied().unwrap_or(f64::NAN)
        };
        Self { count: values.len(), p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
    }

    fn json(self) -> Value {
        json!({ "count": self.count, "p50": self.p50, "p90": self.p90, "p99": self.p99, "max": self.max })
    }
}

/// How late results are under a steady load.
#[derive(Debug)]
pub(crate) struct Latency {
    /// Points a second.
    pub(crate) rate: f64,
    pub(crate) disorder: Duration,
    /// From the end of a window until its row was acknowledged by InfluxDB.
    pub(crate) rows: Percentiles,
    /// From the end of a window until the receiver had the alert.
    pub(crate) notifications: Percentiles,
    /// From the end of a window until the mail server had the mail about the alert.
    pub(crate) mails: Percentiles,
}

/// A run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) machine: Vec<(&'static str, String)>,
    pub(crate) versions: Vec<(&'static str, String)>,
    pub(crate) inputs: Vec<Loaded>,
    pub(crate) measured: Vec<Measured>,
    pub(crate) latency: Vec<Latency>,
}

impl Report {
    /// The rate of a case, as far as it was measured.
    pub(crate) fn rate(&self, wanted: impl Fn(&Case) -> bool) -> Option<f64> {
        self.measured.iter().find(|measured| wanted(&measured.case)).and_then(Measured::rate)
    }

    /// The rate, against another one's of the same input.
    fn share(&self, measured: &Measured, of: Work) -> Option<f64> {
        let other = self.rate(|case| case.input == measured.case.input && case.work == of)?;
        Some(measured.rate()? / other)
    }

    /// One object, with the table's columns by name; what was not measured is null.
    pub(crate) fn json(&self, attempts: &Attempts) -> Value {
        let facts = |pairs: &[(&str, String)]| -> Map<String, Value> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect()
        };
        let input = |input: &Loaded| {
            json!({
                "input": input.input.to_string(), "points": input.points, "messages": input.messages,
                "partitions": input.partitions, "bytes": input.bytes, "result_rows": input.result_rows,
            })
        };
        let by_role = |pairs: Vec<(&'static str, f64)>| -> Map<String, Value> {
            let role = |role: &str| if role.is_empty() { "reference".to_owned() } else { role.to_owned() };
            pairs.into_iter().map(|(name, value)| (role(name), json!(value))).collect()
        };
        let case = |measured: &Measured| {
            let peak = measured.peak_bytes.iter().map(|(role, bytes)| (*role, *bytes as f64)).collect();
            json!({
                "case": measured.case.to_string(),
                "points_per_second": measured.rate(),
                "read_points_per_second": measured.read_seconds.map(|seconds| measured.points as f64 / seconds),
                "share_of_count": self.share(measured, Work::Count),
                "times_flink": self.share(measured, Work::Flink),
                "cpu_seconds_per_million_points": by_role(measured.cpu_per_million()),
                "peak_bytes": by_role(peak),
                "partials_bytes_per_point": measured.per_point(measured.partials_bytes),
                "parquet_bytes_per_point": measured.per_point(measured.archive_bytes),
            })
        };
        let latency = |latency: &Latency| {
            json!({
                "points_per_second": latency.rate,
                "max_out_of_orderness_seconds": latency.disorder.as_secs_f64(),
                "window_end_to_influxdb_milliseconds": latency.rows.json(),
                "window_end_to_notification_milliseconds": latency.notifications.json(),
                "window_end_to_mail_milliseconds": latency.mails.json(),
            })
        };
        json!({
            "machine": facts(&self.machine),
            "versions": facts(&self.versions),
            "inputs": self.inputs.iter().map(input).collect::<Vec<_>>(),
            "cases": self.measured.iter().map(case).collect::<Vec<_>>(),
            "latency": self.latency.iter().map(latency).collect::<Vec<_>>(),
            "missing": attempts.missing,
            "failed": attempts.failed,
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
                "input {}: {} points in {} messages of {} MB over {} partitions, lz4; {} rows by host and minute",
                input.input,
                grouped(input.points as f64),
                grouped(input.messages as f64),
                input.bytes / 1_000_000,
                input.partitions,
                grouped(input.result_rows as f64),
            )?;
        }
        let titles =
            ["case", "points/s", "of count", "of Flink", "CPU s/M", "peak MiB", "partials B", "Parquet B"];
        writeln!(f, "\n{}", line(&titles.map(str::to_owned)))?;
        for measured in &self.measured {
            let mebibytes = |(_, bytes): &(_, u64)| grouped((bytes >> 20) as f64);
            let cells = [
                measured.case.to_string(),
                shown(measured.rate(), grouped),
                shown(self.share(measured, Work::Count), |share| format!("{share:.2}")),
                shown(self.share(measured, Work::Flink), |share| format!("{share:.1}")),
                joined(measured.cpu_per_million().iter().map(|(_, seconds)| format!("{seconds:.2}"))),
                joined(measured.peak_bytes.iter().map(mebibytes)),
                shown(measured.per_point(measured.partials_bytes), |bytes| format!("{bytes:.1}")),
                shown(measured.per_point(measured.archive_bytes), |bytes| format!("{bytes:.2}")),
            ];
            writeln!(f, "{}", line(&cells))?;
        }
        for latency in &self.latency {
            writeln!(
                f,
                "\nlatency at {} points/s, max_out_of_orderness {} s, from the end of a window, ms:",
                grouped(latency.rate),
                latency.disorder.as_secs_f64(),
            )?;
            let lines = [
                ("to InfluxDB's acknowledgement", latency.rows),
                ("to the webhook's receiver", latency.notifications),
                ("to the mail server", latency.mails),
            ];
            for (what, Percentiles { count, p50, p90, p99, max }) in lines {
                writeln!(
                    f,
                    "{what:30} p50 {p50:.0}  p90 {p90:.0}  p99 {p99:.0}  max {max:.0}  (of {})",
                    grouped(count as f64)
                )?;
            }
        }
        write!(
            f,
            "\npoints/s: from the first point until all results are written (and all points are archived); of references \
             until all are read.\nCPU s/M: processor seconds for a million points, of ingest + rollup, their start included, + the \
             broker.\npeak MiB: of ingest + rollup, all processes together.\npartials B, Parquet B: bytes a point in the internal topic and in raw Parquet."
        )
    }
}

/// Of the columns behind the first.
const WIDTHS: [usize; 7] = [12, 9, 9, 18, 12, 11, 10];

/// Names to the left, numbers to the right.
fn line(cells: &[String; 8]) -> String {
    let [case, numbers @ ..] = cells;
    let mut line = format!("{case:22}");
    for (number, width) in numbers.iter().zip(WIDTHS) {
        line += &format!(" {number:>width$}");
    }
    line
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { "-".to_owned() } else { parts.join(" + ") }
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
