//! What the demo shows: rollups as their windows close, alerts as they are delivered, and a line of
//! counters that stays at the bottom of a terminal.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::DateTime;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::sync::{broadcast, mpsc};

use super::{burn, late};
use crate::commands::sample::SamplePoint;
use crate::roles::context::Context;
use crate::roles::rollup::Event;
use crate::telemetry::{PartitionLabels, TierLabels};
use crate::time::shown as shown_time;

/// Groups shown of one window; a machine may have many disks or interfaces.
const SHOWN_ROWS: usize = 4;
/// Without a terminal the line of counters is printed this often, in seconds.
const PLAIN_INTERVAL: u64 = 5;

pub(super) struct Screen {
    bar: ProgressBar,
    is_terminal: bool,
}

impl Screen {
    pub(super) fn new(address: SocketAddr, folder: &Path) -> Self {
        use std::io::IsTerminal;
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
            bar.set_style(style);
        }
        let screen = Self { bar, is_terminal: std::io::stderr().is_terminal() };
        screen.line(&format!(
            "http://{address}/api/status, /api/alerts and /metrics say how the demo is doing."
        ));
        screen.line("Tidemark demo: this machine's metrics, each second, in 10-second windows.");
        screen.line(
            "Kafka is an in-process stand-in (librdkafka's mock cluster); everything else is the real thing.",
        );
        screen.line(&format!("Rollups and raw points are Parquet below {}", folder.display()));
        screen.line(&format!("Alert CpuBusy: average CPU above 80 %; {}.", burn::notice()));
        screen.line(&format!("Late data: {}.", late::notice()));
        screen.line("The first windows close in about 20 s. Ctrl-C ends.\n");
        screen
    }

    /// Shows until shutdown.
    pub(super) async fn show(
        self,
        mut events: broadcast::Receiver<Event>,
        mut deliveries: mpsc::Receiver<Value>,
        mut late: mpsc::Receiver<SamplePoint>,
        context: Context,
    ) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        let mut seconds = 0;
        loop {
            tokio::select! {
                () = context.shutdown.triggered() => break,
                event = events.recv() => match event {
                    Ok(Event::Rows { table, rows, is_correction }) => self.rows(&table, &rows, is_correction),
                    Ok(Event::Alert(alert)) => self.line(&format!(
                        "ALERT    {} {:?}: {}", alert.rule, alert.status, alert.summary)),
                    // Skipped rows are still in the store.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                Some(body) = deliveries.recv() => self.delivery(&body),
                Some(point) = late.recv() => self.line(&format!(
                    "LATE     {} = {:.1} of {} was sent now", point.series(), point.value, shown_time(point.time))),
                _ = ticks.tick() => {
                    self.bar.set_message(counters(&context));
                    self.bar.tick();
                    seconds += 1;
                    if !self.is_terminal && seconds % PLAIN_INTERVAL == 0 {
                        println!("{}", counters(&context));
                    }
                }
            }
        }
        self.bar.finish_and_clear();
        println!("{}", counters(&context));
    }

    fn line(&self, text: &str) {
        if self.is_terminal {
            self.bar.println(text);
        } else {
            println!("{text}");
        }
    }

    fn rows(&self, rollup: &str, rows: &RecordBatch, is_correction: bool) {
        let mark = if is_correction { "(corrected)" } else { "" };
        for row in 0..rows.num_rows().min(SHOWN_ROWS) {
            self.line(&format!("{rollup:<13} {}{mark}", shown(rows, row)));
        }
        if rows.num_rows() > SHOWN_ROWS {
            self.line(&format!("{rollup:<13} … and {} more groups", rows.num_rows() - SHOWN_ROWS));
        }
    }

    fn delivery(&self, body: &Value) {
        let status = body["status"].as_str().unwrap_or("?");
        let summary = body["alerts"][0]["annotations"]["summary"].as_str().unwrap_or("?");
        self.line(&format!("WEBHOOK  received {status}: {summary}"));
    }
}

/// One row on a line: `name=value`, numbers cut to what a person reads.
fn shown(rows: &RecordBatch, row: usize) -> String {
    let options = FormatOptions::default().with_null("-");
    let mut text = String::new();
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        let value = match ArrayFormatter::try_new(column.as_ref(), &options) {
            Ok(formatter) => formatter.value(row).to_string(),
            Err(error) => error.to_string(),
        };
        let value = match value.parse::<f64>() {
            Ok(number) if value.contains('.') => format!("{number:.2}"),
            _ => value,
        };
        text.push_str(&format!("{}={value}  ", field.name()));
    }
    text
}

fn counters(context: &Context) -> String {
    let metrics = &context.metrics;
    let tables = context.catalog.rollups.iter().flat_map(|rollup| query::tables_of(rollup));
    let written: u64 = tables
        .map(|table| {
            let labels = TierLabels { rollup: table.rollup, tier: table.tier };
            metrics.rollup.rows_written.get_or_create(&labels).get()
        })
        .sum();
    let watermark = metrics.rollup.watermark_seconds.get_or_create(&PartitionLabels { partition: 0 }).get();
    let behind = context.clock.now_ns() as f64 / 1e9 - watermark;
    let shown = match DateTime::from_timestamp(watermark as i64, 0) {
        Some(time) if watermark > 0.0 => format!("{} ({behind:.0} s behind)", time.format("%H:%M:%S")),
        _ => "none yet".to_owned(),
    };
    format!(
        "watermark {shown}   points {}   series {}   epochs {}   rollup rows {written}   archived {}",
        metrics.ingest.points.get(),
        metrics.ingest.series.get(),
        metrics.ingest.epochs.get(),
        metrics.archive.rows.get(),
    )
}
