//! Where logs begin and end, asked for by one request a broker.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{ConsumerSettings, KafkaError, Plain, consumer_config, create};
use crate::config::KafkaConfig;

/// Which messages a reader is given, and what it is notified of the ends of logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// Those of transactions that are committed; logs end where the first open transaction begins.
    Committed,
    Everything,
}

/// A client in no group that asks for offsets, and looks at single messages.
///
/// # Errors
/// [`KafkaError::Setup`] when librdkafka refuses a property.
pub(crate) fn reader(kafka: &KafkaConfig, isolation: Isolation) -> Result<BaseConsumer<Plain>, KafkaError> {
    let mut config = consumer_config(kafka, ConsumerSettings::of_small("tidemark-reader", 1 << 20));
    config
        .set("queued.min.messages", "1")
        // It is only asked where there most likely is nothing.
        .set("fetch.wait.max.ms", "10");
    if isolation == Isolation::Everything {
        config.set("isolation.level", "read_uncommitted");
    }
    create(kafka, "reader", &config, Plain::default())
}

/// Where partitions begin or end, by one request a broker; of those for which an answer comes.
///
/// # Errors
/// Of the client, when no broker answers.
pub(crate) fn offsets<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    sources: impl Iterator<Item = (String, i32)>,
    place: Offset,
    timeout: Duration,
) -> Result<BTreeMap<(String, i32), i64>, ClientError> {
    let mut list = TopicPartitionList::new();
    // The request has a time where the answer has the offset; these places are times that are none.
    for (topic, partition) in sources {
        list.add_partition_offset(&topic, partition, place)?;
    }
    if list.count() == 0 {
        return Ok(BTreeMap::new());
    }
    let answered = client.offsets_for_times(list, timeout)?;
    let mut offsets = BTreeMap::new();
    for element in answered.elements() {
        if let (Ok(()), Offset::Offset(offset)) = (element.error(), element.offset()) {
            offsets.insert((element.topic().to_owned(), element.partition()), offset);
        }
    }
    Ok(offsets)
}
