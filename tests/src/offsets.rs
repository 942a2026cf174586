//! How far a consumer group has come, for whoever asks again and again while servers come and go.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};

use crate::kafka::Kafka;

/// For one look. One that fails is repeated by the caller.
const REQUEST: Duration = Duration::from_secs(5);

/// Looks at offsets as a group's member would, without joining it.
pub struct Offsets {
    committed: BaseConsumer,
    uncommitted: BaseConsumer,
}

impl std::fmt::Debug for Offsets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offsets").finish_non_exhaustive()
    }
}

impl Offsets {
    pub fn new(kafka: &Kafka, group: &str) -> Self {
        let config = kafka.consumer(group);
        let committed = config.create().unwrap();
        let uncommitted = config.clone().set("isolation.level", "read_uncommitted").create().unwrap();
        Self { committed, uncommitted }
    }

    /// The next offset of each partition; 0 before the first commit. Fails while transactions with
    /// offsets are open.
    pub fn committed(&self, topic: &str, partitions: usize) -> Result<Vec<i64>, String> {
        Ok(self.commits(topic, partitions)?.into_iter().map(|(next, _)| next).collect())
    }

    /// The same, each with the text that was committed with it.
    pub fn commits(&self, topic: &str, partitions: usize) -> Result<Vec<(i64, String)>, String> {
        let mut asked = TopicPartitionList::new();
        for partition in 0..partitions {
            asked.add_partition(topic, i32::try_from(partition).unwrap());
        }
        let answer =
            self.committed.committed_offsets(asked, REQUEST).map_err(|error| format!("offsets: {error}"))?;
        let mut elements = answer.elements();
        elements.sort_by_key(TopicPartitionListElem::partition);
        let next = |offset| if let Offset::Offset(offset) = offset { offset } else { 0 };
        Ok(elements.iter().map(|element| (next(element.offset()), element.metadata().to_owned())).collect())
    }

    /// The offset after the last message of each partition, those of open transactions included.
    pub fn ends(&self, topic: &str, partitions: usize) -> Result<Vec<i64>, String> {
        ends(&self.uncommitted, topic, partitions)
    }

    /// The offset up to which no transaction is open.
    pub fn stable_ends(&self, topic: &str, partitions: usize) -> Result<Vec<i64>, String> {
        ends(&self.committed, topic, partitions)
    }
}

fn ends(consumer: &BaseConsumer, topic: &str, partitions: usize) -> Result<Vec<i64>, String> {
    let end = |partition: usize| {
        let partition = i32::try_from(partition).unwrap();
        let found = consumer.fetch_watermarks(topic, partition, REQUEST);
        found.map(|(_, end)| end).map_err(|error| format!("end of `{topic}` {partition}: {error}"))
    };
    (0..partitions).map(end).collect()
}
