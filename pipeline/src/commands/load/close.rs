//! `--close`: moving event time on, unless others would suffer from it.
//!
//! A heartbeat holds for all who send to a partition. Near the clock it would make what they send
//! next late, as points are always a little older than the moment in which they are sent. Far
//! behind the clock it changes nothing for them.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{LoadArgs, LoadError};
use crate::clock::Clock;
use crate::config::{Config, KafkaConfig};
use crate::kafka::{self, ConsumerSettings, KafkaError, Plain};
use crate::time::nanoseconds;

const PATIENCE: Duration = Duration::from_secs(10);
/// A sender that was active within this time before the load counts as active.
const RECENT: Duration = Duration::from_secs(10);
/// Memory of a consumer that reads no message.
const NO_MESSAGES: usize = 1 << 20;

/// The end of a load, looked at from its start on.
pub(super) struct Closing {
    /// Where event time is moved to.
    pub(super) time: i64,
    /// None when nobody has to be looked for.
    others: Option<Others>,
}

struct Others {
    consumer: BaseConsumer<Plain>,
    kafka: KafkaConfig,
    topic: String,
    /// Where each partition ended before the load.
    ends: Vec<i64>,
}

impl Closing {
    /// # Errors
    /// [`LoadError::Others`] when somebody has sent to the topic a moment ago: nothing has been
    /// sent yet.
    pub(super) fn start(
        args: &LoadArgs,
        config: &Config,
        clock: &Clock,
        topic: &str,
        time: i64,
    ) -> Result<Self, LoadError> {
        let now = clock.now_ns();
        let is_near = now.saturating_sub(time) < nanoseconds(config.ingest.idle_timeout);
        if args.force || !is_near {
            return Ok(Self { time, others: None });
        }
        let settings = ConsumerSettings::of_small("tidemark-load", NO_MESSAGES);
        let consumer = kafka::consumer(&config.kafka, settings, Plain::default())?;
        let mut others =
            Others { consumer, kafka: config.kafka.clone(), topic: topic.to_owned(), ends: Vec::new() };
        others.ends = others.ends_now()?;
        if others.sent_since(now.saturating_sub(nanoseconds(RECENT)))? {
            return Err(LoadError::Others { topic: topic.to_owned(), time, sent: 0 });
        }
        Ok(Self { time, others: Some(others) })
    }

    /// Whether others have sent to the topic beside these messages of ours, which are all
    /// confirmed.
    ///
    /// # Errors
    /// [`LoadError::Others`] if so.
    pub(super) fn check(&self, sent: &[i64]) -> Result<(), LoadError> {
        let Some(others) = &self.others else { return Ok(()) };
        let ends = others.ends_now()?;
        let ours = sent.iter().zip(&others.ends).map(|(sent, before)| before + sent);
        if ends.iter().zip(ours).any(|(end, ours)| *end > ours) {
            let sent = sent.iter().sum::<i64>().unsigned_abs();
            return Err(LoadError::Others { topic: others.topic.clone(), time: self.time, sent });
        }
        Ok(())
    }
}

impl Others {
    fn ends_now(&self) -> Result<Vec<i64>, LoadError> {
        let partitions = kafka::partition_count(&self.kafka, &self.consumer, &self.topic, PATIENCE)?;
        let end = |partition: usize| {
            let partition = i32::try_from(partition).expect("Kafka counts partitions in 32 bits");
            let found = self.consumer.fetch_watermarks(&self.topic, partition, PATIENCE);
            found.map(|(_, end)| end).map_err(|source| self.refused(source))
        };
        (0..partitions).map(end).collect::<Result<_, KafkaError>>().map_err(LoadError::from)
    }

    /// Whether a message of the last moments is there, by the time that Kafka has for it.
    fn sent_since(&self, time: i64) -> Result<bool, LoadError> {
        let mut asked = TopicPartitionList::new();
        for partition in 0..self.ends.len() {
            let partition = i32::try_from(partition).expect("Kafka counts partitions in 32 bits");
            // The request has the time, in milliseconds, where the answer has the offset.
            let time = Offset::Offset((time / 1_000_000).max(0));
            asked
                .add_partition_offset(&self.topic, partition, time)
                .map_err(|source| self.refused(source))?;
        }
        let found =
            self.consumer.offsets_for_times(asked, PATIENCE).map_err(|source| self.refused(source))?;
        Ok(found.elements().iter().any(|element| matches!(element.offset(), Offset::Offset(_))))
    }

    fn refused(&self, source: rdkafka::error::KafkaError) -> KafkaError {
        let cause = kafka::cause(&self.consumer);
        kafka::refused(&self.kafka, "tell where its partitions end", PATIENCE, cause, source)
    }
}
