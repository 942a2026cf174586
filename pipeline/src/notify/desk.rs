//! The owner of one partition of the alerts topic: its dispatcher, and the transactions that make what it decides last.
//!
//! What came in, what has been decided and recorded, and how far the partition was read are committed in one transaction; only then is
//! anything sent. So whoever takes over finds the dispatches that were under way, with the ids under which they may have
//! arrived, and decides nothing twice.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use operators::dispatch::{Command, Dispatcher, Effect, Policy};
use operators::threshold::Transition;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::message;
use super::seen::{HISTORY, Seen};
use crate::compacted::{Reader, read_state};
use crate::error::{Error, Result};
use crate::group::list_of;
use crate::kafka::{self, Plain};
use crate::roles::Context;

/// How long a transaction may take before the broker gives it up.
const TIMEOUT: Duration = Duration::from_secs(60);

pub(super) struct Desk {
    pub(super) partition: i32,
    pub(super) dispatcher: Dispatcher,
    producer: BaseProducer<Plain>,
    /// The next message to read, and what has been committed.
    pub(super) next: Option<i64>,
    committed: Option<i64>,
    seen: Seen,
    /// What is to happen once the transaction is through.
    effects: VecDeque<Effect>,
}

impl Desk {
    /// Takes a partition over: fences whoever had it, ends its open transaction, and goes on from what it had committed.
    pub(super) fn take_over(
        context: &Context,
        policy: Policy,
        partition: i32,
        next: Option<i64>,
    ) -> Result<Self> {
        let config = &context.config;
        let id = format!("{}-{partition}", config.alerts.group);
        let producer = kafka::transactional_producer(&config.kafka, &id, TIMEOUT, Plain::default())?;
        producer.init_transactions(TIMEOUT).map_err(Error::client("start transactions"))?;
        let records = read_state(&config.kafka, &config.topics.alert_manager(), Some(partition))?;
        let mut dispatcher = Dispatcher::restore(policy, records.into_iter()).map_err(Error::from)?;
        dispatcher.resume();
        let seen = match next {
            None => Seen::default(),
            Some(next) => history(context, partition, next)?,
        };
        Ok(Self { partition, dispatcher, producer, next, committed: next, seen, effects: VecDeque::new() })
    }

    pub(super) fn take(&mut self, transition: &Transition, offset: i64, now: i64) {
        self.pass(offset);
        if self.seen.note(&transition.id) {
            self.dispatcher.transition(transition, now);
        }
    }

    /// A message that is nothing.
    pub(super) fn pass(&mut self, offset: i64) {
        self.next = Some(offset + 1);
    }

    pub(super) fn command(&mut self, key: &str, value: Option<&Command>, now: i64) {
        self.dispatcher.command(key, value, now);
    }

    /// Does what is due, commits what has changed, and returns what is to be sent.
    pub(super) fn settle(
        &mut self,
        context: &Context,
        member: &ConsumerGroupMetadata,
    ) -> Result<Vec<Effect>> {
        self.dispatcher.advance(context.clock.now_ns());
        self.effects.extend(self.dispatcher.take_effects());
        let changes = self.dispatcher.changes();
        let entries = self.effects.iter().filter_map(|effect| match effect {
            Effect::Log(entry) => Some(entry),
            _ => None,
        });
        let mut log = Vec::new();
        for entry in entries {
            let key = entry.dispatch.as_ref().or(entry.transition.as_ref()).cloned().unwrap_or_default();
            log.push((key, json(entry)?));
        }
        if changes.is_empty() && log.is_empty() && self.next == self.committed {
            return Ok(self.effects.drain(..).collect());
        }
        self.producer.begin_transaction().map_err(Error::client("begin a transaction"))?;
        let committed = self.commit(context, &changes, &log, member);
        if let Err(error) = committed {
            if let Err(failed) = self.producer.abort_transaction(TIMEOUT) {
                tracing::warn!(error = %failed, "a transaction could not be aborted");
            }
            return Err(error);
        }
        self.committed = self.next;
        Ok(self.effects.drain(..).collect())
    }

    fn commit(
        &self,
        context: &Context,
        changes: &[(String, Option<Vec<u8>>)],
        log: &[(String, Vec<u8>)],
        member: &ConsumerGroupMetadata,
    ) -> Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        let topics = &context.config.topics;
        let (state, commands, ledger) = (topics.alert_manager(), topics.alert_commands(), topics.alert_log());
        for (key, value) in changes {
            self.send(&state, key, value.as_deref(), deadline)?;
            // A silence that is over, or an acknowledgement of what is: the topic need not keep it either.
            if let (Some(command), None) = (key.strip_prefix("command/"), value) {
                self.send(&commands, command, None, deadline)?;
            }
        }
        for (key, entry) in log {
            self.send(&ledger, key, Some(entry), deadline)?;
        }
        let remaining = || deadline.saturating_duration_since(Instant::now());
        self.producer.flush(remaining()).map_err(Error::client("send the state of alerts"))?;
        if let Some(next) = self.next {
            let offsets = vec![(topics.alerts.clone(), self.partition, next, String::new())];
            self.producer
                .send_offsets_to_transaction(&list_of(&offsets)?, member, remaining())
                .map_err(Error::client("send offsets with the state of alerts"))?;
        }
        self.producer.commit_transaction(remaining()).map_err(Error::client("commit the state of alerts"))
    }

    fn send(&self, topic: &str, key: &str, value: Option<&[u8]>, deadline: Instant) -> Result<()> {
        let mut record = BaseRecord::<str, [u8]>::to(topic).key(key);
        if topic.ends_with(STATE_OF_PARTITIONS) {
            record = record.partition(self.partition);
        }
        if let Some(value) = value {
            record = record.payload(value);
        }
        while let Err((error, unsent)) = self.producer.send(record) {
            let full = error == KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
            if !full || Instant::now() >= deadline {
                return Err(Error::client("send the state of alerts")(error));
            }
            self.producer.poll(Duration::from_millis(10));
            record = unsent;
        }
        Ok(())
    }
}

/// The transitions that were taken in before the message `next`.
fn history(context: &Context, partition: i32, next: i64) -> Result<Seen> {
    let mut seen = Seen::default();
    let topic = &context.config.topics.alerts;
    let from = (next - HISTORY).max(0);
    Reader::from_offset(&context.config.kafka, topic, partition, from)?.read_to_end(|record| {
        if record.offset < next
            && let Ok(transition) = message::read(record.value.as_deref())
        {
            seen.note(&transition.id);
        }
    })?;
    Ok(seen)
}

/// How the name of the topic ends whose partitions belong to those of the alerts topic.
const STATE_OF_PARTITIONS: &str = "-manager";

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::Refused(format!("not expressible as JSON: {error}")))
}
