//! The consumer's loop: from joining the group to leaving it.
//!
//! It never waits for a delivery, so the group sees a live member however long a receiver is away.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::Offset;

use super::receivers::Receiver;
use super::share::NotifyShare;
use crate::error::{Error, Result};
use crate::group::{self, Group, Valve, go_on_after};
use crate::kafka::{self, ConsumerSettings};
use crate::roles::Context;

const ROLE: &str = "notify";
const POLL: Duration = Duration::from_millis(50);

/// What is settled is committed this often: how much a kill can make repeat, besides what is under way.
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);

const BROKER_TIMEOUT: Duration = Duration::from_secs(30);

type NotifyConsumer = BaseConsumer<Group<NotifyShare>>;

pub(super) fn run(context: &Context, receivers: &[Receiver]) -> Result<()> {
    context.readiness.waiting(ROLE, "no answer from the consumer group yet");
    let topic = context.config.topics.alerts.as_str();
    check_topic(context, topic)?;
    let memory = context.shares.alerts_ahead;
    let settings = ConsumerSettings {
        // The topic has one partition: there is nothing that could be kept.
        cooperative: false,
        ..ConsumerSettings::of_large(&context.config.alerts.group, memory)
    };
    let share = NotifyShare::new(context, receivers);
    let consumer = kafka::consumer(&context.config.kafka, settings, Group::new(share))?;
    consumer.subscribe(&[topic]).map_err(Error::client("subscribe to the alerts topic"))?;

    let consumed = consume(context, topic, &consumer);
    // Still the owner: what is settled until now need not be repeated.
    let given_up = consumer.context().share().give_up();
    let committed = group::commit(&consumer, &given_up);
    crate::roles::leave(consumer);
    consumed.and(committed)
}

fn check_topic(context: &Context, topic: &str) -> Result<()> {
    let kafka = &context.config.kafka;
    let client = kafka::admin(kafka)?;
    if kafka::partition_count(kafka, client.inner(), topic, BROKER_TIMEOUT)? == 0 {
        return Err(Error::Refused(format!(
            "topic `{topic}` does not exist: create it with `tidemark topics create`"
        )));
    }
    Ok(())
}

fn consume(context: &Context, topic: &str, consumer: &NotifyConsumer) -> Result<()> {
    let group = consumer.context();
    let mut ready = false;
    let mut valve = Valve::default();
    let mut last_commit = context.clock.monotonic();
    while !context.shutdown.is_triggered() {
        match consumer.poll(POLL) {
            None => {}
            Some(Ok(message)) => group.share().take(&message)?,
            Some(Err(KafkaError::PartitionEOF(partition))) => check_end(topic, consumer, partition)?,
            Some(Err(error)) => go_on_after("read alerts", error)?,
        }
        group.check()?;
        if !ready && group.share().has_joined() {
            context.readiness.ready(ROLE);
            ready = true;
        }
        let now = context.clock.monotonic();
        if now.saturating_sub(last_commit) >= COMMIT_INTERVAL {
            commit(consumer)?;
            last_commit = now;
        }
        let full = group.share().is_full(valve.is_closed());
        if full && !valve.is_closed() {
            tracing::warn!("too many transitions are not settled, reading pauses until receivers take them");
        }
        valve.set(consumer, full)?;
    }
    Ok(())
}

/// Commits what is settled. A failure is not the end: it is due again at the next time, and a new owner repeats
/// at worst what was settled since.
fn commit(consumer: &NotifyConsumer) -> Result<()> {
    let group = consumer.context();
    let due = group.share().due()?;
    let offsets = group.share().as_commit(&due);
    match group::commit(consumer, &offsets) {
        Ok(()) => group.share().committed(due),
        Err(error) if error.retryable() => tracing::warn!(%error, "what is settled is not committed yet"),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// All of a partition was read: makes sure that this is the log which the committed offset belongs to. A topic that
/// was deleted and made anew ends before it, and nobody would be told of its transitions.
fn check_end(topic: &str, consumer: &NotifyConsumer, partition: i32) -> Result<()> {
    let group = consumer.context();
    if !group.share().reads_history(partition) {
        return Ok(());
    }
    let (_, end) = consumer
        .fetch_watermarks(topic, partition, BROKER_TIMEOUT)
        .map_err(Error::client("look for the end of the alerts topic"))?;
    if !group.share().ended(partition, end) {
        return Ok(());
    }
    tracing::error!(
        topic,
        partition,
        end,
        "the topic ends before the committed offset: was it made anew? it is read from its beginning"
    );
    consumer
        .seek(topic, partition, Offset::Beginning, BROKER_TIMEOUT)
        .map_err(Error::client("go to the beginning of the alerts topic"))
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
