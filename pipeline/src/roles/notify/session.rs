//! The consumer's loop: from joining the group to leaving it.
//!
//! It never waits for a delivery, so the group sees a live member however long a receiver is away.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;

use super::delivery::Retry;
use super::receivers::Receiver;
use super::share::NotifyShare;
use crate::config::AlertsConfig;
use crate::error::{Error, Result};
use crate::kafka::state_topic::Reader;
use crate::kafka::{self, ConsumerSettings};
use crate::memory::Part;
use crate::roles::context::Context;
use crate::roles::group::{Group, Valve, membership};

const ROLE: &str = "notify";
const POLL: Duration = Duration::from_millis(50);
/// Transitions that are taken in before what they lead to is committed, in one transaction.
const BATCH: usize = 1_000;

const BROKER_TIMEOUT: Duration = Duration::from_secs(30);

type NotifyConsumer = BaseConsumer<Group<NotifyShare>>;

/// Ends in order at shutdown, and when `unchanged` is no more true.
pub(super) fn run(
    context: &Context,
    alerts: &AlertsConfig,
    receivers: &[Receiver],
    retry: Retry,
    unchanged: impl Fn() -> bool,
) -> Result<()> {
    context.readiness.waiting(ROLE, "no answer from the consumer group yet");
    let config = &context.config;
    let topics = &config.topics;
    check_topic(context, &topics.alerts)?;
    let mut commands = Reader::new(&config.kafka, &topics.alert_commands(), None)?;
    let mut states = Reader::new(&config.kafka, &topics.alert_states(), None)?;
    let mut share = NotifyShare::new(context, alerts, receivers, retry);
    // Silences hold from the first transition on.
    commands.read_to_end(|record| share.command(&record))?;
    states.read_to_end(|record| share.progress(&record))?;
    let settings = ConsumerSettings {
        // The topic has one partition: there is nothing that could be kept.
        cooperative: false,
        ..ConsumerSettings::of_large(&config.alerts.group, context.shares.get(Part::AlertsAhead))
    };
    let consumer = kafka::consumer(&config.kafka, settings, Group::new(share))?;
    consumer.subscribe(&[&topics.alerts]).map_err(Error::client("subscribe to the alerts topic"))?;

    let consumed = consume(context, &consumer, &mut commands, &mut states, unchanged);
    // Still the owner: what is settled until now need not be repeated.
    let given_up = consumer.context().share().give_up(membership(&consumer));
    crate::roles::context::leave(consumer);
    consumed.and(given_up)?;
    if context.shutdown.is_triggered() {
        Ok(())
    } else {
        Err(Error::Changed("the alerts' receivers or routes"))
    }
}

fn check_topic(context: &Context, topic: &str) -> Result<()> {
    let kafka = &context.config.kafka;
    let client = kafka::asker(kafka)?;
    kafka::existing_partitions(kafka, &client, topic, BROKER_TIMEOUT)?;
    Ok(())
}

fn consume(
    context: &Context,
    consumer: &NotifyConsumer,
    commands: &mut Reader,
    states: &mut Reader,
    unchanged: impl Fn() -> bool,
) -> Result<()> {
    let group = consumer.context();
    let mut ready = false;
    let mut valve = Valve::default();
    while !context.shutdown.is_triggered() && unchanged() {
        let mut patience = POLL;
        for _ in 0..BATCH {
            match consumer.poll(patience) {
                None => break,
                Some(Ok(message)) => group.share().take(&message),
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) => kafka::go_on_after("read alerts", error)?,
            }
            // What is there is taken together.
            patience = Duration::ZERO;
        }
        group.check()?;
        while let Some(record) = commands.poll(Duration::ZERO)? {
            group.share().command(&record);
        }
        while let Some(record) = states.poll(Duration::ZERO)? {
            group.share().progress(&record);
        }
        if !ready && group.share().has_joined() {
            context.readiness.ready(ROLE);
            ready = true;
        }
        if group.share().is_owner() {
            let member = membership(consumer)?;
            group.share().advance(&member)?;
        }
        let full = group.share().is_full(valve.is_closed());
        if full && !valve.is_closed() {
            tracing::warn!(
                "too many notifications are not settled, reading pauses until receivers take them"
            );
        }
        valve.set(consumer, full)?;
    }
    Ok(())
}
