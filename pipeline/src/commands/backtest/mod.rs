//! `tidemark backtest`: what receivers would have been notified of archived points, by these rules
//! and by others.
//!
//! - `history`: windows of the past, in the order of their ends
//! - `compare`: what two configurations would have sent
//! - `report`: both for people and programs
//!
//! The rules and routes run in [`crate::commands::simulate`].

mod compare;
mod history;
mod report;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use alerts::dispatch::{Command, Silence};
use anyhow::{Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use operators::sql::Catalog;
use tokio::runtime::Runtime;

use crate::catalog::load_catalog;
use crate::commands::alerts::commands::silence_key;
use crate::commands::simulate::{Outcome, Simulation};
use crate::config::{AlertsConfig, Config, Environment, load_silences};
use crate::error::Error;
use crate::time::parse_time;
use crate::time::{nanoseconds, shown};
use history::History;

#[derive(Debug, Args)]
pub struct BacktestArgs {
    /// Start of the range, in event time: 2026-01-31, 2026-01-31T12:30 (UTC),
    /// 2026-01-31T12:30:00+02:00
    #[arg(long, value_parser = parse_time, value_name = "TIME", allow_hyphen_values = true)]
    pub from: i64,
    /// End of the range, which is not part of it
    #[arg(long, value_parser = parse_time, value_name = "TIME", allow_hyphen_values = true)]
    pub to: i64,
    /// Rules, routes and receivers [default: `rules` in [alerts] of the configuration]
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// Rules, routes and receivers to compare with; only the differences are listed
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
    /// Silences that there would have been: [[silence]] with matchers, starts_at, ends_at
    #[arg(long, value_name = "FILE")]
    pub silences: Option<PathBuf>,
    /// Read so much before the range, for the states that its beginning finds, and tell nothing of
    /// it
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub warm_up: Duration,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// What was found out.
#[derive(Debug)]
pub struct Backtest {
    from: i64,
    to: i64,
    notified: Candidate,
    against: Option<Candidate>,
}

/// What one file of rules would have led to.
#[derive(Debug)]
struct Candidate {
    file: PathBuf,
    outcome: Outcome,
}

impl Backtest {
    /// Whether the other file of rules would have sent anything else.
    pub fn differs(&self) -> bool {
        self.differences().is_some_and(|differences| !differences.is_empty())
    }
}

/// Runs the rules over the archive. Needs neither Kafka nor a receiver, and no secret of one. The
/// archive is read on `runtime`; rules are judged outside of it, as by the live role: their plans
/// run to their end on the thread that asks, and inside a task the runtime would have them wait for
/// a turn that never comes.
///
/// # Errors
/// Mistakes in the files, storage that cannot be read, and a range of which the archive has
/// nothing.
pub fn run(
    config: &Config,
    environment: &Environment,
    args: &BacktestArgs,
    runtime: &Runtime,
) -> Result<Backtest> {
    let (from, to) = (args.from, args.to);
    if from >= to {
        bail!("the range is empty: {} is not before {}", shown(from), shown(to));
    }
    let begin = from.saturating_sub(nanoseconds(args.warm_up));
    let Some(rules) = args.rules.as_ref().or(config.alerts.rules.as_ref()) else {
        bail!("there are no rules: name them by --rules, or by `rules` in [alerts] of the configuration");
    };
    let catalog = load_catalog(&config.rollup.sql)?;
    let silences = match &args.silences {
        Some(path) => load_silences(path)?,
        None => Vec::new(),
    };
    let disorder = nanoseconds(config.ingest.max_out_of_orderness);
    let mut runs = Vec::new();
    for file in std::iter::once(rules).chain(&args.against) {
        let mut simulation = simulation(file, environment, &catalog)?;
        apply_silences(&mut simulation, &silences, begin.saturating_add(disorder));
        runs.push((Candidate { file: file.clone(), outcome: Outcome::default() }, simulation));
    }
    let sources = runs.iter().flat_map(|(_, simulation)| simulation.sources().clone()).collect();
    let history = History::open(config, &catalog, &sources)?;
    let (before, _) = runtime.block_on(history.slices(begin, from))?;
    let (within, has_points) = runtime.block_on(history.slices(from, to))?;
    if !has_points {
        let message = format!("the archive has no points from {} to {}", shown(from), shown(to));
        return Err(Error::Refused(message).into());
    }
    let bar = bar(before.len() + within.len());
    for (start, end) in before.into_iter().chain(within) {
        let slice = runtime.block_on(history.read(begin, start, end))?;
        slice.each(|watermark, rows| {
            for (_, simulation) in &mut runs {
                simulation.step(&[], rows, Some(watermark), watermark.saturating_add(disorder));
            }
        });
        for (candidate, simulation) in &mut runs {
            simulation.advance(end.saturating_add(disorder));
            if end == to {
                simulation.finish();
            }
            let outcome = simulation.take();
            if start >= from {
                candidate.outcome.extend(outcome);
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mut candidates = runs.into_iter().map(|(candidate, _)| candidate);
    let notified = candidates.next().expect("the rules are the first candidate");
    Ok(Backtest { from, to, notified, against: candidates.next() })
}

fn simulation(file: &Path, environment: &Environment, catalog: &Catalog) -> Result<Simulation> {
    let config = AlertsConfig::load(file, environment)?;
    if config.rules.is_empty() {
        bail!("{}: there is no rule in it: write a [[rule]]", file.display());
    }
    Simulation::new(&config, catalog).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(|problem| format!("{problem:#}")).collect();
        anyhow::anyhow!("{}", problems.join("\n"))
    })
}

fn apply_silences(simulation: &mut Simulation, silences: &[Silence], at: i64) {
    for silence in silences {
        simulation.command(&silence_key(&silence.id), &Command::Silence(silence.clone()), at);
    }
}

/// A bar on a terminal, nothing elsewhere.
fn bar(slices: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} slices  {elapsed}  {eta} left");
    ProgressBar::new(slices as u64).with_style(style.expect("the template is valid"))
}
