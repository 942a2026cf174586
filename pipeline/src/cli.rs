//! The command line: what can be asked of the program, and who answers.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use operators::sql::Catalog;
use serde_json::json;
use sinks::{plain_json, plain_lines};
use tokio::runtime::Runtime;

use crate::catalog::load_catalog;
use crate::clock::Clock;
use crate::commands::alerts::{self, cli::AlertsCommand};
use crate::commands::backtest::{self, BacktestArgs};
use crate::commands::check;
use crate::commands::demo::{self, DemoArgs};
use crate::commands::explain;
use crate::commands::health::{self, HealthArgs};
use crate::commands::load::{self, LoadArgs};
use crate::commands::query::{self, QueryArgs};
use crate::commands::repair::{self, CompactArgs, RecomputeArgs, ReconcileArgs};
use crate::commands::rule_tests::{self, TestArgs};
use crate::commands::run;
use crate::commands::sample::{self, SampleArgs};
use crate::commands::why::{self, WhyArgs};
use crate::config::{Config, DEFAULT_PATH, Environment};
use crate::kafka::topics;
use crate::role::Role;
use crate::shutdown::Shutdown;
use crate::telemetry::{self, LogFormat};
use crate::time::shown;

/// Exact windowed rollups and alerts from Kafka, defined in SQL.
///
/// Raw points come in through Kafka as JSON or Influx line protocol. Each file in `sql/` is one
/// rollup: a SELECT with tumbling windows, kept up to date in InfluxDB (or Parquet), corrected when
/// points come late, and equal to what the same SELECT gives in batch. Rules in
/// `config/alerts.toml` judge closed windows and send mails and webhooks.
///
/// A first look, with nothing installed: `tidemark demo`. Against your Kafka: `tidemark check`,
/// `tidemark topics create`, `tidemark run`.
#[derive(Debug, Parser)]
#[command(name = "tidemark", version, propagate_version = true, max_term_width = 110)]
pub struct Cli {
    /// The configuration file; every option in it is explained there
    #[arg(long, global = true, env = "TIDEMARK_CONFIG", default_value = DEFAULT_PATH, value_name = "FILE")]
    config: PathBuf,
    /// What to log: error, warn, info, debug, trace, or pairs such as tidemark=debug
    #[arg(long, global = true, env = "TIDEMARK_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// How log lines look
    #[arg(long, global = true, value_enum, default_value_t)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the pipeline: all roles in one process, or some of them
    Run(RunArgs),
    /// Show the whole pipeline at work on this machine's own metrics, with nothing installed
    Demo(DemoArgs),
    /// Validate configuration, SQL and rules, without a server
    Check {
        /// Also list which rollups go on with the state under `state/` of the storage, and which
        /// start over and when
        #[arg(long)]
        against_state: bool,
        /// Also ask the brokers whether the topics exist, and are set up as they have to be
        #[arg(long)]
        brokers: bool,
        /// How long to wait for the brokers
        #[arg(long, default_value = "10s", requires = "brokers", value_parser = humantime::parse_duration)]
        timeout: Duration,
    },
    /// Show how a rollup is computed: windows, tags, fields, plans of both stages
    Explain {
        /// The rollup's name; without it, all are listed
        rollup: Option<String>,
    },
    /// Load CSV, JSON lines or line protocol files into Kafka, merged by time
    Load(Box<LoadArgs>),
    /// Send this machine's CPU, memory, disk and network metrics to Kafka, a file or standard
    /// output
    Sample(SampleArgs),
    /// Run SQL over the stored points and rollups
    Query(QueryArgs),
    /// Say why a window has not closed, or why it is not what it was
    Why(WhyArgs),
    /// Compare the stored rows of a rollup with what its SELECT gives over the archived points
    ///
    /// Lists every difference: rows that are missing, rows that are extra, and fields with both
    /// values. Floats may differ by 1e-9 of their size, as sums depend on the order of adding; an
    /// approximate percentile may lie between those two ranks in a hundred below and above its own.
    /// The range is widened to whole windows, and only windows that the stream has finished with
    /// are judged.
    ///
    /// Exit status: 0 equal, 1 different, 2 could not be notified.
    #[command(verbatim_doc_comment)]
    Reconcile(ReconcileArgs),
    /// Rebuild windows of a rollup from the archived points, while the pipeline runs
    ///
    /// Runs the rollup's SELECT over the archive and writes the rows that differ, whole; rows that
    /// it does not give are removed. Points that came after their window was final (those in the
    /// late topic) are counted then. Refuses windows that the stream may still write, with the time
    /// until which. The range is widened to whole windows. What is right already is not written, so
    /// running it twice changes nothing.
    #[command(verbatim_doc_comment)]
    Recompute(RecomputeArgs),
    /// Merge small Parquet files of the archive and of stored rollups
    ///
    /// Queries, recompute and reconcile count every point once, at every moment and also after a
    /// crash. Other programs that read raw/**/*.parquet may find the points of an hour twice for
    /// some milliseconds, between its new file and the end of the old ones; after a crash in that
    /// moment, until the next run. Waits for --grace between the steps.
    #[command(verbatim_doc_comment)]
    Compact(CompactArgs),
    /// Alerts: what fires, who was notified and why not, silences, acknowledgements, the ledger
    #[command(subcommand)]
    Alerts(AlertsCommand),
    /// Test alert rules: series that are made up, and the alerts and notifications that they must
    /// lead to
    ///
    /// Each FILE has tests of the rules that it names. Points go through rollups, rules, routes and
    /// silences as in the pipeline, with the watermark and the lateness of the configuration, so
    /// late points correct windows; nobody is notified, nothing is waited for, and no secret is
    /// read. `config/alerts_test.toml` explains every key.
    ///
    /// Exit status: 0 all passed, 1 some failed, 2 a file has a mistake.
    Test(TestArgs),
    /// Say what receivers would have been notified of archived points, by these rules and by others
    ///
    /// Runs the rollups' SELECTs over the archive, and rules, routes, silences and mutes over their
    /// windows, as the pipeline does. Windows that end after --from and not after --to count, once
    /// and with all their points: what late points corrected meanwhile is not seen, and rules with
    /// `early` fire as windows close. Before --from there is no alert, unless --warm-up reads what
    /// was before. Points count that came too late for the pipeline. Wall time is event time and
    /// `max_out_of_orderness`. Tells nobody, needs no Kafka, and reads no secret.
    ///
    /// Exit status: 0 done, and equal with --against; 1 different; 2 could not be notified.
    Backtest(BacktestArgs),
    /// Ask the process that runs on this machine, by the address of [http], how it is
    ///
    /// Exit status: 0 well, 1 not, or nobody answers.
    Health(HealthArgs),
    /// Manage the topics that Tidemark needs
    #[command(subcommand)]
    Topics(TopicsCommand),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Roles of this process; they share nothing but Kafka, so each scales by starting more
    /// processes
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Role::value_variants().to_vec())]
    roles: Vec<Role>,
}

#[derive(Debug, Subcommand)]
enum TopicsCommand {
    /// Create the topics that are missing; those that exist are left as they are
    Create {
        /// Partitions of source topics that are created here
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..=10_000))]
        partitions: i32,
        /// How long to wait for the brokers
        #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
        timeout: Duration,
    },
}

impl Cli {
    /// How log lines look, the last one included.
    pub fn log_format(&self) -> LogFormat {
        self.log_format
    }
}

/// The files and variables that say how a command works.
struct Setup<'a> {
    path: &'a Path,
    environment: Environment,
}

impl Setup<'_> {
    fn config(&self) -> Result<Config> {
        Ok(Config::load(self.path, &self.environment)?)
    }

    /// The configuration, and the rollups that it names.
    fn with_rollups(&self) -> Result<(Config, Catalog)> {
        let config = self.config()?;
        let catalog = load_catalog(&config.rollup.sql)?;
        Ok((config, catalog))
    }
}

/// Carries out a command line.
///
/// # Errors
/// Everything that a person has to see; the message names the place and the remedy.
pub fn run(cli: Cli) -> Result<ExitCode> {
    let default_log = if matches!(cli.command, Command::Run(_)) { "info" } else { "warn" };
    telemetry::init(cli.log_format, cli.log.as_deref().unwrap_or(default_log))?;
    // One process-wide choice of cryptography for every TLS connection.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        bail!("the cryptography provider was installed twice");
    }
    let environment = Environment::of_process();
    if !matches!(cli.command, Command::Check { .. }) {
        for warning in environment.warnings() {
            tracing::warn!("{warning}");
        }
    }
    // Rules are tested, and a process is asked, by people who may not see secrets.
    let environment = match cli.command {
        Command::Test(_) | Command::Backtest(_) | Command::Health(_) => environment.without_secrets(),
        _ => environment,
    };
    let setup = Setup { path: &cli.config, environment };
    match cli.command {
        Command::Run(args) => {
            let config = setup.config()?;
            let runtime = runtime()?;
            let outcome = runtime.block_on(run::run(config, &setup.environment, &args.roles));
            // Requests that nobody waits for any more do not hold up the end.
            runtime.shutdown_background();
            outcome?;
        }
        Command::Demo(args) => runtime()?.block_on(demo::run(args))?,
        Command::Check { against_state, brokers, timeout } => {
            let brokers = brokers.then_some(timeout);
            return check_all(&setup, against_state, brokers);
        }
        Command::Explain { rollup } => explain_rollup(&setup, rollup.as_deref())?,
        Command::Load(args) => load_files(&setup, &args)?,
        Command::Sample(args) => take_samples(&setup, &args)?,
        Command::Query(args) => {
            let config = setup.config()?;
            print(runtime()?.block_on(query::run(&config, &args))?)?;
        }
        Command::Why(args) => {
            let config = setup.config()?;
            print(runtime()?.block_on(why::run(config, &args))?)?;
        }
        Command::Reconcile(args) => {
            return Ok(compared(reconcile_rollup(&setup, &args), cli.log_format));
        }
        Command::Recompute(args) => return recompute_rollup(&setup, &args),
        Command::Compact(args) => {
            let (config, catalog) = setup.with_rollups()?;
            print(runtime()?.block_on(repair::compact(&config, &catalog, &args))?)?;
        }
        Command::Alerts(command) => {
            alerts::cli::run(setup.path, &setup.environment, command, &|text| print(text))?;
        }
        Command::Test(args) => {
            let tested = test_rules(&setup, &args);
            return Ok(compared(tested, cli.log_format));
        }
        Command::Backtest(args) => {
            let tested = backtest_rules(&setup, &args);
            return Ok(compared(tested, cli.log_format));
        }
        Command::Health(args) => {
            let config = setup.config()?;
            print(runtime()?.block_on(health::ask(&config, &args))?)?;
        }
        Command::Topics(TopicsCommand::Create { partitions, timeout }) => {
            let config = setup.config()?;
            let report = runtime()?.block_on(topics::create(&config, partitions, timeout))?;
            print(&report)?;
            if let Some(problem) = report.problems().first() {
                bail!("{problem}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> Result<Runtime> {
    Runtime::new().context("cannot start the asynchronous runtime")
}

/// The exit status of a command that compares: an error must not look like a difference, nor a
/// mistake in a file like a test that failed.
fn compared(result: Result<ExitCode>, format: LogFormat) -> ExitCode {
    result.unwrap_or_else(|error| {
        report(&error, format);
        ExitCode::from(2)
    })
}

/// The last word of the program, in the form of its log lines. Logging may not have been set up
/// when this is called, so it writes by itself.
#[expect(clippy::print_stderr, reason = "the last word of the program")]
pub fn report(error: &anyhow::Error, format: LogFormat) {
    match format {
        LogFormat::Text => eprintln!("error: {}", plain_lines(&format!("{error:#}"))),
        LogFormat::Json => {
            let timestamp = shown(Clock::system().now_ns());
            let message = format!("{error:#}");
            eprintln!(
                "{}",
                json!({ "timestamp": timestamp, "level": "ERROR", "message": message, "target": "tidemark" })
            );
        }
    }
}

/// Writes to standard output. A reader that has gone, such as `head`, ends the program without
/// complaint.
fn print(text: impl Display) -> Result<()> {
    let text = text.to_string();
    match writeln!(io::stdout().lock(), "{}", plain_lines(&text)) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => written.context("cannot write to standard output"),
    }
}

/// `brokers`: how long to wait for their answer, if they are asked.
fn check_all(setup: &Setup<'_>, against_state: bool, brokers: Option<Duration>) -> Result<ExitCode> {
    let report = check::check(setup.path, &setup.environment);
    print(&report)?;
    if against_state {
        let (config, catalog) = setup.with_rollups()?;
        print(runtime()?.block_on(check::state::compare(&config, &catalog))?)?;
    }
    let mut is_well = report.problems.is_empty();
    if let Some(timeout) = brokers {
        let config = setup.config()?;
        let inspection = runtime()?.block_on(topics::inspect(&config, timeout))?;
        is_well &= inspection.problems.is_empty();
        print(inspection)?;
    }
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn explain_rollup(setup: &Setup<'_>, rollup: Option<&str>) -> Result<()> {
    let (config, catalog) = setup.with_rollups()?;
    match rollup {
        Some(name) => match explain::explain(&catalog, name, &config) {
            Ok(text) => print(text)?,
            Err(problem) => bail!("{problem}"),
        },
        None => {
            for rollup in &catalog.rollups {
                let windows: Vec<String> =
                    rollup.tiers().iter().map(|tier| tier.windows.to_string()).collect();
                print(format_args!("{}\twindows of {}", rollup.name, windows.join(", ")))?;
            }
        }
    }
    Ok(())
}

fn reconcile_rollup(setup: &Setup<'_>, args: &ReconcileArgs) -> Result<ExitCode> {
    let (config, catalog) = setup.with_rollups()?;
    let tables = runtime()?.block_on(repair::reconcile(&config, &catalog, args))?;
    if args.json {
        let tables: Vec<_> = tables.iter().map(repair::Reconciled::json).collect();
        print(plain_json(&serde_json::to_string_pretty(&tables)?))?;
    } else {
        for table in &tables {
            print(table)?;
        }
    }
    let is_equal = tables.iter().all(repair::Reconciled::is_equal);
    Ok(if is_equal { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn recompute_rollup(setup: &Setup<'_>, args: &RecomputeArgs) -> Result<ExitCode> {
    let (config, catalog) = setup.with_rollups()?;
    let tables = runtime()?.block_on(repair::recompute(&config, &catalog, args))?;
    if args.dry_run {
        print("nothing was written, this is what would be:")?;
    }
    for table in &tables {
        print(table)?;
    }
    let is_complete = tables.iter().all(|table| table.refused == 0);
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn test_rules(setup: &Setup<'_>, args: &TestArgs) -> Result<ExitCode> {
    let config = setup.config()?;
    let found = rule_tests::run(&config, &setup.environment, args)?;
    print(&found)?;
    Ok(if found.has_failed() { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn backtest_rules(setup: &Setup<'_>, args: &BacktestArgs) -> Result<ExitCode> {
    let config = setup.config()?;
    let found = backtest::run(&config, &setup.environment, args, &runtime()?)?;
    if args.json {
        print(plain_json(&serde_json::to_string_pretty(&found.json())?))?;
    } else {
        print(&found)?;
    }
    Ok(if found.differs() { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn load_files(setup: &Setup<'_>, args: &LoadArgs) -> Result<()> {
    let (config, catalog) = setup.with_rollups()?;
    // The end of the last window of every rollup and tier.
    let close_at = |last: i64| {
        let tiers = catalog.rollups.iter().flat_map(|rollup| rollup.tiers());
        let ends = tiers.map(|tier| tier.windows.end(tier.windows.start(last)));
        ends.max().unwrap_or(last)
    };
    let report = load::run(args, &config, &Clock::system(), Some(&close_at), true)?;
    print(report)
}

fn take_samples(setup: &Setup<'_>, args: &SampleArgs) -> Result<()> {
    // Only Kafka needs a configuration; a recording can be made anywhere.
    let config = match args.to {
        sample::SampleTarget::Kafka => setup.config()?,
        _ => Config::default(),
    };
    let shutdown = Shutdown::new();
    let runtime = runtime()?;
    runtime.spawn(run::stop_on_signal(shutdown.clone()));
    let taken = runtime.block_on(sample::run(args, &config, &Clock::system(), shutdown.triggered()))?;
    tracing::info!(points = taken, "samples taken");
    Ok(())
}
