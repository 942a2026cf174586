//! Topics that hold a state: the newest record of each key is what holds, and one without a value
//! removes it.
//!
//! They are read without a consumer group, from the beginning to the end, by any reader.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::config::KafkaConfig;
use crate::kafka::{self, ConsumerSettings, KafkaError, Plain};

/// Memory of a reader: states are small.
const READ_AHEAD: usize = 8 << 20;
const POLL: Duration = Duration::from_millis(50);
/// How long a broker may be silent.
const SILENCE: Duration = Duration::from_secs(30);

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// Milliseconds since the epoch, as the producer or broker has it.
    pub(crate) timestamp: i64,
    pub(crate) key: String,
    pub(crate) value: Option<Vec<u8>>,
}

/// Where a reader begins.
#[derive(Clone, Copy)]
enum Start {
    Offset(Offset),
    /// Milliseconds since the epoch.
    Time(i64),
}

/// Reads partitions of a topic from their beginning, and then what comes.
pub(crate) struct Reader {
    consumer: BaseConsumer<Plain>,
    brokers: String,
    /// Partitions that are not read up to where they ended when the reader was made.
    unread: BTreeMap<i32, i64>,
}

impl Reader {
    /// Of one partition, or of all.
    ///
    /// # Errors
    /// When the topic does not exist, or no broker answers.
    pub(crate) fn new(config: &KafkaConfig, topic: &str, partition: Option<i32>) -> Result<Self, KafkaError> {
        Self::starting_at(config, topic, partition, Start::Offset(Offset::Beginning))
    }

    /// Reads a partition from an offset on, or from its beginning where that is no more.
    pub(crate) fn from_offset(
        config: &KafkaConfig,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<Self, KafkaError> {
        Self::starting_at(config, topic, Some(partition), Start::Offset(Offset::Offset(offset)))
    }

    /// Reads all partitions from the first record on that was written at this time or later,
    /// milliseconds since the epoch.
    pub(crate) fn from_time(config: &KafkaConfig, topic: &str, time: i64) -> Result<Self, KafkaError> {
        Self::starting_at(config, topic, None, Start::Time(time))
    }

    fn starting_at(
        config: &KafkaConfig,
        topic: &str,
        partition: Option<i32>,
        start: Start,
    ) -> Result<Self, KafkaError> {
        let settings = ConsumerSettings::of_small("tidemark-reader", READ_AHEAD);
        let consumer = kafka::consumer(config, settings, Plain::default())?;
        let count = kafka::existing_partitions(config, &consumer, topic, SILENCE)?;
        let all = 0..i32::try_from(count).unwrap_or(i32::MAX);
        let wanted: Vec<i32> = all.filter(|number| partition.is_none_or(|only| only == *number)).collect();
        let sources = wanted.iter().map(|number| (topic.to_owned(), *number));
        let ends = kafka::offsets(&consumer, sources, Offset::End, SILENCE)
            .map_err(KafkaError::client("ask for the ends of a topic"))?;
        let mut list = TopicPartitionList::new();
        let offset = match start {
            Start::Offset(offset) => offset,
            // The request has the time where the answer has the offset.
            Start::Time(time) => Offset::Offset(time.max(0)),
        };
        for partition in &wanted {
            list.add_partition_offset(topic, *partition, offset)
                .map_err(KafkaError::client("read a topic"))?;
        }
        if matches!(start, Start::Time(_)) {
            list = consumer
                .offsets_for_times(list, SILENCE)
                .map_err(KafkaError::client("find a time in a topic"))?;
        }
        consumer.assign(&list).map_err(KafkaError::client("read a topic"))?;
        // Without an answer for it, a partition is read until it is quiet.
        let end = |number: &i32| ends.get(&(topic.to_owned(), *number)).copied().unwrap_or(i64::MAX);
        let unread = wanted.iter().map(|number| (*number, end(number))).collect();
        Ok(Self { consumer, brokers: config.brokers.join(","), unread })
    }

    /// The next record, if one comes in time.
    pub(crate) fn poll(&mut self, patience: Duration) -> Result<Option<Record>, KafkaError> {
        match self.consumer.poll(patience) {
            None => Ok(None),
            Some(Ok(message)) => {
                let (partition, next) = (message.partition(), message.offset() + 1);
                // On a topic that is written all the time, no end of a partition is ever announced.
                if self.unread.get(&partition).is_some_and(|end| next >= *end) {
                    self.unread.remove(&partition);
                }
                Ok(Some(record(&message)))
            }
            Some(Err(ClientError::PartitionEOF(partition))) => {
                self.unread.remove(&partition);
                Ok(None)
            }
            Some(Err(error)) => {
                kafka::go_on_after("read a topic", error)?;
                Ok(None)
            }
        }
    }

    /// Hands out everything that was there when the reader was made, and what came soon after.
    ///
    /// # Errors
    /// When the broker is silent for half a minute.
    pub(crate) fn read_to_end(&mut self, mut take: impl FnMut(Record)) -> Result<(), KafkaError> {
        let mut heard = Instant::now();
        while !self.unread.is_empty() {
            match self.poll(POLL)? {
                Some(record) => {
                    heard = Instant::now();
                    take(record);
                }
                None if heard.elapsed() > SILENCE => {
                    // The reader may try again.
                    let cause = kafka::cause(&self.consumer);
                    let brokers = self.brokers.clone();
                    return Err(KafkaError::Unreachable { brokers, timeout: SILENCE, cause });
                }
                None => {}
            }
        }
        Ok(())
    }
}

/// The state that a topic holds: the newest value of each key.
pub(crate) fn read_state(
    config: &KafkaConfig,
    topic: &str,
    partition: Option<i32>,
) -> Result<BTreeMap<String, Vec<u8>>, KafkaError> {
    let mut state = BTreeMap::new();
    Reader::new(config, topic, partition)?.read_to_end(|record| {
        match record.value {
            Some(value) => state.insert(record.key, value),
            None => state.remove(&record.key),
        };
    })?;
    Ok(state)
}

fn record(message: &BorrowedMessage<'_>) -> Record {
    Record {
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis().unwrap_or_default(),
        key: String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned(),
        value: message.payload().map(<[u8]>::to_vec),
    }
}
