//! Windows that the stream had to leave out, rebuilt from the archive.
//!
//! A rebuild waits until its windows are final and everything that came for them is durable in the
//! archive, which the commits of `ingest` tell. A task then reads the points and computes the
//! windows; the consumer's thread hands them to the sink when nothing else waits there. Only when
//! all are in the sink's queue does the fold forget the rebuild: the next snapshot is stored after
//! the sink has flushed, and the owner that starts from an older one does it again, with the same
//! result. Rebuilds of the same windows in several partitions read the points once.

mod compute;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use operators::rebuild::{Rebuild, Rebuilt};
use operators::watermark::Source;
use sinks::{RollupRows, Table};
use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::task::JoinHandle;

use self::compute::compute;
use super::outputs::Outputs;
use super::share::Partition;
use crate::roles::context::Context;
use crate::roles::group::committed;
use crate::storage::archive_progress::ArchiveProgress;
use crate::telemetry::TierLabels;
use crate::time::shown;

/// Between two looks at what is due, and at what the archive has.
const LOOK: Duration = Duration::from_secs(1);
/// What waits for longer than this beyond the age of the archive's files is worth a warning, and
/// another one each time.
const PATIENCE: Duration = Duration::from_secs(600);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// The tables of each rollup, in the order of its tiers.
type Tables = HashMap<String, Vec<Arc<Table>>>;

/// Partition, name of the tier's table, and first window.
type Key = (i32, String, i64);

/// The rebuilds of the owned partitions.
pub(super) struct Rebuilds {
    context: Context,
    /// Those that are due.
    waiting: BTreeMap<Key, Waiting>,
    /// What the archive has, as of the last look at each source partition.
    archived: BTreeMap<Source, Archived>,
    look: Option<JoinHandle<Result<BTreeMap<Source, Archived>>>>,
    job: Option<Job>,
    failures: u32,
    next_look: Duration,
    next_job: Duration,
}

struct Waiting {
    rebuild: Rebuild,
    /// The archive has to have everything before these.
    offsets: Vec<(Source, i64)>,
    warn_at: Duration,
}

/// How far the archive of a source partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Archived {
    To(i64),
    /// The partition's owner runs with the archive disabled.
    Off,
}

/// A rebuild under way, of the same windows in some partitions.
struct Job {
    first: Rebuild,
    parts: BTreeMap<i32, Rebuild>,
    rebuilt: mpsc::Receiver<Rebuilt>,
    task: JoinHandle<Result<()>>,
    rows: usize,
}

impl Drop for Job {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Rebuilds {
    pub(super) fn new(context: &Context) -> Self {
        Self {
            context: context.clone(),
            waiting: BTreeMap::new(),
            archived: BTreeMap::new(),
            look: None,
            job: None,
            failures: 0,
            next_look: Duration::ZERO,
            next_job: Duration::ZERO,
        }
    }

    /// Gives up everything: no partition is owned any more.
    pub(super) fn abandon(&mut self) {
        self.job = None;
        self.waiting.clear();
    }

    /// Gives up what is under way for partitions that are no longer owned.
    pub(super) fn keep(&mut self, owned: &BTreeMap<i32, Partition>) {
        self.waiting.retain(|(partition, ..), _| owned.contains_key(partition));
        // What others have in it still waits, and is computed again.
        if self.job.as_ref().is_some_and(|job| job.parts.keys().any(|part| !owned.contains_key(part))) {
            self.job = None;
        }
    }

    /// Does what can be done without waiting.
    pub(super) fn advance(
        &mut self,
        partitions: &mut BTreeMap<i32, Partition>,
        outputs: &Outputs,
        tables: &Tables,
    ) -> crate::error::Result<()> {
        self.hand_over(partitions, outputs, tables)?;
        let now = self.context.clock.monotonic();
        if now < self.next_look {
            return Ok(());
        }
        self.next_look = now + LOOK;
        self.note_due(partitions, now);
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.look_at_archive();
        self.give_up_without_archive(partitions);
        if self.job.is_none() && now >= self.next_job {
            self.start_job();
        }
        self.warn_of_waiting(now);
        Ok(())
    }

    fn note_due(&mut self, partitions: &BTreeMap<i32, Partition>, now: Duration) {
        for (partition, state) in partitions {
            for rebuild in state.fold.due_rebuilds() {
                let offsets = state.fold.source_offsets();
                self.waiting.entry(key(*partition, &rebuild)).or_insert_with(|| Waiting {
                    rebuild,
                    offsets: offsets.map(|(source, offset)| (source.clone(), offset)).collect(),
                    warn_at: now + self.context.config.archive.roll_age + PATIENCE,
                });
            }
        }
    }

    /// Asks for the commits of `ingest`, one request at a time, and takes the answer.
    fn look_at_archive(&mut self) {
        if self.look.as_ref().is_some_and(|look| !look.is_finished()) {
            return;
        }
        if let Some(look) = self.look.take() {
            match self.context.runtime.block_on(look) {
                Ok(Ok(archived)) => self.archived.extend(archived),
                Ok(Err(error)) => tracing::warn!(%error, "the archive's progress is unknown, rebuilds wait"),
                Err(error) => tracing::warn!(%error, "a look at the archive's progress failed"),
            }
        }
        let is_open = |(source, offset): &&(Source, i64)| match self.archived.get(source) {
            Some(Archived::To(to)) => to < offset,
            _ => true,
        };
        let open = self.waiting.values().flat_map(|waiting| waiting.offsets.iter().filter(is_open));
        let sources: BTreeSet<Source> = open.map(|(source, _)| source.clone()).collect();
        if !sources.is_empty() {
            self.look = Some(self.context.runtime.spawn(archived_offsets(self.context.clone(), sources)));
        }
    }

    fn give_up_without_archive(&mut self, partitions: &mut BTreeMap<i32, Partition>) {
        let (archived, enabled) = (&self.archived, self.context.config.archive.enabled);
        self.waiting.retain(|(partition, table, _), waiting| {
            let off = waiting.offsets.iter().any(|(source, _)| archived.get(source) == Some(&Archived::Off));
            if enabled && !off {
                return true;
            }
            tracing::error!(
                table,
                partition,
                from = shown(waiting.rebuild.gap.from),
                to = shown(waiting.rebuild.gap.to),
                "windows that were open when the plan changed stay without results: they would be rebuilt from raw \
                 points, and the archive is off; set `enabled` of [archive] before the next change"
            );
            if let Some(state) = partitions.get_mut(partition) {
                state.fold.rebuilt(&waiting.rebuild);
            }
            false
        });
    }

    /// Starts with what has everything in the archive, together with the same windows of other
    /// partitions.
    fn start_job(&mut self) {
        let ready = || self.waiting.iter().filter(|(_, waiting)| self.has_arrived(&waiting.offsets));
        let Some(first) = ready().next().map(|(_, waiting)| waiting.rebuild.clone()) else { return };
        let windows = |rebuild: &Rebuild| (rebuild.tier().table.clone(), rebuild.gap.from, rebuild.gap.to);
        let parts: BTreeMap<i32, Rebuild> = ready()
            .filter(|(_, waiting)| windows(&waiting.rebuild) == windows(&first))
            .map(|((partition, ..), waiting)| (*partition, waiting.rebuild.clone()))
            .collect();
        tracing::info!(
            table = first.tier().table,
            partitions = parts.len(),
            from = shown(first.gap.from),
            to = shown(first.gap.to),
            "rebuilding windows from raw points"
        );
        let (send, rebuilt) = mpsc::channel(1);
        let gaps = parts.iter().map(|(partition, rebuild)| (*partition, rebuild.gap.clone())).collect();
        let task = self.context.runtime.spawn(compute(self.context.clone(), first.clone(), gaps, send));
        self.job = Some(Job { first, parts, rebuilt, task, rows: 0 });
    }

    fn has_arrived(&self, offsets: &[(Source, i64)]) -> bool {
        offsets.iter().all(|(source, offset)| match self.archived.get(source) {
            Some(Archived::To(to)) => to >= offset,
            // A partition that nothing was ever read from has no commit.
            _ => *offset <= 0,
        })
    }

    /// Gives the sink what has been computed, as long as nothing else waits for it.
    fn hand_over(
        &mut self,
        partitions: &mut BTreeMap<i32, Partition>,
        outputs: &Outputs,
        tables: &Tables,
    ) -> crate::error::Result<()> {
        while let Some(job) = &mut self.job
            && outputs.is_idle()
        {
            let rebuilt = match job.rebuilt.try_recv() {
                Ok(rebuilt) => rebuilt,
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => {
                    self.end_job(partitions);
                    return Ok(());
                }
            };
            let table = tables.get(&job.first.rollup.name).and_then(|tables| tables.get(job.first.tier));
            let (Some(state), Some(table)) = (partitions.get(&rebuilt.partition), table) else { continue };
            job.rows += rebuilt.rows.num_rows();
            outputs.write(RollupRows {
                table: Arc::clone(table),
                rows: rebuilt.rows,
                withdrawn: rebuilt.withdrawn,
                partition: rebuilt.partition,
                // Newer than what any plan wrote: these windows were final at this offset.
                offset: state.next - 1,
            })?;
        }
        Ok(())
    }

    fn end_job(&mut self, partitions: &mut BTreeMap<i32, Partition>) {
        let Some(mut job) = self.job.take() else { return };
        let ended = self.context.runtime.block_on(&mut job.task);
        let now = self.context.clock.monotonic();
        let table = &job.first.tier().table;
        let (from, to) = (shown(job.first.gap.from), shown(job.first.gap.to));
        if let Err(error) = ended.context("the task panicked").and_then(|result| result) {
            self.failures += 1;
            let pause = LOOK.saturating_mul(1 << self.failures.min(6)).min(MAX_PAUSE);
            self.next_job = now + pause;
            tracing::warn!(
                table,
                from,
                to,
                error = format!("{error:#}"),
                ?pause,
                "windows not rebuilt, trying again"
            );
            return;
        }
        self.failures = 0;
        for (partition, rebuild) in &job.parts {
            self.waiting.remove(&key(*partition, rebuild));
            if let Some(state) = partitions.get_mut(partition) {
                state.fold.rebuilt(rebuild);
            }
        }
        let labels =
            TierLabels { rollup: job.first.rollup.name.clone(), tier: job.first.tier().name.clone() };
        self.context.metrics.rollup.rebuilt_rows.get_or_create(&labels).inc_by(job.rows as u64);
        tracing::info!(
            table,
            partitions = job.parts.len(),
            from,
            to,
            rows = job.rows,
            "windows rebuilt from raw points"
        );
    }

    fn warn_of_waiting(&mut self, now: Duration) {
        for ((partition, table, _), waiting) in &mut self.waiting {
            if now < waiting.warn_at {
                continue;
            }
            waiting.warn_at = now + PATIENCE;
            let behind = waiting.offsets.iter().find_map(|(source, offset)| {
                let archived = self.archived.get(source);
                (archived != Some(&Archived::To(*offset)) && *offset > 0).then(|| {
                    format!("{} partition {} to offset {offset}, has {archived:?}", source.0, source.1)
                })
            });
            tracing::warn!(
                table,
                partition,
                from = shown(waiting.rebuild.gap.from),
                to = shown(waiting.rebuild.gap.to),
                behind,
                "windows wait to be rebuilt until the archive has their points: is `ingest` running?"
            );
        }
    }
}

fn key(partition: i32, rebuild: &Rebuild) -> Key {
    (partition, rebuild.tier().table.clone(), rebuild.gap.from)
}

/// The archive's progress by the commits of `ingest`.
async fn archived_offsets(context: Context, sources: BTreeSet<Source>) -> Result<BTreeMap<Source, Archived>> {
    let sources = sources.into_iter().collect();
    let commits = committed(&context.config.kafka, &context.config.ingest.group, sources).await?;
    let mut archived = BTreeMap::new();
    for (source, commit) in commits {
        let Some((_, text)) = commit else { continue };
        let progress = ArchiveProgress::parse(&text)?;
        archived.insert(source, progress.map_or(Archived::Off, |progress| Archived::To(progress.safe)));
    }
    Ok(archived)
}
