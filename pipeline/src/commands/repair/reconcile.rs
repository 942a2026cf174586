//! `tidemark reconcile`: what a store holds against batch SQL over the archive.

use std::time::Duration;

use clap::Args;
use operators::sql::Catalog;
use query::{BatchQuery, Cold, Target, targets};

use super::compare::Difference;
use super::find;
use super::range::{chunks, first_window, next_start};
use super::ready::{Frontier, wait_for_archive};
use super::recompute::{Part, Progress, checked};
use super::report::{self, Found};
use super::stored::Store;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::time::{parse_time, shown};

#[derive(Debug, Args)]
pub struct ReconcileArgs {
    /// The rollup's name
    pub rollup: String,
    /// Start of the range, in event time: 2026-01-31, 2026-01-31T12:30 (UTC),
    /// 2026-01-31T12:30:00+02:00
    #[arg(long, value_parser = parse_time, value_name = "TIME", allow_hyphen_values = true)]
    pub from: i64,
    /// End of the range, which is not part of it [default: the end of the last window that is
    /// final]
    #[arg(long, value_parser = parse_time, value_name = "TIME", allow_hyphen_values = true)]
    pub to: Option<i64>,
    /// Write JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Differences that are listed; all are counted
    #[arg(long, default_value_t = 100, value_name = "COUNT")]
    pub limit: usize,
    /// Go on where windows are not final, the archive may lack points, or Kafka is away
    #[arg(long)]
    pub force: bool,
    /// How long to wait for points that were aggregated but not archived yet
    #[arg(long, default_value = "10m", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub wait: Duration,
}

/// The comparison of one table.
#[derive(Debug)]
pub struct Reconciled {
    pub table: String,
    /// Where its rows are: `influxdb` or `rollups/`.
    pub store: &'static str,
    /// The range, widened to whole windows.
    pub from: i64,
    pub to: i64,
    pub windows: u64,
    /// Rows that batch gives.
    pub rows: u64,
    /// Rows that the store lacks, that it has too many, and that have other fields.
    pub missing: u64,
    pub extra: u64,
    pub different: u64,
    /// Columns that are computed from an approximate value and were not compared.
    pub not_compared: Vec<String>,
    /// The table was left out: what it waits for.
    pub skipped: Option<String>,
    pub(super) listed: Vec<Found>,
    limit: usize,
}

impl Reconciled {
    pub fn is_equal(&self) -> bool {
        self.missing + self.extra + self.different == 0
    }
}

/// Compares all tables of a rollup and tells every difference.
///
/// # Errors
/// [`Error::Refused`] when windows are not final yet, or the archive lacks points; storage,
/// InfluxDB and Kafka when they fail for longer than a retry.
pub async fn reconcile(config: &Config, catalog: &Catalog, args: &ReconcileArgs) -> Result<Vec<Reconciled>> {
    let rollup = find(catalog, &args.rollup)?;
    let frontier = checked(args.force, Frontier::read(config).await)?;
    let mut tables = Vec::new();
    for (index, target) in targets(rollup).into_iter().enumerate() {
        tables.push(prepare(target, index, args, frontier.as_ref())?);
    }
    let bar = report::bar();
    let progress = |progress| report::show(&bar, &progress);
    if !args.force {
        wait_for_archive(config, args.wait, &|missing| progress(Progress::Waiting(missing.to_owned())))
            .await?;
    }
    let cold = Cold::open(config.storage.url.as_str())?;
    let store = Store::open(config, &cold, rollup, false).await?;
    let mut done = Vec::new();
    for (target, mut table) in tables {
        table.store = store.name();
        if table.skipped.is_none() {
            compare(&cold, &store, &target, &mut table, &progress).await?;
        }
        done.push(table);
    }
    bar.finish_and_clear();
    Ok(done)
}

/// The range of one table, and whether it can be judged.
fn prepare(
    target: Target,
    index: usize,
    args: &ReconcileArgs,
    frontier: Option<&Frontier>,
) -> Result<(Target, Reconciled)> {
    let from = first_window(&target.windows, args.from);
    let until = frontier.and_then(|frontier| frontier.final_until(&target));
    let Some(to) = args.to.map(|to| next_start(&target.windows, to)).or(until) else {
        return Err(Error::Refused(format!(
            "no window of `{}` is known to be final: give --to, and --force to compare what is not final",
            target.table.name
        )));
    };
    let mut table = Reconciled {
        table: target.table.name.clone(),
        store: "",
        from,
        to,
        windows: 0,
        rows: 0,
        missing: 0,
        extra: 0,
        different: 0,
        not_compared: Vec::new(),
        skipped: None,
        listed: Vec::new(),
        limit: args.limit,
    };
    if from >= to {
        let reason = format!("the range is empty: {} is not before {}", shown(from), shown(to));
        if index == 0 {
            return Err(Error::Refused(reason));
        }
        table.skipped = Some(reason);
    } else if let Some(frontier) = frontier
        && let Err(reason) = frontier.check(&target, from, to)
    {
        if index > 0 && !args.force {
            table.skipped = Some(reason);
        } else {
            checked(args.force, Err::<(), _>(Error::Refused(reason)))?;
        }
    }
    Ok((target, table))
}

async fn compare(
    cold: &Cold,
    store: &Store,
    target: &Target,
    table: &mut Reconciled,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<()> {
    let query = BatchQuery::new(target);
    table.not_compared = query.not_compared(target);
    let chunks =
        chunks(&target.windows, table.from, table.to, &cold.hours(Some((table.from, table.to))).await?);
    for (number, (from, to)) in chunks.iter().enumerate() {
        progress(Progress::Chunks { done: number, of: chunks.len() });
        let part = Part::read(cold, store, target, &query, *from, *to).await?;
        table.windows += part.windows();
        table.rows += part.expected.len() as u64;
        for (key, difference) in part.differences() {
            match difference {
                Difference::Missing => table.missing += 1,
                Difference::Extra => table.extra += 1,
                Difference::Fields(_) => table.different += 1,
            }
            if table.listed.len() < table.limit {
                table.listed.push(Found { key, difference });
            }
        }
    }
    Ok(())
}
