//! `tidemark compact`, and the same in the background of `ingest`: small files of the archive and
//! of the embedded store to larger ones. What readers see meanwhile is in
//! [`sinks::parquet::compact`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use operators::sql::Catalog;
use query::{Cold, targets};
use sinks::Table;
use sinks::parquet::{CompactOptions, Compaction, RawCompactor, RollupCompactor};

use super::ready::ArchiveState;
use super::report;
use crate::clock::Clock;
use crate::config::Config;
use crate::error::Result;
use crate::roles::context::Context;
use crate::time::nanoseconds;

/// Staged, published, cleaned up, each after a grace; and once more for what another compactor
/// began.
const MOST_PASSES: usize = 6;

#[derive(Debug, Args)]
pub struct CompactArgs {
    /// Leave alone: hours of event time that ended less than this ago, and younger files of rollups
    #[arg(long, default_value = "2h", value_parser = humantime::parse_duration, value_name = "AGE")]
    pub older_than: Duration,
    /// How long replaced files stay for queries that are reading them: longer than the longest
    /// query
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub grace: Duration,
    /// Only report what would be merged
    #[arg(long)]
    pub dry_run: bool,
}

/// What was merged.
#[derive(Debug, Default)]
pub struct CompactReport {
    pub raw: Compaction,
    pub rollups: Compaction,
    dry_run: bool,
}

/// The command: passes over all files until nothing waits for its grace any more.
///
/// # Errors
/// Kafka when it does not tell where the archive is durable; storage.
pub async fn compact(config: &Config, catalog: &Catalog, args: &CompactArgs) -> Result<CompactReport> {
    let clock = Clock::system();
    let compactor = Compactor::open(config, catalog)?;
    let bar = report::bar();
    let mut done = CompactReport { dry_run: args.dry_run, ..CompactReport::default() };
    for pass in 1..=MOST_PASSES {
        let waiting = compactor.pass(config, &clock, args, &bar, &mut done).await?;
        if waiting == 0 || args.dry_run || pass == MOST_PASSES {
            break;
        }
        bar.set_message(format!("{waiting} places wait for readers"));
        tokio::time::sleep(args.grace).await;
    }
    bar.finish_and_clear();
    Ok(done)
}

/// Makes a pass every `compact_interval` of [archive] until shutdown; returns at once without that
/// option. Several processes may do so: they give way to each other.
pub async fn compact_periodically(context: Context) {
    let Some(interval) = context.config.archive.compact_interval else { return };
    let args = CompactArgs {
        older_than: context.config.archive.compact_after,
        grace: interval.min(Duration::from_secs(60)),
        dry_run: false,
    };
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = context.shutdown.triggered() => return,
        }
        let mut done = CompactReport::default();
        let pass = async {
            let compactor = Compactor::open(&context.config, &context.catalog)?;
            compactor.pass(&context.config, &context.clock, &args, &ProgressBar::hidden(), &mut done).await
        };
        tokio::select! {
            outcome = pass => match outcome {
                Ok(_) => tracing::debug!("{done}"),
                Err(error) => tracing::warn!(%error, "compaction failed, it is tried again"),
            },
            // A pass may be cut anywhere.
            () = context.shutdown.triggered() => return,
        }
    }
}

struct Compactor {
    raw: RawCompactor,
    rollups: RollupCompactor,
    tables: Vec<Arc<Table>>,
}

impl Compactor {
    fn open(config: &Config, catalog: &Catalog) -> Result<Self> {
        let Cold { store, prefix } = Cold::open(config.storage.url.as_str())?;
        let targets = catalog.rollups.iter().flat_map(|rollup| targets(rollup));
        Ok(Self {
            raw: RawCompactor::new(Arc::clone(&store), prefix.clone()),
            rollups: RollupCompactor::new(store, prefix),
            tables: targets.map(|target| target.table).collect(),
        })
    }

    /// One step for every hour and table; returns how many wait for a later one.
    async fn pass(
        &self,
        config: &Config,
        clock: &Clock,
        args: &CompactArgs,
        bar: &ProgressBar,
        done: &mut CompactReport,
    ) -> Result<usize> {
        // Before any file is listed: chunks below these offsets are all there then.
        let safe = ArchiveState::read(config).await?.safe();
        let now = clock.now_ns();
        let age = nanoseconds(args.older_than);
        let until = now.saturating_sub(age);
        let options = CompactOptions { until, now, grace: args.grace, dry_run: args.dry_run };
        bar.set_message("");
        bar.set_position(0);
        let progress = |hours| {
            bar.set_length(hours as u64);
            bar.inc(1);
        };
        let raw = self.raw.pass(&safe, options, &progress).await?;
        let mut waiting = raw.waiting + raw.staged * usize::from(!args.dry_run);
        done.raw.add(&raw);
        for table in &self.tables {
            let rollups = self.rollups.pass(table, options).await?;
            waiting += rollups.waiting;
            done.rollups.add(&rollups);
        }
        Ok(waiting)
    }
}

impl fmt::Display for CompactReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.dry_run { "would become" } else { "became" };
        let raw = &self.raw;
        write!(f, "raw/: {} files {verb} {}", raw.files_before, raw.staged)?;
        if raw.points > 0 {
            let points = raw.points as f64;
            write!(
                f,
                ": {} points, {:.1} bytes a point before, {:.1} after",
                raw.points,
                raw.bytes_before as f64 / points,
                raw.bytes_after as f64 / points
            )?;
        }
        let rollups = &self.rollups;
        write!(f, "\nrollups/: {} files {verb} {}", rollups.files_before, rollups.staged)?;
        if rollups.points > 0 {
            write!(f, ": {} to {} bytes", rollups.bytes_before, rollups.bytes_after)?;
        }
        if raw.refused > 0 {
            write!(
                f,
                "\n{} hours left as they are: their files contradict each other, see the log",
                raw.refused
            )?;
        }
        if raw.contended + rollups.contended > 0 {
            write!(f, "\n{} left to another compactor", raw.contended + rollups.contended)?;
        }
        Ok(())
    }
}
