//! The source partitions that this process owns, and the epoch under way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use operators::epoch::EpochPoints;
use operators::watermark::EpochFacts;
use points::decode::{DecodeOptions, Decoder, Reason};
use rdkafka::message::{BorrowedMessage, Message};

use super::archive::Archive;
use super::bound::{self, EpochBound};
use super::committer::{Committer, Work};
use super::dead_letter::{Origin, outgoing};
use super::epoch::{Aggregator, Collected, Epoch};
use super::look::Look;
use super::owned::{self, Owned};
use crate::clock::Now;
use crate::error::{Error, Result};
use crate::memory::{Part, WAITING_POINT_BYTES};
use crate::roles::context::{Context, HANDOVER};
use crate::roles::group::{Assigned, Commit, Membership, Share, Source};
use crate::telemetry::{ReasonLabels, SourceLabels};
use crate::time::nanoseconds;

/// Largest message of partial states, whatever the memory and the broker allow; an epoch with more
/// is sent in several.
const MESSAGE_BYTES: usize = crate::kafka::MAX_MESSAGE_BYTES / 2;
/// How long an epoch under way may take to be committed. Its transaction ends before.
const COMMIT_PATIENCE: Duration = Duration::from_secs(180);

pub(super) struct IngestShare {
    context: Context,
    decoder: Decoder,
    archive: Option<Archive>,
    committer: Committer,
    partitions: Vec<Owned>,
    bound: EpochBound,
    /// Points in the epoch that is being read.
    collected: usize,
    /// Bytes of what waits for the end of the epoch without being aggregated: dead letters, points
    /// for the archive alone.
    waiting: usize,
    /// Series known when the epoch began.
    series_before: usize,
    /// Bytes of the series table after which it is emptied.
    series_limit: usize,
    series_full: bool,
    /// What the dead-letter topic takes in one message.
    dead_letter_bytes: usize,
}

impl IngestShare {
    /// `limits`: the largest messages that the partials topic and the dead-letter topic take.
    pub(super) fn new(
        context: &Context,
        topics: BTreeMap<String, i32>,
        limits: (usize, usize),
    ) -> Result<Self> {
        let ingest = &context.config.ingest;
        let defaults = DecodeOptions::default();
        let now = context.clock.now_ns();
        let options = DecodeOptions {
            format: ingest.format,
            max_future_skew: ingest.max_future_skew,
            max_message_bytes: ingest.max_message_bytes,
            bounds: ingest.texts(),
            oldest: ingest.oldest.map_or(defaults.oldest, |age| now.saturating_sub(nanoseconds(age))),
        };
        let archive = if context.config.archive.enabled { Some(Archive::new(context)?) } else { None };
        let message_bytes = context.shares.message(MESSAGE_BYTES.min(limits.0));
        let aggregator = Aggregator { context: context.clone(), message_bytes, dead_letter_bytes: limits.1 };
        let state_bytes = context.catalog.rollups.iter().map(|rollup| rollup.state_bytes()).sum();
        let storage = archive.as_ref().and_then(Archive::storage).map(str::to_owned);
        Ok(Self {
            decoder: Decoder::new(options, context.catalog.labels.clone()),
            archive,
            committer: Committer::start(aggregator, Look::new(context, topics, storage)?)?,
            context: context.clone(),
            partitions: Vec::new(),
            bound: EpochBound::new(context.shares.get(Part::Epoch), ingest.epoch_points, state_bytes),
            collected: 0,
            waiting: 0,
            series_before: 0,
            series_limit: context.shares.get(Part::Series),
            series_full: false,
            dead_letter_bytes: limits.1,
        })
    }

    /// Whether the epoch under way has to end: by its points, or by the memory that it takes.
    pub(super) fn epoch_is_full(&mut self) -> bool {
        let new_series = self.decoder.series().len() - self.series_before;
        self.series_full || self.bound.is_full(self.collected, new_series, self.waiting)
    }

    /// Whether nothing more should be read until the archive has stored what it holds.
    pub(super) fn archive_is_full(&self) -> bool {
        self.archive.as_ref().is_some_and(Archive::is_full)
    }

    /// Partitions that should wait for the others, see [`owned::ahead`].
    pub(super) fn ahead(&self) -> BTreeSet<Source> {
        owned::ahead(&self.partitions, nanoseconds(self.context.config.ingest.max_drift))
    }

    pub(super) fn owned(&self) -> &[Owned] {
        &self.partitions
    }

    pub(super) fn is_committing(&mut self) -> Result<bool> {
        self.committer.is_busy()
    }

    /// Decodes one message into the epoch.
    pub(super) fn take(&mut self, message: &BorrowedMessage<'_>, now: Now) -> Result<()> {
        let (partition, offset) = (message.partition(), message.offset());
        let single_topic = self.context.config.topics.points.len() == 1;
        let is_it = |owned: &Owned| {
            owned.source.1 == partition && (single_topic || owned.source.0 == message.topic())
        };
        let Some(index) = self.partitions.iter().position(is_it) else { return Ok(()) };
        let (next, aggregated) = (self.partitions[index].next, self.partitions[index].aggregated);
        if offset < next {
            return Ok(());
        }
        if next < aggregated {
            // The offset where a former owner cut need not be that of a message any more.
            self.cut_again(index, offset.min(aggregated))?;
        }
        let again = offset < aggregated;
        let time = message.timestamp().to_millis().map(|ms| ms.saturating_mul(1_000_000));
        let payload = message.payload().unwrap_or_default();
        if let Some(age) = self.context.config.ingest.oldest {
            self.decoder.set_oldest(now.wall.saturating_sub(nanoseconds(age)));
        }
        let owned = &mut self.partitions[index];
        owned.read(offset, now.monotonic);
        let points = if again { &mut owned.archived_only } else { &mut owned.points };
        let before = points.len();
        let mut rejections = Vec::new();
        let known = self.decoder.series().len();
        let decoded = self.decoder.decode(payload, time, now.wall, points, &mut rejections);
        if self.decoder.series().len() > known {
            self.series_full = self.decoder.series().memory_bytes() > self.series_limit;
        }
        if again {
            self.waiting += decoded.points * WAITING_POINT_BYTES;
            return self.cut_again(index, offset + 1);
        }
        self.collected += decoded.points;
        let newest = points.time[before..].iter().copied().max();
        owned.high = owned.high.max(newest).max(decoded.heartbeat);
        let oldest = points.time[before..].iter().copied().min();
        owned.low = owned.low.into_iter().chain(oldest).min();
        if decoded.heartbeat.is_some() {
            self.context.metrics.ingest.heartbeats.inc();
        }
        if rejections.is_empty() {
            return Ok(());
        }
        let topic = message.topic();
        let origin = Origin { topic, partition, offset };
        for rejection in rejections {
            let reason = ReasonLabels { reason: rejection.reason.as_str() };
            self.context.metrics.ingest.rejected.get_or_create(&reason).inc_by(rejection.count as u64);
            if rejection.reason == Reason::FutureTimestamp {
                let labels = SourceLabels { topic: topic.to_owned(), partition };
                self.context
                    .metrics
                    .ingest
                    .future_points
                    .get_or_create(&labels)
                    .inc_by(rejection.count as u64);
            }
            self.context.board.refused(&owned.source, offset, &rejection);
            self.waiting += rejection.excerpt.len() + bound::DEAD_LETTER_BYTES;
            let topic = &self.context.config.topics.dead_letter;
            owned.dead.push(outgoing(topic, &origin, rejection, self.dead_letter_bytes));
        }
        Ok(())
    }

    /// What was read for the archive alone is divided where a former owner divided it.
    fn cut_again(&mut self, index: usize, reached: i64) -> Result<()> {
        let Some(archive) = &mut self.archive else { return Ok(()) };
        let owned = &mut self.partitions[index];
        while archive.next_cut(&owned.source).is_some_and(|cut| cut <= reached) {
            archive.append(&owned.source, &owned.archived_only, reached);
            owned.archived_only.clear();
            archive.cut_again(&owned.source, self.decoder.series())?;
        }
        Ok(())
    }

    /// Remembers which partitions the consumer has read to their end.
    pub(super) fn announce_end(&mut self, partition: i32) {
        for owned in self.partitions.iter_mut().filter(|owned| owned.source.1 == partition) {
            owned.announce_end();
        }
    }

    /// Waits for the epoch before this one. Only then may the ends of partitions be looked for: a
    /// report of idleness has to be newer than the report before it.
    pub(super) fn settle_epoch(&mut self, membership: Membership<'_>) -> Result<()> {
        self.settle(COMMIT_PATIENCE, membership)
    }

    /// Ends the epoch and hands it to the committer, which aggregates it while the next one is
    /// read. The one before must be settled, and nothing may be read between that and this.
    pub(super) fn end_epoch(&mut self, membership: Membership<'_>) -> Result<()> {
        let facts = self.facts();
        if let Some(archive) = &mut self.archive {
            for owned in &self.partitions {
                archive.append(&owned.source, &owned.archived_only, owned.next);
                archive.append(&owned.source, &owned.points, owned.next);
            }
        }
        let points = self.partitions.iter_mut().map(Owned::take_points);
        let points = Arc::new(EpochPoints::new(self.decoder.series(), points));
        let dead = self.partitions.iter_mut().flat_map(|owned| std::mem::take(&mut owned.dead)).collect();
        self.context.metrics.memory.hold("epoch", self.bound.bytes(self.collected, 0) + self.waiting);
        self.cut_archive()?;
        let offsets = self.offsets()?;
        let metrics = &self.context.metrics.ingest;
        metrics.points.inc_by(self.collected as u64);
        metrics.epochs.inc();
        metrics.partitions.set(self.partitions.len() as i64);
        metrics.series.set(self.decoder.series().len() as i64);
        self.collected = 0;
        self.waiting = 0;
        self.series_before = self.decoder.series().len();
        for owned in &mut self.partitions {
            let (topic, partition) = owned.source.clone();
            let labels = SourceLabels { topic, partition };
            metrics.messages.get_or_create(&labels).inc_by(owned.messages);
            owned.close_epoch();
        }
        self.committer.submit(Work::Aggregate(Collected { points, facts, dead, offsets }), membership()?)
    }

    /// Waits until the epoch on its way is committed.
    fn settle(&mut self, patience: Duration, membership: Membership<'_>) -> Result<()> {
        if let Some(committed) = self.committer.settle(patience, membership)? {
            self.context.metrics.ingest.commit_seconds.observe(committed.took.as_secs_f64());
            self.bound.learn(committed.size);
            if let Some(archive) = &mut self.archive {
                archive.committed()?;
            }
        }
        Ok(())
    }

    /// Commits everything read so far, and the archive's files as far as storage takes them in
    /// time; for a clean end.
    pub(super) fn finish(&mut self, membership: Membership<'_>) -> Result<()> {
        if self.partitions.is_empty() {
            return Ok(());
        }
        self.settle(HANDOVER, membership)?;
        self.end_epoch(membership)?;
        self.settle(HANDOVER, membership)?;
        let Some(archive) = &mut self.archive else { return Ok(()) };
        archive.cut_all(self.decoder.series())?;
        self.commit_offsets(membership)?;
        let Some(archive) = &mut self.archive else { return Ok(()) };
        archive.drain(HANDOVER)?;
        self.commit_offsets(membership)
    }

    /// Commits how far the archive is.
    fn commit_offsets(&mut self, membership: Membership<'_>) -> Result<()> {
        let offsets = self.offsets()?;
        self.committer.submit(Work::Commit(Epoch::of_offsets(offsets)), membership()?)?;
        self.settle(HANDOVER, membership)
    }

    fn facts(&self) -> EpochFacts {
        let now = self.context.clock.monotonic();
        EpochFacts {
            wall: self.context.clock.now_ns(),
            uptime: Some(self.context.clock.uptime()),
            topics: BTreeMap::new(),
            partitions: self.partitions.iter().map(|owned| owned.facts(now)).collect(),
            owner: Some(self.context.board.instance().to_owned()),
        }
    }

    /// Cuts the archive's chunks that are due, and gives the memory of the series back when it is
    /// used up.
    fn cut_archive(&mut self) -> Result<()> {
        let Some(archive) = &mut self.archive else {
            self.renew_series();
            return Ok(());
        };
        let series = self.decoder.series();
        archive.cut_due(series)?;
        // What is collected for a file knows its series by their numbers.
        let may_renew = !self.series_full || archive.cut_all(series)?;
        if may_renew {
            self.renew_series();
        } else {
            // Tried again when it has grown further.
            self.series_full = false;
            self.series_limit = series.memory_bytes() / 4 * 5;
        }
        Ok(())
    }

    /// A series table beyond its share is emptied between two epochs; series that are still alive
    /// come back.
    fn renew_series(&mut self) {
        let series = self.decoder.series();
        if std::mem::take(&mut self.series_full) {
            let (bytes, share) = (series.memory_bytes(), self.context.shares.get(Part::Series));
            tracing::warn!(
                series = series.len(),
                bytes,
                share,
                "series table is full and is emptied: raise `budget` of [memory] if it happens often"
            );
            self.series_limit = share;
            series.clear();
        }
        self.context.metrics.memory.hold("series", series.memory_bytes());
    }

    fn offsets(&mut self) -> Result<Commit> {
        let mut offsets = Vec::new();
        for owned in &self.partitions {
            let metadata = match &mut self.archive {
                Some(archive) => {
                    let text = archive.submit(&owned.source)?;
                    archive.with_storage(text)
                }
                None => String::new(),
            };
            let (topic, partition) = owned.source.clone();
            offsets.push((topic, partition, owned.next.max(owned.aggregated), metadata));
        }
        Ok(offsets)
    }
}

impl Share for IngestShare {
    fn assigned(&mut self, partitions: &[Assigned]) -> Result<Vec<Option<i64>>> {
        let mut starts = Vec::new();
        for assigned in partitions {
            assigned.check_offset()?;
            if let Some(archive) = &self.archive {
                archive.check_storage(assigned)?;
            }
            // What was removed before it was read cannot be read.
            let begin = assigned.log.0;
            let aggregated = assigned.offset.map_or(begin, |offset| offset.max(begin));
            let start = match &mut self.archive {
                Some(archive) => archive.assigned(assigned)?.min(aggregated),
                None => aggregated,
            };
            starts.push(Some(start));
            let now = self.context.clock.monotonic();
            self.partitions.push(Owned::new(assigned, aggregated, start, now));
        }
        self.context.readiness.ready("ingest");
        Ok(starts)
    }

    /// The epoch on its way is settled while this process still owns its partitions. Of the one
    /// being collected, what the given up partitions have in it is dropped: their offsets were not
    /// committed.
    fn revoked(&mut self, partitions: &[Source], membership: Membership<'_>) -> Result<Commit> {
        let settled = self.settle(COMMIT_PATIENCE, membership);
        self.partitions.retain(|owned| !partitions.contains(&owned.source));
        self.collected = self.partitions.iter().map(|owned| owned.points.len()).sum();
        self.context.metrics.ingest.partitions.set(self.partitions.len() as i64);
        if let Some(archive) = &mut self.archive {
            partitions.iter().for_each(|source| archive.revoked(source));
        }
        settled.map(|()| Vec::new())
    }

    fn lost(&mut self) -> Result<()> {
        self.partitions.clear();
        self.collected = 0;
        self.context.metrics.ingest.partitions.set(0);
        self.context.board.sources_released();
        self.archive = None;
        self.waiting = 0;
        Err(Error::Interrupted("the group has given the partitions to another member"))
    }
}
