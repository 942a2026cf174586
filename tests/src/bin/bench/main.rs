//! The benchmark: points per second from Kafka to written rollups, against a consumer that only
//! counts messages.
//!
//! Everything is measured in one run on one machine: a real broker is started, filled once, and
//! read by one case after the other. The program under test is the built `tidemark`, processes of
//! its own. What could not be measured is shown as a dash, with the reason.
//!
//! Build with `cargo build --release --workspace`, then run `target/release/bench`.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod attempt;
mod batch;
mod case;
mod discard;
mod flink;
mod latency;
mod load;
mod machine;
mod memory;
mod micro;
mod pipeline;
mod read;
mod report;
mod silent;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tidemark_tests::Unavailable;
use tidemark_tests::flink::Flink;
use tidemark_tests::influx::Influx;
use tidemark_tests::kafka::Kafka;

use crate::attempt::Attempts;
use crate::case::{Case, Input, Work};
use crate::report::Report;

/// Of points a second, when no case says what is possible.
const LATENCY_RATE: f64 = 300_000.0;
/// Latency is also measured at this rate, whatever the machine.
const STEADY_RATE: usize = 100_000;
/// Latency is measured at this part of the rate of `json-host`: half of what the machine can do
/// when it also has to make the points and send them, a message each, which costs as much as to
/// read and aggregate them.
const LATENCY_SHARE: f64 = 0.25;

/// Measures how fast Tidemark reads, aggregates and writes.
#[derive(Debug, Parser)]
struct Options {
    /// Points of each input: 10,000 hosts in 8 regions, or a million, report every 10 s of event
    /// time.
    #[arg(long, default_value_t = 20_000_000)]
    points: usize,
    /// Cases to run, by name and separated by commas. Default: all but Flink's, and latency.
    #[arg(long, value_delimiter = ',', value_parser = Case::parse)]
    cases: Vec<Case>,
    /// Also run Flink SQL, which is downloaded the first time.
    #[arg(long)]
    peers: bool,
    /// Measure latency for so many seconds, at a quarter of the rate of `json-host`; 0: not at all.
    /// Default: 60, and 0 with `--cases`.
    #[arg(long)]
    latency: Option<u64>,
    /// Measure memory instead: a backlog while InfluxDB is down, more series than a rollup may
    /// have, recovery, late points, remembered alerts and corrections.
    #[arg(long)]
    memory: bool,
    /// Measure epochs instead, with 4 and with 1,000 silent source partitions.
    #[arg(long)]
    silent: bool,
    /// Measure the steps of the pipeline one by one instead, without Kafka.
    #[arg(long)]
    micro: bool,
    /// Points of the backlog that `--memory` reads.
    #[arg(long, default_value_t = 20_000_000)]
    backlog: usize,
    /// Series that `--memory` sends to a rollup with a limit of a fifth of them.
    #[arg(long, default_value_t = 5_000_000)]
    series: usize,
    /// Print JSON in place of the table.
    #[arg(long)]
    json: bool,
}

impl Options {
    fn cases(&self) -> Vec<Case> {
        let mut cases = self.cases.clone();
        if cases.is_empty() {
            cases = Case::all();
            cases.retain(|case| case.work != Work::Flink || self.peers);
        }
        cases
    }

    fn latency(&self) -> Duration {
        Duration::from_secs(self.latency.unwrap_or(if self.cases.is_empty() { 60 } else { 0 }))
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.micro {
        micro::run();
        return ExitCode::SUCCESS;
    }
    let attempts = if options.memory {
        memory::run(options.backlog, options.series)
    } else if options.silent {
        silent::run().map(|()| Attempts::default())
    } else {
        run(&options)
    };
    match attempts {
        Ok(attempts) if attempts.failed.is_empty() => {
            eprint!("{attempts}");
            ExitCode::SUCCESS
        }
        Ok(attempts) => {
            eprint!("{attempts}");
            ExitCode::FAILURE
        }
        Err(reason) => {
            eprintln!("bench: cannot run here: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// Measures one case after the other and prints the report, with whatever was measured.
fn run(options: &Options) -> Result<Attempts, Unavailable> {
    let cases = options.cases();
    let latency = options.latency();
    // Before the broker and the input, which take a minute.
    let program = pipeline::program_version()?;
    let mut attempts = Attempts::default();
    let needs_influx = cases.iter().any(|case| case.work.writes_influx()) || !latency.is_zero();
    let influx = needs_influx.then(|| attempts.make("InfluxDB", Influx::start)).flatten();
    let needs_flink = cases.iter().any(|case| case.work == Work::Flink);
    let flink = needs_flink.then(|| attempts.make("Flink SQL", Flink::find)).flatten();
    let kafka = Kafka::start()?;

    let mut versions = vec![
        ("tidemark", program),
        ("kafka", kafka.version()),
        ("librdkafka", rdkafka::util::get_rdkafka_version().1),
    ];
    versions.extend(influx.as_ref().map(|influx| ("influxdb", influx.version())));
    versions.extend(flink.as_ref().map(|flink| ("flink", flink.version())));
    let mut report = Report {
        machine: machine::describe(),
        versions,
        inputs: Vec::new(),
        measured: Vec::new(),
        latency: Vec::new(),
    };

    for input in Input::ALL {
        let of_input: Vec<Case> = cases.iter().copied().filter(|case| case.input == input).collect();
        if of_input.is_empty() {
            continue;
        }
        let points = load::points(input, options.points);
        let loaded = load::load(&kafka, input, &points);
        for case in of_input {
            if case.work == Work::Flink && flink.is_none() || case.work.writes_influx() && influx.is_none() {
                continue;
            }
            let measured = attempts.make(&case.to_string(), || match case.work {
                Work::Count => Ok(read::measure(&kafka, case, false, &loaded)),
                Work::Decode => Ok(read::measure(&kafka, case, true, &loaded)),
                Work::Batch => Ok(batch::measure(case, &loaded, &points)),
                Work::Flink => {
                    Ok(flink::measure(flink.as_ref().expect("it is there"), &kafka, case, &loaded))
                }
                Work::Pipeline(setup) => pipeline::measure(&kafka, influx.as_ref(), case, setup, &loaded),
            });
            report.measured.extend(measured);
        }
        report.inputs.push(loaded);
    }
    if let Some(influx) = influx.filter(|_| !latency.is_zero()) {
        let full = report.rate(|case| case.input == Input::Json && case.work == Work::HOST);
        let rate = full.map_or(LATENCY_RATE, |rate| rate * LATENCY_SHARE);
        for rate in [rate as usize, STEADY_RATE] {
            let what = format!("latency at {rate} points a second");
            let measured = attempts.make(&what, || latency::measure(&kafka, &influx, rate, latency));
            report.latency.extend(measured);
        }
    }
    if options.json {
        println!("{}", report.json(&attempts));
    } else {
        println!("{report}");
    }
    Ok(attempts)
}
