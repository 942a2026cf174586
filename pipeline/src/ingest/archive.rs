//! Raw points to Parquet, each accepted point exactly once.
//!
//! The points of a source partition are collected and written in chunks, each a contiguous range of offsets.
//! The archive's safe offset is the end of the last durable chunk; it travels as the text of the committed
//! offset. Whoever takes the partition over deletes files that start at or after it, and reads from there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use backon::{ExponentialBuilder, Retryable};
use operators::decode::Points;
use operators::series::{SeriesTable, labels_type};
use sinks::parquet::{RawArchive, RawChunk, Written};
use tokio::task::JoinHandle;

use crate::error::{Error, Result};
use crate::group::Assigned;
use crate::roles::Context;

const METADATA: &str = "archive=";
/// Memory of one buffered point: series, time, value.
const POINT_BYTES: usize = 20;
/// How long the consumer's thread waits for a file: well below the time after which the group gives a member up.
const PATIENCE: Duration = Duration::from_secs(120);
/// Buffered points of all partitions together, as a multiple of one file.
const FILES_BUFFERED: usize = 4;

pub(super) struct Archive {
    store: Arc<RawArchive>,
    context: Context,
    partitions: BTreeMap<(String, i32), Partition>,
}

struct Partition {
    /// Everything before this is durable.
    safe: i64,
    /// Where the chunk that is being collected starts.
    start: i64,
    next: i64,
    points: Points,
    since: Option<Duration>,
    writing: Option<(i64, JoinHandle<Result<Written, sinks::Error>>)>,
    offset: FirstOffset,
}

/// Whether the group has an offset of the partition. Before it has one no file is written: a file that no
/// committed offset explains would stop the next owner.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FirstOffset {
    None,
    Submitted,
    Committed,
}

/// The archive's offset in the text of a committed offset; none when the archive was off.
pub(crate) fn archived_to(metadata: &str) -> Option<i64> {
    metadata.strip_prefix(METADATA)?.parse().ok()
}

impl Archive {
    pub(super) fn new(context: &Context) -> Result<Self> {
        let (store, prefix) = sinks::parquet::store::open(context.config.storage.url.as_str())?;
        let store = Arc::new(RawArchive::new(store, prefix));
        Ok(Self { store, context: context.clone(), partitions: BTreeMap::new() })
    }

    /// Takes a partition over and returns where it has to be read from.
    ///
    /// # Errors
    /// Without a committed offset nothing says which of the files that are there Kafka could give again, so none is
    /// touched and a person has to decide.
    pub(super) fn assigned(&mut self, assigned: &Assigned) -> Result<i64> {
        if assigned.offset.is_none() {
            self.refuse_foreign_files(assigned)?;
        }
        let committed = assigned.offset.unwrap_or(0);
        let safe = match assigned.metadata.strip_prefix(METADATA) {
            Some(text) => text.parse().map_err(|_| {
                Error::Refused(format!(
                    "the archive's offset in the group's commit is unreadable metadata=`{}`",
                    assigned.metadata
                ))
            })?,
            // Committed while the archive was off: what came before is not in it, and will not be.
            None => committed,
        };
        let (topic, partition) = (assigned.topic.clone(), assigned.partition);
        let deleted = self.context.runtime.block_on(self.store.delete_from(&topic, partition, safe))?;
        if deleted > 0 {
            tracing::info!(topic, partition, safe, deleted, "files beyond the archive's offset deleted");
        }
        let offset = if assigned.offset.is_some() { FirstOffset::Committed } else { FirstOffset::None };
        let collecting = Partition {
            safe,
            start: safe,
            next: safe,
            points: Points::default(),
            since: None,
            writing: None,
            offset,
        };
        self.partitions.insert((topic, partition), collecting);
        Ok(safe)
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

    /// Adds points read up to `next`.
    pub(super) fn append(&mut self, source: &(String, i32), points: &Points, next: i64) {
        let now = self.context.clock.monotonic();
        let Some(partition) = self.partitions.get_mut(source) else { return };
        partition.next = next;
        if points.is_empty() {
            return;
        }
        partition.since.get_or_insert(now);
        partition.points.series.extend_from_slice(&points.series);
        partition.points.time.extend_from_slice(&points.time);
        partition.points.value.extend_from_slice(&points.value);
    }

    /// The text to commit for a source partition.
    pub(super) fn metadata(&mut self, source: &(String, i32)) -> Result<String> {
        let Some(partition) = self.partitions.get_mut(source) else { return Ok(String::new()) };
        partition.collect(&self.context, false)?;
        partition.pass_over_nothing();
        if partition.offset == FirstOffset::None {
            partition.offset = FirstOffset::Submitted;
        }
        Ok(format!("{METADATA}{}", partition.safe))
    }

    /// What was submitted last has been committed.
    pub(super) fn committed(&mut self) {
        for partition in self.partitions.values_mut() {
            if partition.offset == FirstOffset::Submitted {
                partition.offset = FirstOffset::Committed;
            }
        }
    }

    /// Starts writing chunks that are large or old enough, and waits when too much is buffered.
    pub(super) fn roll_due(&mut self, series: &mut SeriesTable) -> Result<()> {
        let (size, age) = (self.context.config.archive.roll_size, self.context.config.archive.roll_age);
        let now = self.context.clock.monotonic();
        let buffered: usize =
            self.partitions.values().map(|partition| partition.points.len() * POINT_BYTES).sum();
        let crowded = buffered > size * FILES_BUFFERED;
        for (source, partition) in &mut self.partitions {
            if partition.offset != FirstOffset::Committed {
                continue;
            }
            let old = partition.since.is_some_and(|since| now.saturating_sub(since) >= age);
            if crowded || old || partition.points.len() * POINT_BYTES >= size {
                partition.roll(source, &self.store, &self.context, series)?;
            }
        }
        Ok(())
    }

    /// Writes everything and waits until it is durable.
    pub(super) fn flush(&mut self, series: &mut SeriesTable) -> Result<()> {
        for (source, partition) in &mut self.partitions {
            partition.roll(source, &self.store, &self.context, series)?;
        }
        for partition in self.partitions.values_mut() {
            partition.collect(&self.context, true)?;
        }
        Ok(())
    }

    /// Gives all partitions up: waits for files under way, so that none appears after the next owner
    /// cleaned up, and drops what was only collected.
    pub(super) fn revoked(&mut self) -> Result<()> {
        let mut outcome = Ok(());
        for partition in self.partitions.values_mut() {
            outcome = outcome.and(partition.collect(&self.context, true));
        }
        self.partitions.clear();
        outcome
    }
}

impl Partition {
    fn roll(
        &mut self,
        source: &(String, i32),
        store: &Arc<RawArchive>,
        context: &Context,
        series: &mut SeriesTable,
    ) -> Result<()> {
        self.collect(context, true)?;
        if self.points.is_empty() {
            // Nothing accepted in this range: there is nothing to wait for.
            self.safe = self.next;
            self.start = self.next;
            return Ok(());
        }
        let points = std::mem::take(&mut self.points);
        let chunk = RawChunk {
            topic: source.0.clone(),
            partition: source.1,
            first_offset: self.start,
            last_offset: self.next - 1,
            points: batch(&points, series).map_err(operators::Error::from)?,
        };
        self.since = None;
        self.start = self.next;
        let store = Arc::clone(store);
        let write = async move {
            let attempt = || async { store.write(chunk.clone()).await };
            let backoff = ExponentialBuilder::default().with_jitter().with_max_delay(Duration::from_secs(10));
            attempt
                .retry(backoff.without_max_times())
                .when(sinks::Error::retryable)
                .notify(|error, wait| tracing::warn!(%error, ?wait, "archive file not written, trying again"))
                .await
        };
        self.writing = Some((self.next, context.runtime.spawn(write)));
        Ok(())
    }

    /// Messages without a point, after which nothing waits to be written, are as good as durable.
    fn pass_over_nothing(&mut self) {
        if self.points.is_empty() && self.writing.is_none() {
            self.safe = self.next;
            self.start = self.next;
        }
    }

    /// Takes the outcome of the chunk under way, if it is there or `wait` says to wait for it.
    fn collect(&mut self, context: &Context, wait: bool) -> Result<()> {
        if !wait && self.writing.as_ref().is_some_and(|(_, task)| !task.is_finished()) {
            return Ok(());
        }
        let Some((end, mut task)) = self.writing.take() else { return Ok(()) };
        let waited = context.runtime.block_on(async { tokio::time::timeout(PATIENCE, &mut task).await });
        let Ok(finished) = waited else {
            // The group would take the partition away; its next owner reads from the safe offset again.
            task.abort();
            return Err(Error::Stopped("the archive's writer did not get a file stored in time, so it was"));
        };
        let written = finished.map_err(|_| Error::Stopped("the archive's writer"))??;
        let metrics = &context.metrics.archive;
        metrics.files.inc_by(written.files as u64);
        metrics.bytes.inc_by(written.bytes);
        metrics.rows.inc_by(written.rows);
        self.safe = end;
        Ok(())
    }
}

fn batch(points: &Points, series: &mut SeriesTable) -> Result<RecordBatch, arrow::error::ArrowError> {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(series.columns(&points.series).0),
        Arc::new(series.labels_map(&points.series)),
        Arc::new(TimestampNanosecondArray::from(points.time.clone())),
        Arc::new(Float64Array::from(points.value.clone())),
    ];
    let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let schema = Schema::new(vec![
        Field::new("name", DataType::Utf8View, false),
        Field::new("labels", labels_type(), false),
        Field::new("time", time, false),
        Field::new("value", DataType::Float64, false),
    ]);
    RecordBatch::try_new(Arc::new(schema), columns)
}
