//! The consumer's loop: from joining the group to leaving it.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;

use super::share::IngestShare;
use crate::error::{Error, Result};
use crate::kafka::{self, ConsumerSettings};
use crate::memory::Part;
use crate::roles::context::Context;
use crate::roles::group::{Group, Hold, Valve, membership};

const METADATA_TIMEOUT: Duration = Duration::from_secs(30);
/// Of a batch and its headers, which count towards the broker's limit.
const MESSAGE_MARGIN: usize = 64 << 10;
const POLL: Duration = Duration::from_millis(50);
/// Messages that are taken before the clock is looked at again.
const BATCH: usize = 256;

type IngestConsumer = BaseConsumer<Group<IngestShare>>;

pub(super) fn run(context: &Context) -> Result<()> {
    context.readiness.waiting("ingest", "no partition assigned yet");
    let topics = source_topics(context)?;
    let limits = (partials_limit(context)?, dead_letter_limit(context)?);
    let share = IngestShare::new(context, topics, limits)?;
    let settings = ConsumerSettings {
        strict: true,
        ..ConsumerSettings::of_small(&context.config.ingest.group, context.shares.get(Part::PointsAhead))
    };
    let consumer = kafka::consumer(&context.config.kafka, settings, Group::new(share))?;
    let names: Vec<&str> = context.config.topics.points.iter().map(String::as_str).collect();
    consumer.subscribe(&names).map_err(Error::client("subscribe to the source topics"))?;
    let result = consume(context, &consumer);
    crate::roles::context::leave(consumer);
    result
}

fn consume(context: &Context, consumer: &IngestConsumer) -> Result<()> {
    let group = consumer.context();
    let mut valve = Valve::default();
    let mut opened = context.clock.monotonic();
    while !context.shutdown.is_triggered() {
        // What is dated now would be refused, or what is dated ahead be accepted: it can wait for a
        // moment.
        if context.clock.is_disputed() && !valve.is_closed() {
            valve.set(consumer, true)?;
        }
        read(context, consumer)?;
        group.check()?;
        let age = age_of(context, opened);
        let full = group.share().epoch_is_full();
        if !full && age < context.config.ingest.epoch {
            continue;
        }
        // While the epoch before takes longer, this one grows up to its bound.
        if !full && group.share().is_committing()? {
            continue;
        }
        if !group.share().owned().is_empty() {
            end_epoch(consumer)?;
        }
        opened = context.clock.monotonic();
        let full = group.share().archive_is_full();
        if full && !valve.is_closed() {
            tracing::warn!("points wait for the archive's storage, nothing is read until it takes them");
        }
        let ahead = group.share().ahead();
        context.metrics.ingest.paused.set(i64::from(full));
        context.metrics.ingest.partitions_ahead.set(ahead.len() as i64);
        let closed = full || context.clock.is_disputed();
        valve.hold(consumer, if closed { Hold::All } else { Hold::These(ahead) })?;
    }
    tracing::info!("ingest ends: committing what was read");
    group.share().finish(&|| membership(consumer))
}

/// Waits for messages and takes those that are there, as far as the epoch has room for them.
fn read(context: &Context, consumer: &IngestConsumer) -> Result<()> {
    let group = consumer.context();
    let mut wait = POLL;
    let mut now = None;
    for _ in 0..BATCH {
        match consumer.poll(wait) {
            None => break,
            Some(Ok(message)) => {
                let now = *now.get_or_insert_with(|| context.clock.look());
                let mut share = group.share();
                share.take(&message, now)?;
                if share.epoch_is_full() {
                    break;
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => group.share().announce_end(partition),
            Some(Err(error)) => kafka::go_on_after("read points", error)?,
        }
        wait = Duration::ZERO;
    }
    Ok(())
}

fn end_epoch(consumer: &IngestConsumer) -> Result<()> {
    let group = consumer.context();
    let membership = || membership(consumer);
    group.share().settle_epoch(&membership)?;
    group.share().end_epoch(&membership)
}

fn age_of(context: &Context, since: Duration) -> Duration {
    context.clock.monotonic().saturating_sub(since)
}

/// How many partitions each source topic has. Also makes sure that the partials topic is what was
/// configured.
fn source_topics(context: &Context) -> Result<BTreeMap<String, i32>> {
    let config = &context.config;
    let client = kafka::asker(&config.kafka)?;
    let mut topics = BTreeMap::new();
    for topic in &config.topics.points {
        let count = kafka::existing_partitions(&config.kafka, &client, topic, METADATA_TIMEOUT)?;
        topics.insert(topic.clone(), i32::try_from(count).unwrap_or(i32::MAX));
    }
    let partials = &config.topics.partials;
    let count = kafka::existing_partitions(&config.kafka, &client, partials, METADATA_TIMEOUT)?;
    if i32::try_from(count) != Ok(config.topics.partials_partitions) {
        return Err(Error::Refused(format!(
            "topic `{partials}` has {count} partitions, the configuration says {}: groups are placed by that \
             number, set `partials_partitions` of [topics] to {count}",
            config.topics.partials_partitions
        )));
    }
    Ok(topics)
}

/// Largest message of partial states that the broker takes, with room for what Kafka adds to it.
fn partials_limit(context: &Context) -> Result<usize> {
    let client = kafka::admin(&context.config.kafka)?;
    let topic = &context.config.topics.partials;
    match context.runtime.block_on(kafka::max_message_bytes(&client, topic)) {
        Ok(Some(limit)) if limit <= MESSAGE_MARGIN => Err(Error::Refused(format!(
            "topic `{topic}` takes messages of {limit} bytes at most: raise its `max.message.bytes` to 1 MiB or more"
        ))),
        Ok(limit) => Ok(limit.map_or(kafka::MAX_MESSAGE_BYTES, |limit| limit - MESSAGE_MARGIN)),
        Err(error) => {
            tracing::debug!(topic, %error, "the broker does not tell its largest message, taking it to be the default");
            Ok(kafka::MAX_MESSAGE_BYTES)
        }
    }
}

/// Largest dead letter that the broker takes.
fn dead_letter_limit(context: &Context) -> Result<usize> {
    let client = kafka::admin(&context.config.kafka)?;
    let topic = &context.config.topics.dead_letter;
    let [limit] = context.runtime.block_on(kafka::message_limits(&client, [topic]));
    Ok(limit)
}
