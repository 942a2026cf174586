//! The source partitions that this process owns, and the epoch under way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, TimestampNanosecondArray};
use operators::decode::{DecodeOptions, Decoder, Points};
use operators::partial::{aggregate, points_schema};
use operators::watermark::{EpochFacts, PartitionFacts};
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::message::{BorrowedMessage, Message};

use super::archive::Archive;
use super::committer::{Committer, Epoch, Outgoing};
use super::dead_letter::{Origin, outgoing};
use crate::error::Result;
use crate::group::{Assigned, Commit, Share};
use crate::roles::Context;
use crate::telemetry::{ReasonLabels, RollupLabels, SourceLabels};

/// Largest message of partial states; an epoch with more is sent in several. Half of what brokers are set to take.
const MESSAGE_BYTES: usize = crate::kafka::MAX_MESSAGE_BYTES / 2;
/// Above this the series table is emptied between two epochs; series that are still alive come back.
const SERIES_BYTES: usize = 512 << 20;

pub(super) struct IngestShare {
    context: Context,
    decoder: Decoder,
    archive: Option<Archive>,
    committer: Committer,
    partitions: Vec<Owned>,
    /// Partitions of each source topic, owned or not.
    topics: BTreeMap<String, i32>,
    dead: Vec<Outgoing>,
    points: usize,
}

/// One owned source partition.
pub(super) struct Owned {
    pub(super) source: (String, i32),
    /// Messages before this were aggregated by an earlier epoch; they are read for the archive alone.
    aggregated: i64,
    /// The next offset to read, none before the first message.
    next: Option<i64>,
    from: i64,
    points: Points,
    archived_only: Points,
    high: Option<i64>,
    messages: u64,
    last_message: Duration,
    pub(super) end: End,
}

/// Whether a silent partition was read to its end.
#[derive(Debug, Default)]
pub(super) struct End {
    reached: bool,
    /// High watermark at the last look.
    seen: Option<i64>,
    /// The consumer said so since the last message.
    pub(super) announced: bool,
}

impl IngestShare {
    pub(super) fn new(context: &Context, topics: BTreeMap<String, i32>) -> Result<Self> {
        let ingest = &context.config.ingest;
        let defaults = DecodeOptions::default();
        let now = context.clock.now_ns();
        let options = DecodeOptions {
            format: ingest.format,
            max_future_skew: ingest.max_future_skew,
            max_message_bytes: ingest.max_message_bytes,
            oldest: ingest.oldest.map_or(defaults.oldest, |age| now.saturating_sub(nanoseconds(age))),
        };
        let archive = if context.config.archive.enabled { Some(Archive::new(context)?) } else { None };
        Ok(Self {
            decoder: Decoder::new(options, context.catalog.labels.clone()),
            archive,
            committer: Committer::start(context)?,
            context: context.clone(),
            partitions: Vec::new(),
            topics,
            dead: Vec::new(),
            points: 0,
        })
    }

    /// Points in the epoch under way.
    pub(super) fn points(&self) -> usize {
        self.points
    }

    pub(super) fn owned(&self) -> &[Owned] {
        &self.partitions
    }

    pub(super) fn is_committing(&mut self) -> Result<bool> {
        self.committer.is_busy()
    }

    /// Decodes one message into the epoch.
    pub(super) fn take(&mut self, message: &BorrowedMessage<'_>) {
        let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
        let Some(owned) =
            self.partitions.iter_mut().find(|owned| owned.source.1 == partition && owned.source.0 == topic)
        else {
            return;
        };
        if owned.next.is_some_and(|next| offset < next) {
            return;
        }
        owned.next = Some(offset + 1);
        owned.messages += 1;
        owned.last_message = self.context.clock.monotonic();
        owned.end = End::default();

        let again = offset < owned.aggregated;
        let points = if again { &mut owned.archived_only } else { &mut owned.points };
        let before = points.len();
        let time = message.timestamp().to_millis().map(|ms| ms.saturating_mul(1_000_000));
        let now = self.context.clock.now_ns();
        let mut rejections = Vec::new();
        let decoded =
            self.decoder.decode(message.payload().unwrap_or_default(), time, now, points, &mut rejections);
        if again {
            return;
        }
        let newest = points.time[before..].iter().copied().max();
        owned.high = owned.high.max(newest).max(decoded.heartbeat);
        self.points += decoded.points;
        if decoded.heartbeat.is_some() {
            self.context.metrics.ingest.heartbeats.inc();
        }
        let origin = Origin { topic, partition, offset };
        for rejection in rejections {
            let reason = ReasonLabels { reason: rejection.reason.as_str() };
            self.context.metrics.ingest.rejected.get_or_create(&reason).inc_by(rejection.count as u64);
            self.dead.push(outgoing(&self.context.config.topics.dead_letter, &origin, rejection));
        }
    }

    /// Partitions that have been silent for long enough to be idle, if nothing in their log is unread.
    pub(super) fn silent(&mut self) -> impl Iterator<Item = &mut Owned> {
        let now = self.context.clock.monotonic();
        let timeout = self.context.config.ingest.idle_timeout;
        self.partitions.iter_mut().filter(move |owned| now.saturating_sub(owned.last_message) >= timeout)
    }

    /// Remembers which partitions the consumer has read to their end.
    pub(super) fn announce_end(&mut self, partition: i32) {
        for owned in self.partitions.iter_mut().filter(|owned| owned.source.1 == partition) {
            owned.end.announced = true;
        }
    }

    /// Ends the epoch: aggregates it and hands it to the committer.
    pub(super) fn close_epoch(&mut self, group: ConsumerGroupMetadata) -> Result<()> {
        let started = self.context.clock.monotonic();
        let batches = self.batches()?;
        let facts = self.facts();
        let topics = &self.context.config.topics;
        let aggregated = aggregate(
            &self.context.catalog.rollups,
            &batches,
            &facts,
            usize::try_from(topics.partials_partitions).unwrap_or(1),
        );
        for failure in &aggregated.failures {
            let (rollup, points, error) = (&failure.rollup, failure.points, &failure.error);
            tracing::error!(rollup, points, %error, "a rollup failed on points, which are missing from it");
            let labels = RollupLabels { rollup: rollup.clone() };
            self.context.metrics.ingest.failed_points.get_or_create(&labels).inc_by(points as u64);
        }
        let mut messages = std::mem::take(&mut self.dead);
        for (partition, message) in (0..).zip(aggregated.messages) {
            for payload in message.encode_within(MESSAGE_BYTES)? {
                let topic = topics.partials.clone();
                messages.push(Outgoing { topic, partition: Some(partition), payload, headers: None });
            }
        }
        // Everything up to here ran beside the commit of the epoch before.
        self.settle()?;
        self.archive_epoch()?;
        let offsets = self.offsets()?;
        let metrics = &self.context.metrics.ingest;
        metrics.points.inc_by(self.points as u64);
        metrics.epochs.inc();
        metrics.series.set(self.decoder.series().len() as i64);
        metrics.epoch_seconds.observe(self.context.clock.monotonic().saturating_sub(started).as_secs_f64());
        self.points = 0;
        for owned in &mut self.partitions {
            let (topic, partition) = owned.source.clone();
            let labels = SourceLabels { topic, partition };
            metrics.messages.get_or_create(&labels).inc_by(std::mem::take(&mut owned.messages));
            owned.points.clear();
            owned.from = owned.next.unwrap_or(owned.from);
            owned.high = None;
        }
        self.committer.submit(Epoch { messages, offsets, group })
    }

    /// Waits until the epoch on its way is committed.
    fn settle(&mut self) -> Result<()> {
        if let Some(took) = self.committer.settle()? {
            self.context.metrics.ingest.commit_seconds.observe(took.as_secs_f64());
            if let Some(archive) = &mut self.archive {
                archive.committed();
            }
        }
        Ok(())
    }

    /// Everything read so far becomes durable and committed; for a clean end.
    pub(super) fn finish(&mut self, group: impl Fn() -> Result<ConsumerGroupMetadata>) -> Result<()> {
        self.close_epoch(group()?)?;
        self.settle()?;
        let series = self.decoder.series();
        let Some(archive) = &mut self.archive else { return Ok(()) };
        archive.flush(series)?;
        let offsets = self.offsets()?;
        self.committer.submit(Epoch { messages: Vec::new(), offsets, group: group()? })?;
        self.settle()
    }

    fn batches(&mut self) -> Result<Vec<RecordBatch>> {
        let schema = points_schema(&self.context.catalog.labels);
        let mut batches = Vec::new();
        for owned in self.partitions.iter_mut().filter(|owned| !owned.points.is_empty()) {
            let points = &owned.points;
            let (names, labels) = self.decoder.series().columns(&points.series);
            let mut columns: Vec<ArrayRef> = vec![
                Arc::new(names),
                Arc::new(TimestampNanosecondArray::from(points.time.clone())),
                Arc::new(Float64Array::from(points.value.clone())),
            ];
            columns.extend(labels.into_iter().map(|label| Arc::new(label) as ArrayRef));
            let batch = RecordBatch::try_new(Arc::clone(&schema), columns);
            batches.push(batch.map_err(operators::Error::from)?);
        }
        Ok(batches)
    }

    fn facts(&self) -> EpochFacts {
        let now = self.context.clock.monotonic();
        let partitions = self.partitions.iter().map(|owned| PartitionFacts {
            topic: owned.source.0.clone(),
            partition: owned.source.1,
            from: owned.from.max(owned.aggregated),
            to: owned.next.unwrap_or(owned.from).max(owned.aggregated),
            high: owned.high,
            at_end: owned.end.reached,
            silent: nanoseconds(now.saturating_sub(owned.last_message)),
        });
        EpochFacts {
            wall: self.context.clock.now_ns(),
            topics: self.topics.clone(),
            partitions: partitions.collect(),
        }
    }

    fn archive_epoch(&mut self) -> Result<()> {
        let Some(archive) = &mut self.archive else { return Ok(()) };
        for owned in &mut self.partitions {
            let Some(next) = owned.next else { continue };
            archive.append(&owned.source, &owned.archived_only, next);
            archive.append(&owned.source, &owned.points, next);
            owned.archived_only.clear();
        }
        let series = self.decoder.series();
        archive.roll_due(series)?;
        if series.memory_bytes() > SERIES_BYTES {
            archive.flush(series)?;
            tracing::warn!(series = series.len(), "series table is full, starting it anew");
            series.clear();
        }
        Ok(())
    }

    fn offsets(&mut self) -> Result<Commit> {
        let mut offsets = Vec::new();
        for owned in &self.partitions {
            let Some(next) = owned.next else { continue };
            let metadata = match &mut self.archive {
                Some(archive) => archive.metadata(&owned.source)?,
                None => String::new(),
            };
            let (topic, partition) = owned.source.clone();
            offsets.push((topic, partition, next.max(owned.aggregated), metadata));
        }
        Ok(offsets)
    }
}

impl Owned {
    /// Takes in a look at the partition's high watermark.
    ///
    /// Control records of transactions count in the high watermark but are never delivered. So the end counts
    /// as reached too when the consumer announced it and the high watermark has not moved since the last look;
    /// with several source topics an announcement does not say which one it means, and is not used.
    pub(super) fn look(&mut self, high: i64, announcements_count: bool) {
        let read_all = high <= self.next.unwrap_or(self.from);
        let unmoved = self.end.seen == Some(high);
        self.end.reached = read_all || (announcements_count && self.end.announced && unmoved);
        self.end.seen = Some(high);
    }

    /// The high watermark could not be had: there may be unread data.
    pub(super) fn look_failed(&mut self) {
        self.end = End { announced: self.end.announced, ..End::default() };
    }

    /// Messages between what was read and `high`.
    pub(super) fn lag(&self, high: i64) -> i64 {
        (high - self.next.unwrap_or(self.from)).max(0)
    }
}

impl Share for IngestShare {
    fn assigned(&mut self, partitions: &[Assigned]) -> Result<Vec<Option<i64>>> {
        let mut starts = Vec::new();
        for assigned in partitions {
            assigned.check_offset()?;
            let safe = match &mut self.archive {
                Some(archive) => Some(archive.assigned(assigned)?),
                None => None,
            };
            let aggregated = assigned.offset.unwrap_or(0);
            let start = safe.map_or(aggregated, |safe| safe.min(aggregated));
            starts.push(assigned.offset.map(|_| start));
            self.partitions.push(Owned {
                source: (assigned.topic.clone(), assigned.partition),
                aggregated,
                next: None,
                from: start,
                points: Points::default(),
                archived_only: Points::default(),
                high: None,
                messages: 0,
                last_message: self.context.clock.monotonic(),
                end: End::default(),
            });
        }
        self.context.readiness.ready("ingest");
        Ok(starts)
    }

    fn revoked(&mut self) -> Result<Commit> {
        // The epoch on its way is settled while this process still owns its partitions; the one being
        // collected is dropped, its offsets were not committed.
        let settled = self.committer.settle();
        // In every case, or a file of this owner could appear beside those of the next.
        let stored = self.archive.as_mut().map_or(Ok(()), Archive::revoked);
        self.partitions.clear();
        self.dead.clear();
        self.points = 0;
        settled?;
        stored?;
        Ok(Vec::new())
    }
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
