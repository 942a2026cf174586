//! Raw points to Parquet, each accepted point exactly once.
//!
//! The points of a source partition are collected and cut into chunks, each a contiguous range of
//! offsets. Where a chunk ends is committed together with the source offsets *before* any file of
//! it is written; once it is durable, the archive's safe offset moves to its end (see
//! [`ArchiveProgress`]). The next owner of the partition reads from the safe offset and cuts at the
//! committed ends, so it writes the same files with the same points under the same names. Nothing
//! has to be deleted or listed, and a file that a former owner still has on its way changes
//! nothing.
//!
//! Storage that is slow or away holds up nothing but itself: chunks wait in memory, and when that
//! is full, While [`Archive::is_full`], no more should be read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use backon::{ExponentialBuilder, Retryable};
use points::decode::Points;
use points::series::{SeriesTable, labels_type};
use sinks::parquet::{PointsBySeries, RawArchive, RawChunk, Written};
use tokio::task::JoinHandle;

use crate::error::{Error, Result};
use crate::roles::context::Context;
use crate::roles::group::{Assigned, Source};
use crate::storage;
use crate::storage::archive_progress::ArchiveProgress;

/// Memory of one collected point: series, time, value.
const POINT_BYTES: usize = 20;
/// Chunks of a partition that may wait. Their ends are committed as text, for which brokers take
/// 4,096 bytes by default.
const MAX_CHUNKS: usize = 64;
/// Points that are collected or wait, all partitions together, in files of `roll_size`.
const MOST_FILES: usize = 4;
/// Longest pause between two tries to store a chunk.
const MAX_BACKOFF: Duration = Duration::from_secs(5);
const DRAIN_POLL: Duration = Duration::from_millis(10);

pub(super) struct Archive {
    store: RawArchive,
    context: Context,
    partitions: BTreeMap<Source, Partition>,
    /// Of the storage; none while that is away.
    storage: Option<String>,
}

struct Partition {
    /// Everything before this is durable.
    safe: i64,
    /// Cut and not durable yet, oldest first. The first one starts at `safe`.
    chunks: VecDeque<Chunk>,
    /// Where the points that are being collected start and end.
    start: i64,
    next: i64,
    points: Points,
    since: Option<Duration>,
    /// Where a former owner had cut, as far as it was not come to yet.
    cuts: VecDeque<i64>,
}

struct Chunk {
    end: i64,
    rows: usize,
    /// Memory of its points.
    bytes: usize,
    /// Until it is being written; none also when it has no points.
    content: Option<RawChunk>,
    announced: Announced,
    write: Option<Write>,
}

/// Whether the end of a chunk is known to the group. Before, no file of it is written: the next
/// owner would cut elsewhere.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Announced {
    No,
    Submitted,
    Committed,
}

/// A task that stores a chunk; ends when it is dropped.
struct Write(JoinHandle<Result<Written, sinks::Error>>);

impl Drop for Write {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Archive {
    pub(super) fn new(context: &Context) -> Result<Self> {
        let (store, prefix) = sinks::parquet::store::open(context.config.storage.url.as_str())?;
        let storage = context.runtime.block_on(storage::named(&store, &prefix)).unwrap_or_else(|error| {
            tracing::warn!(%error, "the storage cannot be asked for its name, so nothing tells it from another one");
            None
        });
        let store = RawArchive::new(store, prefix);
        Ok(Self { store, context: context.clone(), partitions: BTreeMap::new(), storage })
    }

    /// The storage's name, if it has one.
    pub(super) fn storage(&self) -> Option<&str> {
        self.storage.as_deref()
    }

    /// Refuses a partition whose archive is in another storage.
    pub(super) fn check_storage(&self, assigned: &Assigned) -> Result<()> {
        let Some(own) = &self.storage else { return Ok(()) };
        storage::check(Some(own), &assigned.metadata, (&assigned.topic, assigned.partition))
    }

    /// The text of a commit, with the storage that it is about.
    pub(super) fn with_storage(&self, text: String) -> String {
        storage::with_storage(text, self.storage.as_deref())
    }

    /// Takes a partition over and returns where it has to be read from.
    ///
    /// # Errors
    /// Without a committed offset nothing shows which of the files that are there Kafka could give
    /// again, and points that were compacted cannot be taken out again: then no file is touched and
    /// a person has to decide.
    pub(super) fn assigned(&mut self, assigned: &Assigned) -> Result<i64> {
        let progress = match (assigned.offset, ArchiveProgress::parse(&assigned.metadata)?) {
            (Some(_), Some(progress)) => progress,
            // The archive was off, and what came before is not in it; or the offset was set by
            // hand, and what comes after is read again.
            (Some(offset), None) => self.set_by_hand(assigned, offset)?,
            (None, _) => {
                self.refuse_foreign_files(assigned)?;
                ArchiveProgress { safe: assigned.log.0, ends: Vec::new() }
            }
        };
        let progress = self.without_removed(assigned, progress)?;
        let safe = progress.safe;
        let partition = Partition {
            safe,
            chunks: VecDeque::new(),
            start: safe,
            next: safe,
            points: Points::default(),
            since: None,
            cuts: progress.ends.into(),
        };
        self.partitions.insert(assigned.source(), partition);
        Ok(safe)
    }

    /// What is left to archive where retention was faster. A chunk of which the beginning is gone
    /// is not cut again under its name: a former owner may have stored it whole.
    fn without_removed(&self, assigned: &Assigned, mut progress: ArchiveProgress) -> Result<ArchiveProgress> {
        let (topic, partition, begin) = (&assigned.topic, assigned.partition, assigned.log.0);
        if begin <= progress.safe {
            return Ok(progress);
        }
        let across = self.context.runtime.block_on(self.store.chunk_across(topic, partition, begin))?;
        let until = across.map_or(begin, |(_, end)| end);
        if across.is_none() {
            let lost = begin - progress.safe;
            tracing::error!(
                topic,
                partition,
                lost,
                "messages were removed by retention before they were archived"
            );
        }
        progress.safe = until;
        progress.ends.retain(|end| *end > until);
        Ok(progress)
    }

    /// What to archive from an offset that may have been set back: chunks from there on will be cut
    /// elsewhere, so their files go. A chunk that the offset is in the middle of is read, cut and
    /// written once more as it was.
    fn set_by_hand(&self, assigned: &Assigned, offset: i64) -> Result<ArchiveProgress> {
        let (topic, partition) = (&assigned.topic, assigned.partition);
        let refused = |place: &str, until: i64| {
            Error::Refused(format!(
                "topic `{topic}` partition {partition} was set to offset {offset}, but the archive has its points up to \
                 {until} in {place}, where they cannot be replaced: set the group `{}` to {until} or later, or give `url` \
                 of [storage] another place",
                self.context.config.ingest.group
            ))
        };
        let runtime = &self.context.runtime;
        match runtime.block_on(self.store.compacted_until(topic, partition))? {
            Some(until) if offset < until => return Err(refused("compacted files", until)),
            _ => {}
        }
        let across = runtime.block_on(self.store.chunk_across(topic, partition, offset))?;
        if let Some((_, end)) = across.filter(|(start, _)| *start < assigned.log.0) {
            return Err(refused("a file that starts before the log", end));
        }
        runtime.block_on(self.store.delete_from(topic, partition, offset))?;
        Ok(match across {
            Some((start, end)) => ArchiveProgress { safe: start, ends: vec![end] },
            None => ArchiveProgress { safe: offset, ends: Vec::new() },
        })
    }

    fn refuse_foreign_files(&self, assigned: &Assigned) -> Result<()> {
        let (topic, partition) = (&assigned.topic, assigned.partition);
        if !self.context.runtime.block_on(self.store.has_files(topic, partition))? {
            return Ok(());
        }
        Err(Error::Refused(format!(
            "the archive holds files of topic `{topic}` partition {partition}, but the group `{}` has no committed \
             offset to go on from (renamed, deleted or expired?): name the old group in [ingest], or give `url` of \
             [storage] another place",
            self.context.config.ingest.group
        )))
    }

    /// Where a former owner cut next: points before and after it go to different chunks.
    pub(super) fn next_cut(&self, source: &Source) -> Option<i64> {
        self.partitions.get(source)?.cuts.front().copied()
    }

    /// Adds points read up to `next`.
    pub(super) fn append(&mut self, source: &Source, points: &Points, next: i64) {
        let Some(partition) = self.partitions.get_mut(source) else { return };
        partition.next = next;
        if points.is_empty() {
            return;
        }
        partition.since.get_or_insert(self.context.clock.monotonic());
        partition.points.series.extend_from_slice(&points.series);
        partition.points.time.extend_from_slice(&points.time);
        partition.points.value.extend_from_slice(&points.value);
    }

    /// Cuts at [`Archive::next_cut`], to which everything was appended.
    pub(super) fn cut_again(&mut self, source: &Source, series: &mut SeriesTable) -> Result<()> {
        let Some(partition) = self.partitions.get_mut(source) else { return Ok(()) };
        let Some(end) = partition.cuts.pop_front() else { return Ok(()) };
        partition.next = end;
        partition.cut(source, Announced::Committed, series)
    }

    /// Cuts chunks that are large or old enough, and the largest when half of the memory is used.
    pub(super) fn cut_due(&mut self, series: &mut SeriesTable) -> Result<()> {
        let (roll_size, age) = (self.context.config.archive.roll_size, self.context.config.archive.roll_age);
        let size = self.context.shares.archive_file(roll_size);
        let now = self.context.clock.monotonic();
        let buffered = self.bytes();
        self.context.metrics.memory.hold("archive", buffered);
        let crowded = buffered > self.context.shares.archive_buffer() / 2;
        let most = self.partitions.values().filter(|p| p.may_cut()).map(|p| p.points.len()).max();
        for (source, partition) in &mut self.partitions {
            let collected = partition.points.len();
            let old = partition.since.is_some_and(|since| now.saturating_sub(since) >= age);
            let large = collected * POINT_BYTES + text_bytes(collected, series) >= size;
            let due = old || large || (crowded && Some(collected) == most);
            // One at a time: what comes in while storage is slow is better stored as one larger
            // file.
            if due && partition.may_cut() {
                partition.cut(source, Announced::No, series)?;
            }
        }
        Ok(())
    }

    /// Cuts everything, so that no collected point needs the series table any more. False when a
    /// partition has still to come to where a former owner cut, or has too many chunks waiting.
    pub(super) fn cut_all(&mut self, series: &mut SeriesTable) -> Result<bool> {
        let mut all = true;
        for (source, partition) in &mut self.partitions {
            if partition.points.is_empty() {
                continue;
            }
            if partition.cuts.is_empty() && partition.chunks.len() < MAX_CHUNKS {
                partition.cut(source, Announced::No, series)?;
            } else {
                all = false;
            }
        }
        Ok(all)
    }

    /// The text to commit for a source partition.
    pub(super) fn submit(&mut self, source: &Source) -> Result<String> {
        let Some(partition) = self.partitions.get_mut(source) else { return Ok(String::new()) };
        partition.collect(source, &self.store, &self.context)?;
        for chunk in partition.chunks.iter_mut().filter(|chunk| chunk.announced == Announced::No) {
            chunk.announced = Announced::Submitted;
        }
        let cut = partition.chunks.iter().map(|chunk| chunk.end);
        let ends = cut.chain(partition.cuts.iter().copied()).collect();
        Ok(ArchiveProgress { safe: partition.safe, ends }.encode())
    }

    /// What was submitted last has been committed: its files may be written.
    pub(super) fn committed(&mut self) -> Result<()> {
        for (source, partition) in &mut self.partitions {
            for chunk in partition.chunks.iter_mut().filter(|chunk| chunk.announced == Announced::Submitted) {
                chunk.announced = Announced::Committed;
            }
            partition.collect(source, &self.store, &self.context)?;
        }
        Ok(())
    }

    /// Whether no more should be read until a file is stored. Never while there is none on its way,
    /// which would be for ever.
    pub(super) fn is_full(&self) -> bool {
        let waits = self.partitions.values().any(|partition| !partition.chunks.is_empty());
        let points: usize = self.partitions.values().map(Partition::points).sum();
        let most = self.context.config.archive.roll_size.saturating_mul(MOST_FILES);
        waits && (points * POINT_BYTES > most || self.bytes() > self.context.shares.archive_buffer())
    }

    fn bytes(&self) -> usize {
        self.partitions.values().map(Partition::bytes).sum()
    }

    /// Waits until all committed chunks are durable. What is not after `patience` is left to the
    /// next owner.
    pub(super) fn drain(&mut self, patience: Duration) -> Result<()> {
        let clock = &self.context.clock;
        let until = clock.monotonic() + patience;
        loop {
            for (source, partition) in &mut self.partitions {
                partition.collect(source, &self.store, &self.context)?;
            }
            let waiting = self.partitions.values().filter(|partition| !partition.chunks.is_empty()).count();
            if waiting == 0 {
                return Ok(());
            }
            if clock.monotonic() >= until {
                tracing::warn!(
                    partitions = waiting,
                    "archive files are not stored yet, the next owner writes them"
                );
                return Ok(());
            }
            // Made inside: a timer belongs to the runtime it is made in.
            self.context.runtime.block_on(async { tokio::time::sleep(DRAIN_POLL).await });
        }
    }

    /// Gives a partition up. What was only collected is dropped; files on their way may or may not
    /// come to be, and the next owner writes the same.
    pub(super) fn revoked(&mut self, source: &Source) {
        self.partitions.remove(source);
    }
}

impl Partition {
    fn points(&self) -> usize {
        self.points.len() + self.chunks.iter().map(|chunk| chunk.rows).sum::<usize>()
    }

    fn bytes(&self) -> usize {
        self.points.len() * POINT_BYTES + self.chunks.iter().map(|chunk| chunk.bytes).sum::<usize>()
    }

    fn may_cut(&self) -> bool {
        self.cuts.is_empty() && self.chunks.is_empty() && !self.points.is_empty()
    }

    fn cut(&mut self, source: &Source, announced: Announced, series: &mut SeriesTable) -> Result<()> {
        let points = std::mem::take(&mut self.points);
        let mut chunk =
            Chunk { end: self.next, rows: points.len(), bytes: 0, content: None, announced, write: None };
        if !points.is_empty() {
            let points = by_series(points, series)?;
            chunk.bytes = points.memory_bytes();
            chunk.content = Some(RawChunk {
                topic: source.0.clone(),
                partition: source.1,
                first_offset: self.start,
                last_offset: self.next - 1,
                points,
            });
        }
        self.chunks.push_back(chunk);
        self.start = self.next;
        self.since = None;
        Ok(())
    }

    /// Takes in what has become durable, and starts writing the next chunk.
    fn collect(&mut self, source: &Source, store: &RawArchive, context: &Context) -> Result<()> {
        while let Some(chunk) = self.chunks.front_mut() {
            if chunk.announced != Announced::Committed {
                return Ok(());
            }
            if let Some(content) = chunk.content.take() {
                chunk.write = Some(Write(context.runtime.spawn(write(store.clone(), content))));
            }
            if let Some(write) = &mut chunk.write {
                if !write.0.is_finished() {
                    return Ok(());
                }
                let written = context
                    .runtime
                    .block_on(&mut write.0)
                    .map_err(|_| Error::Interrupted("the archive's writer ended early"))??;
                let metrics = &context.metrics.archive;
                metrics.files.inc_by(written.files as u64);
                metrics.bytes.inc_by(written.bytes);
                metrics.rows.inc_by(written.rows);
                tracing::debug!(
                    topic = source.0,
                    partition = source.1,
                    end = chunk.end,
                    "archive files stored"
                );
            }
            self.safe = chunk.end;
            self.chunks.pop_front();
        }
        if self.points.is_empty() && self.cuts.is_empty() {
            // No point was accepted since: there is nothing to store.
            self.safe = self.next;
            self.start = self.next;
        }
        Ok(())
    }
}

/// Stores a chunk, however long storage is away.
async fn write(store: RawArchive, chunk: RawChunk) -> Result<Written, sinks::Error> {
    let attempt = || async { store.write(chunk.clone()).await };
    let backoff = ExponentialBuilder::default().with_jitter().with_max_delay(MAX_BACKOFF).without_max_times();
    attempt
        .retry(backoff)
        .when(sinks::Error::retryable)
        .notify(|error, wait| tracing::warn!(%error, ?wait, "archive files not stored, trying again"))
        .await
}

/// At most what the names and labels of so many points take.
fn text_bytes(points: usize, series: &SeriesTable) -> usize {
    let each = series.text_bytes() / series.len().max(1);
    points.min(series.len()) * each
}

/// The points with the names and labels of their own series alone.
fn by_series(points: Points, series: &mut SeriesTable) -> Result<PointsBySeries> {
    const NONE: u32 = u32::MAX;
    let Points { series: mut ids, time, value } = points;
    let mut row_of = vec![NONE; series.len()];
    let mut found = Vec::new();
    for id in &mut ids {
        let row = &mut row_of[*id as usize];
        if *row == NONE {
            *row = u32::try_from(found.len()).expect("no more than there are ids");
            found.push(*id);
        }
        *id = *row;
    }
    let columns: Vec<ArrayRef> =
        vec![Arc::new(series.columns(&found).0), Arc::new(series.labels_map(&found))];
    let schema = Schema::new(vec![
        Field::new("name", DataType::Utf8View, false),
        Field::new("labels", labels_type(), false),
    ]);
    let text = RecordBatch::try_new(Arc::new(schema), columns).map_err(operators::Error::from)?;
    Ok(PointsBySeries::new(&text, ids, time, value)?)
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
