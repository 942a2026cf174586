//! A member of a consumer group: who owns which partition, and what happens when that changes.
//!
//! The role's state sits behind one lock that the consumer's thread and the rebalance callback share; the
//! callback runs inside `poll`, on the same thread, so they never compete. Partitions are given up only after
//! the role said so: it finishes or drops its work first, while it is still the owner.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use crate::error::{Error, Result};

const COMMITTED_TIMEOUT: Duration = Duration::from_secs(30);

/// A partition that was assigned, with what the group has committed for it.
#[derive(Debug, Clone)]
pub(crate) struct Assigned {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    /// The next offset to read, none before the first commit.
    pub(crate) offset: Option<i64>,
    /// The text that was committed with the offset.
    pub(crate) metadata: String,
    /// Where the log begins and ends.
    pub(crate) log: (i64, i64),
}

impl Assigned {
    /// Refuses an offset beyond the end of the log: the topic was made anew, and its messages would be taken for
    /// known ones. Warns of messages that were removed before anyone read them.
    pub(crate) fn check_offset(&self) -> Result<()> {
        let Some(offset) = self.offset else { return Ok(()) };
        let (topic, partition, (begin, end)) = (&self.topic, self.partition, self.log);
        if offset > end {
            return Err(Error::Refused(format!(
                "the group has read topic `{topic}` partition {partition} to offset {offset}, but it ends at {end}: it \
                 was made anew; use another group and another `url` in [storage], or restore the topic"
            )));
        }
        if offset < begin {
            let lost = begin - offset;
            tracing::error!(
                topic,
                partition,
                lost,
                "messages were removed by retention before they were read"
            );
        }
        Ok(())
    }
}

/// Offsets to commit, each with its text.
pub(crate) type Commit = Vec<(String, i32, i64, String)>;

/// A role's share of the partitions.
pub(crate) trait Share: Send {
    /// Takes over partitions and says where to start reading each; `None` is the oldest message.
    fn assigned(&mut self, partitions: &[Assigned]) -> Result<Vec<Option<i64>>>;

    /// Gives up all partitions. What it returns is committed while this process still owns them.
    fn revoked(&mut self) -> Result<Commit>;

    /// The partitions were taken away: another process may own them already.
    fn lost(&mut self) -> Result<Commit> {
        self.revoked()
    }
}

pub(crate) struct Group<S> {
    share: Mutex<S>,
    failure: Mutex<Option<Error>>,
}

impl<S: Share> Group<S> {
    pub(crate) fn new(share: S) -> Self {
        Self { share: Mutex::new(share), failure: Mutex::new(None) }
    }

    pub(crate) fn share(&self) -> MutexGuard<'_, S> {
        self.share.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error of the last rebalance, which ends the session.
    pub(crate) fn check(&self) -> Result<()> {
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> Result<()> {
        let committed = consumer
            .committed_offsets(list.clone(), COMMITTED_TIMEOUT)
            .map_err(Error::client("read the committed offsets"))?;
        let mut partitions = Vec::new();
        for element in committed.elements() {
            let (topic, partition) = (element.topic().to_owned(), element.partition());
            let log = consumer
                .fetch_watermarks(&topic, partition, COMMITTED_TIMEOUT)
                .map_err(Error::client("look at a partition's log"))?;
            let offset = match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            };
            let metadata = element.metadata().to_owned();
            partitions.push(Assigned { topic, partition, offset, metadata, log });
        }
        let starts = self.share().assigned(&partitions)?;
        let mut list = TopicPartitionList::new();
        for (partition, start) in partitions.iter().zip(starts) {
            let offset = start.map_or(Offset::Beginning, Offset::Offset);
            list.add_partition_offset(&partition.topic, partition.partition, offset)
                .map_err(Error::client("start at an offset"))?;
        }
        tracing::info!(partitions = list.count(), "partitions assigned");
        consumer.assign(&list).map_err(Error::client("take over partitions"))
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>) -> Result<()> {
        if consumer.assignment_lost() {
            tracing::warn!("partitions lost: this process was silent for too long");
            return self.share().lost().map(|_| ());
        }
        let offsets = self.share().revoked()?;
        commit(consumer, &offsets)
    }

    fn note(&self, result: Result<()>) {
        if let Err(error) = result {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    }
}

/// Commits offsets and waits for the answer.
pub(crate) fn commit<S: Share>(consumer: &BaseConsumer<Group<S>>, offsets: &Commit) -> Result<()> {
    if offsets.is_empty() {
        return Ok(());
    }
    consumer.commit(&list_of(offsets)?, CommitMode::Sync).map_err(Error::client("commit offsets"))
}

pub(crate) fn list_of(offsets: &Commit) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (topic, partition, offset, metadata) in offsets {
        let mut element = list.add_partition(topic, *partition);
        element.set_offset(Offset::Offset(*offset)).map_err(Error::client("commit offsets"))?;
        element.set_metadata(metadata);
    }
    Ok(list)
}

impl<S: Share> ClientContext for Group<S> {
    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition is news for the role, not a fault.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            tracing::warn!(%error, reason, "kafka");
        }
    }
}

impl<S: Share> ConsumerContext for Group<S> {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.note(self.assign(consumer, list));
            return;
        }
        tracing::info!(partitions = list.count(), "partitions revoked");
        self.note(self.revoke(consumer));
        let unassigned: KafkaResult<()> = consumer.unassign();
        self.note(unassigned.map_err(Error::client("give up partitions")));
    }
}
