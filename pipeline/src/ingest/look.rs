//! What is asked of the broker beside an epoch: partitions added to the source topics, and how far behind their ends is.
//!
//! The committer asks, through its producer: a question on the consumer's connection waits behind the messages that are
//! being fetched.

use std::collections::BTreeMap;
use std::time::Duration;

use operators::watermark::PartitionFacts;
use rdkafka::ClientContext;
use rdkafka::client::Client;

use crate::kafka::{self, Asked};
use crate::roles::Context;
use crate::telemetry::SourceLabels;

const TIMEOUT: Duration = Duration::from_secs(2);
/// How often the lag is asked for.
const REPORT: Duration = Duration::from_secs(5);

pub(super) struct Look {
    context: Context,
    /// Partitions of each source topic, owned or not.
    topics: BTreeMap<String, i32>,
    reported: Duration,
}

impl Look {
    /// `topics` as they are now.
    pub(super) fn new(context: &Context, topics: BTreeMap<String, i32>) -> Self {
        Self { context: context.clone(), topics, reported: context.clock.monotonic() }
    }

    /// How many partitions each source topic has. They may be added at any time, and hold the watermark until someone
    /// reports them. So this is asked after an epoch's points were read, as the ends of partitions are: points sent
    /// together with these may be in them.
    pub(super) fn topics(&mut self, client: &impl Asked) -> BTreeMap<String, i32> {
        let mut topics = BTreeMap::new();
        for topic in &self.context.config.topics.points {
            match kafka::partition_count(&self.context.config.kafka, client, topic, TIMEOUT) {
                Ok(count) => topics.insert(topic.clone(), i32::try_from(count).unwrap_or(i32::MAX)),
                Err(error) => {
                    tracing::warn!(topic, %error, "the number of partitions is unknown, it stays as it was");
                    return self.topics.clone();
                }
            };
        }
        if topics != self.topics {
            tracing::info!(?topics, "the source topics have other numbers of partitions than before");
            self.topics.clone_from(&topics);
        }
        topics
    }

    /// Shows now and then how far behind the end of its log each partition is.
    pub(super) fn report_lag<C: ClientContext>(&mut self, client: &Client<C>, partitions: &[PartitionFacts]) {
        let now = self.context.clock.monotonic();
        if now.saturating_sub(self.reported) < REPORT {
            return;
        }
        self.reported = now;
        for facts in partitions {
            let (topic, partition) = (&facts.topic, facts.partition);
            // A broker that does not answer is not asked for every partition.
            let Ok((_, high)) = client.fetch_watermarks(topic, partition, TIMEOUT) else { return };
            let labels = SourceLabels { topic: topic.clone(), partition };
            self.context.metrics.ingest.lag_messages.get_or_create(&labels).set((high - facts.to).max(0));
        }
    }
}
