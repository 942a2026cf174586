//! Drills for as long as one likes: `make drill ROUNDS=200`, or one round again:
//! `make drill DRILL=a SEED=42`.
//!
//! Build with `cargo build --release --workspace --features tidemark/set-clock`, then run
//! `target/release/drill`. Drills take turns; the seed of every round is printed before it starts.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use tidemark_tests::Unavailable;
use tidemark_tests::drill::{Drill, Ground, Plan, Report};
use tidemark_tests::duckdb::DuckDb;
use tidemark_tests::influx::Influx;
use tidemark_tests::kafka::Kafka;

/// Injects faults while points flow, and compares the results with batch SQL and the counts with
/// the input.
#[derive(Debug, Parser)]
struct Options {
    /// Rounds altogether; the drills take turns. Default: a round of each.
    #[arg(long)]
    rounds: Option<usize>,
    /// Only drills whose name starts like this: `a`, `f-s3`.
    #[arg(long, default_value = "")]
    drill: String,
    /// The seed of the first round; the following ones count on from it.
    #[arg(long)]
    seed: Option<u64>,
    /// Small rounds, as in the suite.
    #[arg(long)]
    short: bool,
    /// End at the first round that does not add up.
    #[arg(long)]
    fail_fast: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(report) => {
            println!("{report}");
            if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(reason) => {
            eprintln!("drill: cannot run here: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<Report, Unavailable> {
    let drills = Drill::named(&options.drill);
    if drills.is_empty() {
        let names: Vec<&str> = Drill::ALL.iter().map(|drill| drill.name).collect();
        return Err(Unavailable::new(format!(
            "no drill `{}`, there are {}",
            options.drill,
            names.join(", ")
        )));
    }
    let (kafka, influx, duckdb) = (Kafka::start()?, Influx::start()?, DuckDb::find()?);
    let ground = Ground { kafka: &kafka, influx: &influx, duckdb: &duckdb };
    let first = options.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let rounds = options.rounds.unwrap_or(drills.len());
    let bar = ProgressBar::new(rounds as u64);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} (to go {eta}) {msg}");
    bar.set_style(style.expect("the template is valid"));
    let mut report = Report::default();
    for (number, drill) in drills.iter().cycle().take(rounds).enumerate() {
        // The same seed for every drill of a turn, so that `SEED` alone repeats any of them.
        let seed = first + (number / drills.len()) as u64;
        let name = drill.name;
        say(&bar, &format!("{name} SEED={seed}: {}", drill.what));
        bar.set_message(name);
        let started = Instant::now();
        let plan = Plan { seed, long: !options.short };
        // What a panic says is printed by then; the next round has everything of its own but the
        // servers.
        let finished = catch_unwind(AssertUnwindSafe(|| drill.run(&ground, &plan)));
        let clean = match finished {
            Ok(verdict) => {
                for problem in &verdict.accounts.problems {
                    say(&bar, &format!("{name} SEED={seed}: {problem}"));
                }
                report.add(&verdict);
                verdict.accounts.problems.is_empty()
            }
            Err(_) => {
                say(&bar, &format!("{name} SEED={seed}: did not come to its end"));
                report.add_failure(name, started.elapsed());
                false
            }
        };
        bar.inc(1);
        if options.fail_fast && !clean {
            break;
        }
    }
    bar.finish_and_clear();
    Ok(report)
}

/// A line above the bar; also where no bar can be drawn.
fn say(bar: &ProgressBar, line: &str) {
    bar.suspend(|| println!("{line}"));
}
