//! A member of a consumer group: who owns which partition, and what happens when that changes.
//!
//! The role's state sits in one lock that the consumer's thread and the rebalance callback share;
//! the callback runs inside `poll`, on the same thread, so they never compete. Partitions are given
//! up only after the role has agreed: it finishes or drops its work first, while it is still the
//! owner. With a cooperative group it keeps the others, and goes on with them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{
    BaseConsumer, CommitMode, Consumer, ConsumerContext, ConsumerGroupMetadata, RebalanceProtocol,
};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use crate::config::KafkaConfig;
use crate::error::{Error, Result};
use crate::kafka::{self, ConsumerSettings, KafkaError, Plain, Reports};

const COMMITTED_TIMEOUT: Duration = Duration::from_secs(30);
/// A commit that meets a rebalance of the others is tried again this often, and for this long.
const COMMIT_RETRY: Duration = Duration::from_millis(100);
const COMMIT_TRIES: usize = 50;

/// A partition of a topic.
pub(crate) type Source = (String, i32);

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
    pub(crate) fn source(&self) -> Source {
        (self.topic.clone(), self.partition)
    }

    /// Refuses an offset beyond the end of the log: the topic was created again, and its messages
    /// would be taken for known ones. Warns of messages that were removed before anyone read them.
    pub(crate) fn check_offset(&self) -> Result<()> {
        let Some(offset) = self.offset else { return Ok(()) };
        let (topic, partition, (begin, end)) = (&self.topic, self.partition, self.log);
        if offset > end {
            return Err(Error::Refused(format!(
                "the group has read topic `{topic}` partition {partition} to offset {offset}, but it ends at {end}: it \
                 was created again; use another group and another `url` in [storage], or restore the topic"
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

/// The membership as of now, for what is committed in a transaction. An error when the partitions
/// are lost.
pub(crate) type Membership<'a> = &'a dyn Fn() -> Result<ConsumerGroupMetadata>;

/// A role's share of the partitions.
pub(crate) trait Share: Send {
    /// Takes over partitions, beside those that it has. Returns where to start reading each; `None`
    /// is the oldest message.
    fn assigned(&mut self, partitions: &[Assigned]) -> Result<Vec<Option<i64>>>;

    /// Gives up these partitions and keeps the others. What it returns is committed while this
    /// process still owns them.
    fn revoked(&mut self, partitions: &[Source], membership: Membership<'_>) -> Result<Commit>;

    /// All partitions were taken away, and other processes may own them already.
    fn lost(&mut self) -> Result<()>;
}

pub(crate) struct Group<S> {
    share: Mutex<S>,
    failure: Mutex<Option<Error>>,
    rebalances: AtomicU64,
    reports: Reports,
}

impl<S: Share> Group<S> {
    pub(crate) fn new(share: S) -> Self {
        Self {
            share: Mutex::new(share),
            failure: Mutex::new(None),
            rebalances: AtomicU64::new(0),
            reports: Reports::default(),
        }
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

    /// Takes over the partitions of `list` and returns it with the offsets to start at.
    fn assign(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> Result<TopicPartitionList> {
        let mut partitions = Vec::new();
        if list.count() > 0 {
            let committed = consumer
                .committed_offsets(list.clone(), COMMITTED_TIMEOUT)
                .map_err(Error::client("read the committed offsets"))?;
            let sources = || list.elements().into_iter().map(|it| (it.topic().to_owned(), it.partition()));
            let places = |place| {
                kafka::offsets(consumer, sources(), place, COMMITTED_TIMEOUT)
                    .map_err(Error::client("look at a partition's log"))
            };
            let (begins, ends) = (places(Offset::Beginning)?, places(Offset::End)?);
            for element in committed.elements() {
                // An offset that is not known is another thing than none.
                element.error().map_err(Error::client("read the committed offsets"))?;
                let (topic, partition) = (element.topic().to_owned(), element.partition());
                let source = (topic.clone(), partition);
                let (Some(begin), Some(end)) = (begins.get(&source), ends.get(&source)) else {
                    return Err(Error::Interrupted("the broker of a partition does not answer"));
                };
                let log = (*begin, *end);
                let offset = match element.offset() {
                    Offset::Offset(offset) => Some(offset),
                    _ => None,
                };
                let metadata = element.metadata().to_owned();
                partitions.push(Assigned { topic, partition, offset, metadata, log });
            }
        }
        let starts = self.share().assigned(&partitions)?;
        let mut list = TopicPartitionList::new();
        for (partition, start) in partitions.iter().zip(starts) {
            let offset = start.map_or(Offset::Beginning, Offset::Offset);
            list.add_partition_offset(&partition.topic, partition.partition, offset)
                .map_err(Error::client("start at an offset"))?;
        }
        Ok(list)
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> Result<()> {
        if consumer.assignment_lost() {
            tracing::warn!("partitions lost: this process was silent for too long");
            return self.share().lost();
        }
        let sources: Vec<Source> =
            list.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect();
        let offsets = self.share().revoked(&sources, &|| membership(consumer))?;
        commit(consumer, &offsets)
    }

    fn note(&self, result: Result<()>) {
        if let Err(error) = result {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    }
}

/// The membership of a consumer that still owns what it was assigned.
pub(crate) fn membership<S: Share>(consumer: &BaseConsumer<Group<S>>) -> Result<ConsumerGroupMetadata> {
    if consumer.assignment_lost() {
        return Err(Error::Interrupted("the group has given the partitions to another member"));
    }
    consumer.group_metadata().ok_or(Error::Interrupted("the consumer has left its group"))
}

/// Stops and resumes reading while the group is still polled: of all partitions while there is no
/// room for what they give, or of some that are to wait for others.
#[derive(Debug, Default)]
pub(crate) struct Valve {
    held: Hold,
    /// As of how many rebalances: partitions come open.
    rebalances: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hold {
    All,
    These(BTreeSet<Source>),
}

impl Default for Hold {
    fn default() -> Self {
        Self::These(BTreeSet::new())
    }
}

impl Valve {
    /// Whether nothing is read.
    pub(crate) fn is_closed(&self) -> bool {
        self.held == Hold::All
    }

    pub(crate) fn set<S: Share>(&mut self, consumer: &BaseConsumer<Group<S>>, closed: bool) -> Result<()> {
        self.hold(consumer, if closed { Hold::All } else { Hold::default() })
    }

    /// Pauses these partitions and lets the others go on.
    pub(crate) fn hold<S: Share>(&mut self, consumer: &BaseConsumer<Group<S>>, hold: Hold) -> Result<()> {
        let rebalances = consumer.context().rebalances.load(Ordering::Relaxed);
        let nothing_held = hold == Hold::default();
        if hold == self.held && (nothing_held || rebalances == self.rebalances) {
            return Ok(());
        }
        let assignment = consumer.assignment().map_err(Error::client("list its partitions"))?;
        let (mut paused, mut open) = (TopicPartitionList::new(), TopicPartitionList::new());
        for element in assignment.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let is_held = match &hold {
                Hold::All => true,
                Hold::These(sources) => sources.contains(&(topic.to_owned(), partition)),
            };
            if is_held { &mut paused } else { &mut open }.add_partition(topic, partition);
        }
        consumer.pause(&paused).map_err(Error::client("pause its partitions"))?;
        consumer.resume(&open).map_err(Error::client("resume its partitions"))?;
        (self.held, self.rebalances) = (hold, rebalances);
        Ok(())
    }
}

/// Commits offsets and waits for the answer. While other members join or leave, the group may
/// refuse for a moment.
pub(crate) fn commit<S: Share>(consumer: &BaseConsumer<Group<S>>, offsets: &Commit) -> Result<()> {
    if offsets.is_empty() {
        return Ok(());
    }
    let list = list_of(offsets)?;
    for _ in 1..COMMIT_TRIES {
        match consumer.commit(&list, CommitMode::Sync) {
            Err(error) if generation_moved(&error) && !consumer.assignment_lost() => {
                thread::park_timeout(COMMIT_RETRY);
            }
            done => return done.map_err(Error::client("commit offsets")),
        }
    }
    consumer.commit(&list, CommitMode::Sync).map_err(Error::client("commit offsets"))
}

/// Next offset and metadata of each partition; none where nothing is committed.
pub(crate) type Commits = BTreeMap<(String, i32), Option<(i64, String)>>;

/// What a group has committed, without joining it.
pub(crate) async fn committed(
    kafka: &KafkaConfig,
    group: &str,
    partitions: Vec<(String, i32)>,
) -> Result<Commits> {
    let (kafka, group) = (kafka.clone(), group.to_owned());
    blocking(move || {
        let consumer = kafka::consumer(&kafka, ConsumerSettings::new(&group), Plain::default())?;
        let mut list = TopicPartitionList::new();
        for (topic, partition) in &partitions {
            list.add_partition(topic, *partition);
        }
        let committed = consumer.committed_offsets(list, COMMITTED_TIMEOUT).map_err(|source| {
            kafka::refused(
                &kafka,
                "tell the committed offsets",
                COMMITTED_TIMEOUT,
                kafka::cause(&consumer),
                source,
            )
        })?;
        Ok(commits_of(&committed))
    })
    .await
}

/// What a broker answered about committed offsets.
pub(crate) fn commits_of(committed: &TopicPartitionList) -> Commits {
    let mut commits = Commits::new();
    for element in committed.elements() {
        let commit = match element.offset() {
            Offset::Offset(offset) => Some((offset, element.metadata().to_owned())),
            _ => None,
        };
        commits.insert((element.topic().to_owned(), element.partition()), commit);
    }
    commits
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| KafkaError::GivenUp)?
}

/// Whether the group refused because it is changing, or has changed, its generation: a member that
/// still owns its partitions may try again.
pub(crate) fn generation_moved(error: &ClientError) -> bool {
    let codes = [RDKafkaErrorCode::RebalanceInProgress, RDKafkaErrorCode::IllegalGeneration];
    error.rdkafka_error_code().is_some_and(|code| codes.contains(&code))
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
    fn log(&self, level: RDKafkaLogLevel, facility: &str, words: &str) {
        self.reports.log(level, facility, words);
    }

    fn error(&self, error: ClientError, reason: &str) {
        self.reports.error(&error, reason);
    }
}

impl<S: Share> ConsumerContext for Group<S> {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        self.rebalances.fetch_add(1, Ordering::Relaxed);
        let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let partitions = list.count();
        let changed = if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            tracing::info!(partitions, "partitions assigned");
            match self.assign(consumer, list) {
                Ok(list) => {
                    let assigned =
                        if cooperative { consumer.incremental_assign(&list) } else { consumer.assign(&list) };
                    // librdkafka remembers that a partition was paused when it is given up, and
                    // nobody would resume it.
                    assigned.and_then(|()| consumer.resume(&list))
                }
                Err(error) => return self.note(Err(error)),
            }
        } else {
            tracing::info!(partitions, "partitions revoked");
            self.note(self.revoke(consumer, list));
            if cooperative { consumer.incremental_unassign(list) } else { consumer.unassign() }
        };
        self.note(changed.map_err(Error::client("change its partitions")));
    }
}
