//! The benchmark: points per second from Kafka to written rollups, against a consumer that only counts messages.
//!
//! Everything is measured in one run on one machine: a real broker is started, filled once, and read by one case
//! after the other. The program under test is the built `tidemark`, a process of its own. What could not be measured
//! is shown as a dash.
//!
//! Build with `cargo build --release --workspace`, then run `target/release/bench`.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod case;
mod count;
mod load;
mod machine;
mod memory;
mod pipeline;
mod report;

use std::process::ExitCode;

use clap::Parser;
use tidemark_tests::Unavailable;
use tidemark_tests::influx::Influx;
use tidemark_tests::kafka::Kafka;

use crate::case::{Case, Input, Work};
use crate::report::{Measured, Report};

/// Measures how fast Tidemark reads, aggregates and writes.
#[derive(Debug, Parser)]
struct Options {
    /// Points of the input: 10,000 hosts in 8 regions report every 10 s of event time.
    #[arg(long, default_value_t = 5_000_000)]
    points: usize,
    /// Cases to run, by name and separated by commas: those of the table, in which "influx" ones are left out by
    /// default.
    #[arg(long, value_delimiter = ',', value_parser = Case::parse)]
    cases: Vec<Case>,
    /// Also write the results to a real InfluxDB.
    #[arg(long)]
    influx: bool,
    /// Measure memory instead: a backlog while InfluxDB is down, more series than a rollup may have, and recovery.
    #[arg(long)]
    memory: bool,
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

fn main() -> ExitCode {
    let options = Options::parse();
    if options.memory {
        return match memory::run(options.backlog, options.series) {
            Ok(()) => ExitCode::SUCCESS,
            Err(reason) => {
                eprintln!("bench: cannot run here: {reason}");
                ExitCode::FAILURE
            }
        };
    }
    match run(&options) {
        Ok(report) if options.json => println!("{}", report.json()),
        Ok(report) => println!("{report}"),
        Err(reason) => {
            eprintln!("bench: cannot run here: {reason}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn run(options: &Options) -> Result<Report, Unavailable> {
    let cases = if options.cases.is_empty() { Case::all(options.influx) } else { options.cases.clone() };
    // Before the broker and the input, which take a minute.
    let program = pipeline::program_version()?;
    let needs_influx = cases.iter().any(|case| matches!(case.work, Work::Pipeline { influx: true, .. }));
    let influx = needs_influx.then(Influx::start).transpose()?;
    let kafka = Kafka::start()?;

    let mut versions = vec![
        ("tidemark", program),
        ("kafka", kafka.version()),
        ("librdkafka", rdkafka::util::get_rdkafka_version().1),
    ];
    versions.extend(influx.as_ref().map(|influx| ("influxdb", influx.version())));

    let inputs: Vec<Input> =
        Input::ALL.into_iter().filter(|input| cases.iter().any(|case| case.input == *input)).collect();
    let loaded = load::load(&kafka, &inputs, options.points);
    let mut measured: Vec<Measured> = Vec::new();
    for case in cases {
        let input = &loaded[&case.input];
        measured.push(match case.work {
            Work::Count => count::measure(&kafka, case, input),
            Work::Pipeline { archive, influx: to_influx } => {
                let influx = influx.as_ref().filter(|_| to_influx);
                pipeline::measure(&kafka, influx, case, archive, input)?
            }
        });
    }
    Ok(Report { machine: machine::describe(), versions, inputs: loaded.into_values().collect(), measured })
}
