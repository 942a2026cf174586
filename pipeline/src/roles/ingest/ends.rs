//! Which silent partitions were read to their ends, and where logs begin and end.
//!
//! A partition that is silent may be idle only if nothing that was there when the epoch's points
//! had been read is still unread. That is not notified by offsets alone. A consumer of committed
//! messages gets the last stable offset for the end, before which all transactions are over:
//! what an open one has written lies after it. And control records, what was aborted, and what
//! compaction has removed, count as offsets and are never delivered. So, in this order:
//!
//! 1. the end of the log, open transactions included, is asked for;
//! 2. where the consumer has not come to it, the last stable offset: before the end, a transaction
//!    is open, and the partition has unread data;
//! 3. otherwise a reader of its own looks whether any message is left between.
//!
//! Each question is one request a broker for all partitions, and all are asked by the committer's
//! thread: after the points of the epoch were read, and after the epoch before is in the log.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use operators::watermark::PartitionFacts;
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::error::{Error, Result};
use crate::kafka::{self, Isolation, Plain};
use crate::roles::context::Context;
use crate::roles::group::Source;
use crate::time::nanoseconds;

const TIMEOUT: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(20);

pub(super) struct Ends {
    context: Context,
    everything: BaseConsumer<Plain>,
    committed: BaseConsumer<Plain>,
    /// One for each topic: the end of a partition is announced by its number alone.
    readers: BTreeMap<String, BaseConsumer<Plain>>,
    /// Between this offset and that end nothing is left to be delivered.
    empty: HashMap<Source, (i64, i64)>,
}

impl Ends {
    pub(super) fn new(context: &Context) -> Result<Self> {
        let config = &context.config.kafka;
        let reader = |isolation| kafka::reader(config, isolation);
        let topics = &context.config.topics.points;
        let readers = topics.iter().map(|topic| Ok((topic.clone(), reader(Isolation::Committed)?)));
        Ok(Self {
            context: context.clone(),
            everything: reader(Isolation::Everything)?,
            committed: reader(Isolation::Committed)?,
            readers: readers.collect::<Result<_>>()?,
            empty: HashMap::new(),
        })
    }

    /// Reports of each silent partition whether it was read to its end. Where that is not known it was
    /// not.
    pub(super) fn look(&mut self, partitions: &mut [PartitionFacts]) {
        let timeout = nanoseconds(self.context.config.ingest.idle_timeout);
        let mut silent: Vec<&mut PartitionFacts> =
            partitions.iter_mut().filter(|facts| facts.silent >= timeout).collect();
        let sources: BTreeSet<Source> = silent.iter().map(|facts| source_of(facts)).collect();
        self.empty.retain(|source, _| sources.contains(source));
        if silent.is_empty() {
            return;
        }
        if let Err(error) = self.look_at(&mut silent) {
            // The others are not asked: a broker that is away must not hold up the epoch for each
            // of them.
            if let Some(held_back) =
                self.context.lines.take("ends of partitions", self.context.clock.monotonic())
            {
                tracing::warn!(%error, held_back, "ends of silent partitions are unknown, they hold the watermark");
            }
        }
    }

    fn look_at(&mut self, silent: &mut [&mut PartitionFacts]) -> Result<()> {
        let ends = offsets(&self.everything, silent.iter().map(|facts| source_of(facts)), Offset::End)?;
        let mut left = BTreeMap::new();
        for facts in silent.iter_mut() {
            let source = source_of(facts);
            let Some(end) = ends.get(&source).copied() else { continue };
            facts.at_end = end <= facts.to || self.empty.get(&source) == Some(&(facts.to, end));
            if !facts.at_end {
                left.insert(source, (facts.to, end));
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        let stable = offsets(&self.committed, left.keys().cloned(), Offset::End)?;
        left.retain(|source, (_, end)| stable.get(source).is_some_and(|stable| stable >= end));
        for (topic, reader) in &self.readers {
            let of_topic = left.iter().filter(|((other, _), _)| other == topic);
            let from: BTreeMap<i32, i64> =
                of_topic.map(|((_, partition), (to, _))| (*partition, *to)).collect();
            if from.is_empty() {
                continue;
            }
            for partition in without_messages(reader, topic, &from)? {
                let source = (topic.clone(), partition);
                if let Some(range) = left.get(&source) {
                    self.empty.insert(source, *range);
                }
            }
        }
        for facts in silent.iter_mut().filter(|facts| !facts.at_end) {
            let source = source_of(facts);
            facts.at_end = left.contains_key(&source) && self.empty.get(&source) == left.get(&source);
        }
        Ok(())
    }

    /// Where the logs of these partitions end. Refuses an end before what was read: the topic was
    /// made again, and its messages would be taken for known ones.
    pub(super) fn of_logs(&self, partitions: &[PartitionFacts]) -> Result<BTreeMap<Source, i64>> {
        let ends = offsets(&self.everything, partitions.iter().map(source_of), Offset::End)?;
        for facts in partitions {
            let source = source_of(facts);
            match ends.get(&source) {
                Some(end) if *end < facts.to => {
                    let (topic, partition, to) = (&facts.topic, facts.partition, facts.to);
                    return Err(Error::Refused(format!(
                        "topic `{topic}` partition {partition} was read to offset {to}, and now ends at {end}: it was made \
                         again, or lost messages by an unclean election of a leader; use another group and another \
                         `url` in [storage], or restore the topic"
                    )));
                }
                _ => {}
            }
        }
        Ok(ends)
    }
}

fn source_of(facts: &PartitionFacts) -> Source {
    (facts.topic.clone(), facts.partition)
}

/// Beginnings or ends of partitions, of those whose brokers answer.
fn offsets(
    client: &BaseConsumer<Plain>,
    sources: impl Iterator<Item = Source>,
    place: Offset,
) -> Result<BTreeMap<Source, i64>> {
    kafka::offsets(client, sources, place, TIMEOUT).map_err(Error::client("ask for the ends of partitions"))
}

/// The partitions with no message from these offsets to their ends.
fn without_messages(
    reader: &BaseConsumer<Plain>,
    topic: &str,
    from: &BTreeMap<i32, i64>,
) -> Result<BTreeSet<i32>> {
    let failed = || Error::client("look for unread messages");
    let mut list = TopicPartitionList::new();
    for (partition, offset) in from {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).map_err(failed())?;
    }
    reader.assign(&list).map_err(failed())?;
    let deadline = Instant::now() + TIMEOUT;
    let mut unknown: BTreeSet<i32> = from.keys().copied().collect();
    let mut ended = BTreeSet::new();
    while !unknown.is_empty() && Instant::now() < deadline {
        match reader.poll(POLL) {
            None => {}
            Some(Ok(message)) => {
                unknown.remove(&message.partition());
            }
            Some(Err(KafkaError::PartitionEOF(partition))) if unknown.remove(&partition) => {
                ended.insert(partition);
            }
            // Of one with a message.
            Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) => {
                tracing::debug!(topic, %error, "looking for unread messages");
                break;
            }
        }
    }
    reader.unassign().map_err(failed())?;
    Ok(ended)
}
