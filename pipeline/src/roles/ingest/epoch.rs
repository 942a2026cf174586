//! From the points of an epoch to the messages that are committed for it.

use std::sync::Arc;

use operators::epoch::EpochPoints;
use operators::exchange::Partials;
use operators::partial::aggregate_each;
use operators::watermark::EpochFacts;
use rdkafka::message::OwnedHeaders;

use crate::error::Result;
use crate::roles::context::Context;
use crate::roles::group::Commit;

/// One message to be sent.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) topic: String,
    /// None leaves the choice to the producer.
    pub(super) partition: Option<i32>,
    pub(super) payload: Vec<u8>,
    pub(super) headers: Option<OwnedHeaders>,
}

/// An epoch as it was read.
pub(super) struct Collected {
    pub(super) points: Arc<EpochPoints>,
    /// Without the numbers of partitions, which the committer asks for.
    pub(super) facts: EpochFacts,
    /// Refused points, for the dead-letter topic.
    pub(super) dead: Vec<Outgoing>,
    /// Never empty: they are what fences a process that is no longer the owner.
    pub(super) offsets: Commit,
}

/// An epoch to be committed whole.
pub(super) struct Epoch {
    pub(super) messages: Vec<Outgoing>,
    pub(super) offsets: Commit,
    pub(super) size: Size,
}

/// What the points of an epoch became, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Size {
    pub(super) points: usize,
    pub(super) states: usize,
    pub(super) messages: usize,
}

impl Epoch {
    /// Drops the messages for a topic; false when there are none.
    pub(super) fn give_up(&mut self, topic: &str, context: &Context) -> bool {
        let before = self.messages.len();
        for message in self.messages.iter().filter(|message| message.topic == topic) {
            context.given_up(topic, "a dead letter, or one of those sent with it,", message.payload.len());
        }
        self.messages.retain(|message| message.topic != topic);
        self.messages.len() < before
    }

    /// Nothing but offsets.
    pub(super) fn of_offsets(offsets: Commit) -> Self {
        Self { messages: Vec::new(), offsets, size: Size::default() }
    }
}

/// Turns points into partial states, and these into messages.
pub(super) struct Aggregator {
    pub(super) context: Context,
    /// Largest message of partial states.
    pub(super) message_bytes: usize,
    /// What the dead-letter topic takes in one message.
    pub(super) dead_letter_bytes: usize,
}

impl Aggregator {
    /// What every topic of an epoch takes in one batch.
    pub(super) fn batch_bytes(&self) -> usize {
        self.message_bytes.min(self.dead_letter_bytes)
    }

    /// Points on which a rollup fails are missing from it; they are counted, and cost nothing else.
    pub(super) fn aggregate(&self, collected: Collected) -> Result<Epoch> {
        let metrics = &self.context.metrics.ingest;
        let started = self.context.clock.monotonic();
        let Collected { points, facts, dead, offsets } = collected;
        let topics = &self.context.config.topics;
        let partitions = usize::try_from(topics.partials_partitions).unwrap_or(1);
        let aggregated =
            aggregate_each(&self.context.catalog.rollups, || points.batches(), &facts, partitions);
        let mut size = Size { points: points.len(), ..Size::default() };
        drop(points);
        self.context.failed(&aggregated.failures);
        size.states = aggregated.messages.iter().map(Partials::memory_bytes).sum();
        let mut messages = dead;
        for (partition, partials) in (0..).zip(aggregated.messages) {
            for payload in partials.encode_within(self.message_bytes)? {
                size.messages += payload.len();
                messages.push(Outgoing {
                    topic: topics.partials.clone(),
                    partition: Some(partition),
                    payload,
                    headers: None,
                });
            }
        }
        let took = self.context.clock.monotonic().saturating_sub(started);
        metrics.epoch_seconds.observe(took.as_secs_f64());
        Ok(Epoch { messages, offsets, size })
    }
}
