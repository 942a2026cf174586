//! `tidemark recompute`: windows of a rollup from the archive, written where they differ.
//!
//! Only final windows, which the stream writes no more, so both never write the same row. The range
//! is worked off in chunks of bounded size; each is complete by itself, so a run that is cut short
//! is simply run again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use clap::Args;
use operators::sql::{Catalog, Rollup};
use query::{Batch, BatchQuery, Cold, Judged, Target, targets};
use sinks::parquet::live::HOUR;
use sinks::rows::RowKey;

use super::compare::{Difference, Expected, differences};
use super::find;
use super::range::{chunks, whole_windows};
use super::ready::{Frontier, check_storage, wait_for_archive};
use super::report;
use super::stored::{Changes, Found, Store};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::time::{parse_time, shown};

#[derive(Debug, Args)]
pub struct RecomputeArgs {
    /// The rollup's name
    pub rollup: String,
    /// Start of the range, in event time: 2026-01-31, 2026-01-31T12:30 (UTC),
    /// 2026-01-31T12:30:00+02:00
    #[arg(long, value_parser = parse_time, value_name = "TIME", allow_hyphen_values = true)]
    pub from: i64,
    /// End of the range, which is not part of it
    #[arg(long, value_parser = parse_time, value_name = "TIME", allow_hyphen_values = true)]
    pub to: i64,
    /// Only report what would be written and removed
    #[arg(long)]
    pub dry_run: bool,
    /// Go on where windows are not final, the archive may lack points or has none for a row, or
    /// Kafka is away
    #[arg(long)]
    pub force: bool,
    /// How long to wait for points that were aggregated but not archived yet
    #[arg(long, default_value = "10m", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub wait: Duration,
}

/// How a range is rebuilt.
#[derive(Debug, Clone, Copy)]
pub struct RecomputeOptions {
    /// Reads and compares, writes nothing.
    pub dry_run: bool,
    /// Refusals become warnings.
    pub force: bool,
    /// How long to wait for the archive to hold what was aggregated.
    pub wait: Duration,
}

/// How far a run has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// For the archive; names what is missing.
    Waiting(String),
    Chunks {
        done: usize,
        of: usize,
    },
}

/// What was done to one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recomputed {
    pub table: String,
    /// The range, widened to whole windows.
    pub from: i64,
    pub to: i64,
    pub windows: u64,
    pub written: u64,
    pub removed: u64,
    pub unchanged: u64,
    /// Rows that should go but stay: InfluxDB cannot delete them without others.
    pub stuck: u64,
    /// Rows that batch does not give, and the archive has no point of their window: kept, unless
    /// forced.
    pub unarchived: u64,
    /// Rows that the store would not take, and the first reason.
    pub refused: u64,
    pub reason: Option<String>,
    /// The table was left out: what it waits for.
    pub skipped: Option<String>,
}

/// The command: checks, rebuilds with a progress bar, and tells what was done.
///
/// # Errors
/// As [`recompute_range`], and for a rollup that is not there.
pub async fn recompute(config: &Config, catalog: &Catalog, args: &RecomputeArgs) -> Result<Vec<Recomputed>> {
    let rollup = find(catalog, &args.rollup)?;
    let options = RecomputeOptions { dry_run: args.dry_run, force: args.force, wait: args.wait };
    let bar = report::bar();
    let done = recompute_range(config, rollup, args.from, args.to, &options, &|progress| {
        report::show(&bar, &progress);
    })
    .await;
    bar.finish_and_clear();
    done
}

/// Rebuilds the windows of `[from, to)` of all tables of a rollup from the archive, while the
/// stream may run, also in this process. Rows that are as batch SQL gives them are left alone.
/// Cancelling it leaves whole rows only.
///
/// # Errors
/// [`Error::Refused`] when windows of the rollup itself are not final yet, or the archive lacks
/// points; coarser tables that are not final are left out, with a note. Storage, InfluxDB and Kafka
/// when they fail for longer than a retry.
pub async fn recompute_range(
    config: &Config,
    rollup: &Rollup,
    from: i64,
    to: i64,
    options: &RecomputeOptions,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Vec<Recomputed>> {
    if from >= to {
        return Err(Error::Refused(format!(
            "the range is empty: {} is not before {}",
            shown(from),
            shown(to)
        )));
    }
    let frontier = checked(options.force, Frontier::read(config).await)?;
    let mut tables = Vec::new();
    for (index, target) in targets(rollup).into_iter().enumerate() {
        let (from, to) = whole_windows(&target.windows, from, to);
        let mut table = Recomputed { table: target.table.name.clone(), from, to, ..Recomputed::default() };
        if let Some(frontier) = &frontier
            && let Err(reason) = frontier.check(&target, from, to)
        {
            // The stream goes on to write a coarser table whose windows are open.
            if index > 0 && !options.force {
                table.skipped = Some(reason);
            } else {
                checked(options.force, Err::<(), _>(Error::Refused(reason)))?;
            }
        }
        tables.push((target, table));
    }
    if options.force {
        tracing::warn!("forced: whether the archive is complete was not looked at");
        check_storage(config).await?;
    } else {
        wait_for_archive(config, options.wait, &|missing| progress(Progress::Waiting(missing.to_owned())))
            .await?;
    }
    let cold = Cold::open(config.storage.url.as_str())?;
    let store = Store::open(config, &cold, rollup, !options.dry_run).await?;
    let mut done = Vec::new();
    for (target, mut table) in tables {
        if table.skipped.is_none() {
            rebuild(&cold, &store, &target, &mut table, options, progress).await?;
        }
        done.push(table);
    }
    Ok(done)
}

/// With `force`, what went wrong is logged and none.
pub(super) fn checked<T>(force: bool, result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if force => {
            tracing::warn!("forced: {error}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

async fn rebuild(
    cold: &Cold,
    store: &Store,
    target: &Target,
    table: &mut Recomputed,
    options: &RecomputeOptions,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<()> {
    let query = BatchQuery::new(target);
    let chunks =
        chunks(&target.windows, table.from, table.to, &cold.hours(Some((table.from, table.to))).await?);
    for (number, (from, to)) in chunks.iter().enumerate() {
        progress(Progress::Chunks { done: number, of: chunks.len() });
        let part = Part::read(cold, store, target, &query, *from, *to).await?;
        let changes = part.changes(store, target, options.force, table);
        if !options.dry_run {
            store.apply(target, &part.batch.rows, &part.found, changes).await?;
        }
    }
    (table.refused, table.reason) = store.flush().await?;
    Ok(())
}

/// A chunk's rows on both sides.
pub(super) struct Part {
    batch: Batch,
    pub(super) expected: BTreeMap<RowKey, Expected>,
    pub(super) found: Found,
}

impl Part {
    pub(super) async fn read(
        cold: &Cold,
        store: &Store,
        target: &Target,
        query: &BatchQuery,
        from: i64,
        to: i64,
    ) -> Result<Self> {
        let batch = query.run(cold, target, from, to).await?;
        let expected = expected(store, target, query, &batch)?;
        let found = store.read(target, from, to).await?;
        Ok(Self { batch, expected, found })
    }

    pub(super) fn differences(&self) -> BTreeMap<RowKey, Difference> {
        differences(&self.expected, &self.found.rows)
    }

    pub(super) fn windows(&self) -> u64 {
        let keys = self.expected.keys().chain(self.found.rows.keys());
        keys.map(|key| key.time).collect::<BTreeSet<_>>().len() as u64
    }

    fn changes(&self, store: &Store, target: &Target, force: bool, table: &mut Recomputed) -> Changes {
        let mut changes = Changes::default();
        let differences = self.differences();
        table.windows += self.windows();
        table.unchanged += self.expected.keys().filter(|key| !differences.contains_key(*key)).count() as u64;
        for (key, difference) in differences {
            let can_remove = store.can_remove(target, &key);
            if difference == Difference::Extra {
                let has_points = self.has_points(target, key.time);
                match (has_points || force, can_remove) {
                    (false, _) => table.unarchived += 1,
                    (true, false) => table.stuck += 1,
                    (true, true) => {
                        table.removed += 1;
                        changes.remove.push(key);
                    }
                }
                continue;
            }
            let Some(row) = self.expected.get(&key) else { continue };
            let loses_fields = self
                .found
                .rows
                .get(&key)
                .is_some_and(|fields| fields.keys().any(|name| !row.fields.contains_key(name)));
            if loses_fields && can_remove {
                changes.emptied.push(key.clone());
            } else if loses_fields {
                table.stuck += 1;
            }
            table.written += 1;
            changes.write.push(row.row);
            changes.keys.push(key);
        }
        changes
    }

    /// Whether the archive has anything of the hours of a window. If not, its points were removed,
    /// rather than never there.
    fn has_points(&self, target: &Target, start: i64) -> bool {
        let first_hour = start.div_euclid(HOUR).saturating_mul(HOUR);
        self.batch.hours.range(first_hour..target.windows.end(start)).next().is_some()
    }
}

fn expected(
    store: &Store,
    target: &Target,
    query: &BatchQuery,
    batch: &Batch,
) -> Result<BTreeMap<RowKey, Expected>> {
    let stored = store.as_stored(target, &batch.rows)?;
    let mut bounds = Vec::new();
    let mut unjudged = Vec::new();
    for column in &target.table.fields {
        let name = store.stored_name(target.schema.field(*column).name());
        match query.judged(*column) {
            Judged::Exactly => {}
            Judged::Not => unjudged.push(name),
            // A batch without a file to read lacks these columns, and has no row.
            Judged::Between(low, high) if *high < batch.rows.num_columns() => {
                let low = sinks::rows::values(batch.rows.column(*low))?;
                bounds.push((name, low, sinks::rows::values(batch.rows.column(*high))?));
            }
            Judged::Between(..) => {}
        }
    }
    let mut expected = BTreeMap::new();
    for ((index, stored), row) in stored.into_iter().enumerate().zip(0_u32..) {
        let Some((key, fields)) = stored else { continue };
        let bounds = bounds.iter().filter_map(|(name, low, high)| {
            Some((name.clone(), (low[index].as_ref()?.as_f64()?, high[index].as_ref()?.as_f64()?)))
        });
        let bounds = bounds.collect();
        expected.insert(key, Expected { row, fields, bounds, unjudged: unjudged.clone() });
    }
    Ok(expected)
}

impl fmt::Display for Recomputed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (table, from, to) = (&self.table, shown(self.from), shown(self.to));
        if let Some(reason) = &self.skipped {
            return write!(f, "{table}: left out: {reason}");
        }
        write!(
            f,
            "{table}: {} windows from {from} to {to}: {} rows written, {} removed, {} unchanged",
            self.windows, self.written, self.removed, self.unchanged
        )?;
        if self.unarchived > 0 {
            write!(
                f,
                "\n  {} rows kept, as the archive has no point of their windows: --force removes them",
                self.unarchived
            )?;
        }
        if self.stuck > 0 {
            write!(
                f,
                "\n  {} rows that should go stay: InfluxDB cannot delete a point that lacks a tag, or has one of \
                 another program, without deleting others",
                self.stuck
            )?;
        }
        if let Some(reason) = &self.reason {
            write!(f, "\n  {} rows refused by the store, the first: {reason}", self.refused)?;
        }
        Ok(())
    }
}
