//! What Kafka itself knows, whichever processes run: how far the logs reach, what the groups have
//! committed, who is in them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use operators::watermark::Source;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::members::assignment;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::kafka::{self, ConsumerSettings, Plain};

/// For everything together.
const PATIENCE: Duration = Duration::from_secs(6);

/// The groups of `ingest` and `rollup`, with the logs that they read.
#[derive(Debug, Clone, Default)]
pub(super) struct Brokers {
    pub(super) ingest: GroupFacts,
    pub(super) rollup: GroupFacts,
}

/// A consumer group.
#[derive(Debug, Clone, Default)]
pub(super) struct GroupFacts {
    pub(super) logs: BTreeMap<Source, Log>,
    /// As the coordinator calls it: `Stable`, `Empty`, `Dead`, `PreparingRebalance`,
    /// `CompletingRebalance`.
    pub(super) state: String,
    pub(super) members: Vec<Member>,
}

/// A partition's log, and how far the group has come in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Log {
    pub(super) end: i64,
    pub(super) committed: Option<i64>,
}

#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) id: String,
    /// Address that the broker sees.
    pub(super) host: String,
    pub(super) partitions: Vec<Source>,
}

impl GroupFacts {
    /// Who has a partition, as the coordinator knows it: a member that died stays until its session
    /// is over.
    pub(super) fn owner(&self, source: &Source) -> Option<&Member> {
        self.members.iter().find(|member| member.partitions.contains(source))
    }

    /// Whether it is decided who has what.
    pub(super) fn is_settled(&self) -> bool {
        !self.state.ends_with("Rebalance")
    }
}

/// Asks the brokers. Blocks for some seconds at most.
///
/// # Errors
/// When one of them does not answer in time.
pub(super) fn ask(config: &Config) -> Result<Brokers> {
    let deadline = Instant::now() + PATIENCE;
    let points: Vec<&str> = config.topics.points.iter().map(String::as_str).collect();
    Ok(Brokers {
        ingest: group(config, &config.ingest.group, &points, deadline)?,
        rollup: group(config, &config.rollup.group, &[&config.topics.partials], deadline)?,
    })
}

fn group(config: &Config, group: &str, topics: &[&str], deadline: Instant) -> Result<GroupFacts> {
    let left = || deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
    // Asks about the group without joining it.
    let consumer: BaseConsumer<Plain> =
        kafka::consumer(&config.kafka, ConsumerSettings::new(group), Plain::default())?;
    let mut asked = TopicPartitionList::new();
    for topic in topics {
        let count = kafka::partition_count(&config.kafka, &consumer, topic, left())?;
        for partition in 0..i32::try_from(count).unwrap_or(i32::MAX) {
            asked.add_partition(topic, partition);
        }
    }
    let mut facts = GroupFacts { state: "Empty".to_owned(), ..GroupFacts::default() };
    if asked.count() > 0 {
        let committed =
            consumer.committed_offsets(asked, left()).map_err(Error::client("read committed offsets"))?;
        for element in committed.elements() {
            let (topic, partition) = (element.topic().to_owned(), element.partition());
            let (_, end) = consumer
                .fetch_watermarks(&topic, partition, left())
                .map_err(Error::client("look at a partition's log"))?;
            let committed = match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            };
            facts.logs.insert((topic, partition), Log { end, committed });
        }
    }
    let groups =
        consumer.client().fetch_group_list(Some(group), left()).map_err(Error::client("describe a group"))?;
    for found in groups.groups().iter().filter(|found| found.name() == group) {
        facts.state = found.state().to_owned();
        facts.members = found
            .members()
            .iter()
            .map(|member| Member {
                id: member.id().to_owned(),
                host: member.client_host().trim_start_matches('/').to_owned(),
                partitions: member.assignment().and_then(assignment).unwrap_or_default(),
            })
            .collect();
    }
    Ok(facts)
}
