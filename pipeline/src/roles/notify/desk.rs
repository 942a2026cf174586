//! The owner of one partition of the alerts topic: its dispatcher, and the transactions that make
//! what it decides last.
//!
//! What came in, what has been decided and recorded, and how far the partition was read are
//! committed in one transaction; only then is anything sent. So the next owner finds the dispatches
//! that were under way, with the ids under which they may have arrived, and decides nothing twice.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::time::{Duration, Instant};

use alerts::Transition;
use alerts::dispatch::{Command, Dispatcher, Effect, Entry, Policy, What};
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};

use twox_hash::XxHash3_64;

use super::message;
use super::seen::{HISTORY, Seen};
use crate::error::{Error, Result};
use crate::kafka::state_topic::{Reader, read_state};
use crate::kafka::{self, Plain};
use crate::roles::context::Context;
use crate::roles::group::list_of;

/// How long a transaction may take before the broker gives it up.
const TIMEOUT: Duration = Duration::from_secs(60);

pub(super) struct Desk {
    pub(super) partition: i32,
    pub(super) dispatcher: Dispatcher,
    /// Has a thread that takes its reports: without one, no transaction could be aborted.
    producer: ThreadedProducer<Plain>,
    limits: Limits,
    /// The next message to read, and what has been committed.
    pub(super) next: Option<i64>,
    committed: Option<i64>,
    seen: Seen,
    /// What is to happen once the transaction is through.
    effects: VecDeque<Effect>,
    /// A transaction has failed: what it was to make last is in no topic, so nothing after it may
    /// be committed. The next session goes on from what is.
    has_failed: bool,
    /// Of a group without an offset: the transitions that are there already.
    old: Option<Old>,
}

/// Bytes that the topics take in one message.
struct Limits {
    state: usize,
    log: usize,
}

impl Limits {
    fn ask(context: &Context) -> Result<Self> {
        let client = kafka::admin(&context.config.kafka)?;
        let topics = &context.config.topics;
        let (state, log) = (topics.alert_manager(), topics.alert_log());
        let asked = context.runtime.block_on(kafka::message_limits(&client, [&state, &log]));
        let [state, log] = asked.map(|limit| limit.saturating_sub(MARGIN));
        Ok(Self { state, log })
    }
}

/// Of a message beside its key and payload.
const MARGIN: usize = 4 << 10;
/// What is left of each text of an entry that would be larger than its topic takes.
const CUT_BYTES: usize = 1 << 10;

/// Transitions that were in the topic when a group without a committed offset came to it: one that
/// was renamed, or whose offset has expired. The ledger, which is kept for longer, knows which were
/// taken in.
struct Old {
    /// The first offset after them.
    end: i64,
    taken_in: HashSet<u64>,
}

impl Old {
    fn read(context: &Context, end: i64) -> Result<Self> {
        let (kafka, topics) = (&context.config.kafka, &context.config.topics);
        let mut taken_in = HashSet::new();
        Reader::new(kafka, &topics.alert_log(), None)?.read_to_end(|record| {
            let entry = record.value.as_deref().map(serde_json::from_slice::<Entry>);
            if let Some(Ok(Entry {
                what: What::Received | What::Pending | What::Inactive,
                transition: Some(id),
                ..
            })) = entry
            {
                taken_in.insert(XxHash3_64::oneshot(id.as_bytes()));
            }
        })?;
        Ok(Self { end, taken_in })
    }
}

impl Desk {
    /// Takes a partition over: fences the former owner, ends its open transaction, and goes on from
    /// what it had committed. `next` is none in a group without an offset, `end` the end of the
    /// partition.
    pub(super) fn take_over(
        context: &Context,
        policy: Policy,
        partition: i32,
        next: Option<i64>,
        end: i64,
    ) -> Result<Self> {
        let config = &context.config;
        let id = format!("{}-{partition}", config.alerts.group);
        let limits = Limits::ask(context)?;
        let producer = kafka::served_producer(&config.kafka, &id, TIMEOUT, limits.state.min(limits.log))?;
        producer.init_transactions(TIMEOUT).map_err(Error::client("start transactions"))?;
        let records = read_state(&config.kafka, &config.topics.alert_manager(), Some(partition))?;
        let mut dispatcher = Dispatcher::restore(policy, records.into_iter()).map_err(Error::from)?;
        dispatcher.resume();
        let seen = match next {
            None => Seen::default(),
            Some(next) => history(context, partition, next)?,
        };
        let old = match next {
            None if end > 0 => Some(Old::read(context, end)?),
            _ => None,
        };
        if let Some(old) = old.as_ref().filter(|old| !old.taken_in.is_empty()) {
            tracing::warn!(
                partition,
                end,
                known = old.taken_in.len(),
                "no offset is committed for the alerts: those that the ledger knows are not sent again"
            );
        }
        Ok(Self {
            partition,
            dispatcher,
            producer,
            limits,
            next,
            committed: next,
            seen,
            effects: VecDeque::new(),
            has_failed: false,
            old,
        })
    }

    /// The commands that hold are those of their topic: others were taken back while nobody
    /// listened.
    pub(super) fn hold_only(&mut self, known: &BTreeSet<String>, now: i64) {
        let gone: Vec<String> =
            self.dispatcher.commands().filter(|key| !known.contains(*key)).map(str::to_owned).collect();
        for key in gone {
            tracing::info!(key, "a command to the alerts was taken back while nobody listened");
            self.dispatcher.command(&key, None, now);
        }
    }

    pub(super) fn take(&mut self, transition: &Transition, offset: i64, now: i64) {
        self.pass(offset);
        if self.seen.note(&transition.id) && !self.is_old(transition, offset) {
            self.dispatcher.transition(transition, now);
        }
    }

    /// Whether it was taken in before this group came.
    fn is_old(&mut self, transition: &Transition, offset: i64) -> bool {
        let is_there = |old: &mut Old| offset < old.end;
        if self.old.take_if(|old| !is_there(old)).is_some() {
            return false;
        }
        let Some(old) = &self.old else { return false };
        old.taken_in.contains(&XxHash3_64::oneshot(transition.id.as_bytes()))
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
        if self.has_failed {
            return Ok(Vec::new());
        }
        self.dispatcher.advance(context.clock.now_ns());
        self.effects.extend(self.dispatcher.take_effects());
        let mut changes = self.dispatcher.changes();
        changes.retain(|(key, value)| {
            let bytes = key.len() + value.as_ref().map_or(0, Vec::len);
            let fits = bytes <= self.limits.state;
            if !fits {
                // It holds until the process ends; then it is notified again, or not at all.
                context.given_up(
                    &context.config.topics.alert_manager(),
                    "a state of the alert manager",
                    bytes,
                );
            }
            fits
        });
        let entries = self.effects.iter().filter_map(|effect| match effect {
            Effect::Log(entry) => Some(entry),
            _ => None,
        });
        let mut log = Vec::new();
        for entry in entries {
            let key = entry.dispatch.as_ref().or(entry.transition.as_ref()).cloned().unwrap_or_default();
            let mut line = json(entry)?;
            if key.len() + line.len() > self.limits.log {
                line = json(&with_short_texts(entry))?;
            }
            if key.len() + line.len() > self.limits.log {
                context.given_up(&context.config.topics.alert_log(), "an entry of the ledger", line.len());
                continue;
            }
            log.push((key, line));
        }
        if changes.is_empty() && log.is_empty() && self.next == self.committed {
            return Ok(self.effects.drain(..).collect());
        }
        if let Err(error) = self.producer.begin_transaction() {
            self.has_failed = true;
            return Err(Error::client("begin a transaction")(error));
        }
        let committed = self.commit(context, &changes, &log, member);
        if let Err(error) = committed {
            self.has_failed = true;
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
            // A silence that is over, or an acknowledgement of what is: the topic need not keep it
            // either.
            if let (Some(command), None) = (key.strip_prefix("command/"), value) {
                self.send(&commands, command, None, deadline)?;
            }
        }
        for (key, entry) in log {
            self.send(&ledger, key, Some(entry), deadline)?;
        }
        let remaining = || deadline.saturating_duration_since(Instant::now());
        kafka::flush(&self.producer, remaining()).map_err(Error::client("send the state of alerts"))?;
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
            std::thread::park_timeout(Duration::from_millis(10));
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

/// The entry with its longer texts cut.
fn with_short_texts(entry: &Entry) -> Entry {
    let mut entry = entry.clone();
    let texts = entry.labels.values_mut().chain(entry.by.as_mut()).chain(entry.reason.as_mut());
    for text in texts {
        text.truncate(text.floor_char_boundary(CUT_BYTES));
    }
    entry
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::Refused(format!("not expressible as JSON: {error}")))
}
