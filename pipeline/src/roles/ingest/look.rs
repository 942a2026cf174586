//! What is asked of the broker beside an epoch: partitions added to the source topics, how far
//! behind their ends is, and where other processes archive.
//!
//! The committer asks, through its producer: a question on the consumer's connection waits after
//! the messages that are being fetched.

use std::collections::BTreeMap;
use std::time::Duration;

use operators::watermark::PartitionFacts;

use super::ends::Ends;
use super::neighbours::Neighbours;
use crate::error::{Error, Result};
use crate::kafka::{self, Asked};
use crate::roles::context::Context;
use crate::telemetry::SourceLabels;

const TIMEOUT: Duration = Duration::from_secs(2);
/// How often the lag and the commits of others are asked for.
const REPORT: Duration = Duration::from_secs(5);

pub(super) struct Look {
    context: Context,
    /// Partitions of each source topic, owned or not.
    topics: BTreeMap<String, i32>,
    reported: Duration,
    ends: Ends,
    /// None where nothing is archived, or the storage has no name.
    neighbours: Option<Neighbours>,
}

impl Look {
    /// `topics` as they are now; `storage`: the name of the one that points are archived in.
    pub(super) fn new(
        context: &Context,
        topics: BTreeMap<String, i32>,
        storage: Option<String>,
    ) -> Result<Self> {
        let ends = Ends::new(context)?;
        let neighbours = storage.map(|storage| Neighbours::new(context, storage)).transpose()?;
        Ok(Self { context: context.clone(), topics, reported: context.clock.monotonic(), ends, neighbours })
    }

    /// How many partitions each source topic has. They may be added at any time, and hold the
    /// watermark until someone reports them. So this is asked after an epoch's points were read, as
    /// the ends of partitions are: points sent together with these may be in them.
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

    /// Reports which silent partitions were read to their ends. Now and then it shows how far behind
    /// its end each partition is, and looks where the other processes archive.
    ///
    /// # Errors
    /// [`crate::error::Error::Refused`] when a log ends before what was read of it, or another
    /// process archives into another storage.
    pub(super) fn at_logs(&mut self, partitions: &mut [PartitionFacts]) -> Result<()> {
        self.ends.look(partitions);
        let now = self.context.clock.monotonic();
        if now.saturating_sub(self.reported) < REPORT {
            return Ok(());
        }
        self.reported = now;
        if let Some(neighbours) = &self.neighbours {
            neighbours.check(&self.topics)?;
        }
        let ends = match self.ends.of_logs(partitions) {
            Err(error @ Error::Refused(_)) => return Err(error),
            // A broker that is away is named elsewhere.
            Err(_) => return Ok(()),
            Ok(ends) => ends,
        };
        for facts in partitions {
            let (topic, partition) = (facts.topic.clone(), facts.partition);
            if let Some(end) = ends.get(&(topic.clone(), partition)) {
                let labels = SourceLabels { topic, partition };
                self.context.metrics.ingest.lag_messages.get_or_create(&labels).set((end - facts.to).max(0));
            }
        }
        Ok(())
    }
}
