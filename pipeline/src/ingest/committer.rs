//! Kafka transactions on a thread of their own: the commit of one epoch runs while the next is aggregated.
//!
//! One epoch is under way at a time. Whoever must not go on before it is settled, a rebalance above all, waits
//! for it here. While other members join or leave, the group may move on to its next generation before an epoch's
//! offsets arrive, and refuse them; the epoch is then sent again, whole, with the membership as it is now.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::group::{Commit, Membership, generation_moved, list_of};
use crate::kafka;
use crate::roles::Context;

/// How long a transaction may take before the broker gives it up.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How often an epoch is sent when the group moves on meanwhile.
const MAX_ATTEMPTS: usize = 10;

/// One message to be sent.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) topic: String,
    /// None leaves the choice to the producer.
    pub(super) partition: Option<i32>,
    pub(super) payload: Vec<u8>,
    pub(super) headers: Option<OwnedHeaders>,
}

/// One epoch, to be committed whole.
pub(super) struct Epoch {
    pub(super) messages: Vec<Outgoing>,
    /// Never empty: they are what fences a process that is no longer the owner.
    pub(super) offsets: Commit,
}

type Order = (Epoch, ConsumerGroupMetadata);

enum Outcome {
    Committed(Duration),
    /// Nothing of it is there; the group has moved on to another generation.
    Outdated(Epoch),
    Failed(Error),
}

pub(super) struct Committer {
    orders: SyncSender<Order>,
    outcomes: Receiver<Outcome>,
    under_way: bool,
    /// Come in, and not looked at yet.
    outcome: Option<Outcome>,
}

impl Committer {
    /// Starts the thread and fences nobody: each process has a transactional id of its own, and the group's
    /// generation, sent with the offsets, fences a process that is no longer the owner (KIP-447).
    pub(super) fn start(context: &Context) -> Result<Self> {
        let id = format!("{}-{}", context.config.ingest.group, Uuid::new_v4());
        let producer =
            kafka::transactional_producer(&context.config.kafka, &id, TIMEOUT, DefaultProducerContext)?;
        producer.init_transactions(TIMEOUT).map_err(Error::client("start transactions"))?;
        let (orders, incoming) = sync_channel::<Order>(1);
        let (report, outcomes) = sync_channel(1);
        thread::Builder::new()
            .name("ingest-commit".into())
            .spawn(move || {
                while let Ok((epoch, member)) = incoming.recv() {
                    if report.send(commit(&producer, epoch, &member)).is_err() {
                        break;
                    }
                }
            })
            .map_err(|error| Error::Refused(format!("cannot start a thread: {error}")))?;
        Ok(Self { orders, outcomes, under_way: false, outcome: None })
    }

    /// Whether an epoch is still being committed.
    pub(super) fn is_busy(&mut self) -> Result<bool> {
        if self.under_way && self.outcome.is_none() {
            self.outcome = match self.outcomes.try_recv() {
                Ok(outcome) => Some(outcome),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => return Err(Error::Stopped("the commit thread")),
            };
        }
        Ok(self.under_way && self.outcome.is_none())
    }

    /// Hands an epoch over. The one before it must be settled.
    pub(super) fn submit(&mut self, epoch: Epoch, member: ConsumerGroupMetadata) -> Result<()> {
        self.orders.send((epoch, member)).map_err(|_| Error::Stopped("the commit thread"))?;
        self.under_way = true;
        Ok(())
    }

    /// Waits until no epoch is under way, and says how long the last one took if it was not asked before. A failed
    /// one is an error: everything since the committed offsets has to be read again.
    pub(super) fn settle(
        &mut self,
        patience: Duration,
        membership: Membership<'_>,
    ) -> Result<Option<Duration>> {
        for _ in 0..MAX_ATTEMPTS {
            if !self.under_way {
                return Ok(None);
            }
            let outcome = match self.outcome.take() {
                Some(outcome) => outcome,
                None => self.outcomes.recv_timeout(patience).map_err(|error| match error {
                    RecvTimeoutError::Timeout => Error::Stopped("the last transaction took too long and"),
                    RecvTimeoutError::Disconnected => Error::Stopped("the commit thread"),
                })?,
            };
            self.under_way = false;
            match outcome {
                Outcome::Committed(took) => return Ok(Some(took)),
                Outcome::Failed(error) => return Err(error),
                Outcome::Outdated(epoch) => {
                    tracing::info!("the group has changed meanwhile, the epoch is sent again");
                    self.submit(epoch, membership()?)?;
                }
            }
        }
        Err(Error::Stopped("the group changes all the time, committing"))
    }
}

fn commit(producer: &BaseProducer, epoch: Epoch, member: &ConsumerGroupMetadata) -> Outcome {
    let started = Instant::now();
    let deadline = started + TIMEOUT;
    if let Err(error) = producer.begin_transaction() {
        return Outcome::Failed(Error::client("begin a transaction")(error));
    }
    let Err(error) = send(producer, &epoch, member, deadline) else {
        return Outcome::Committed(started.elapsed());
    };
    let outdated = matches!(&error, Error::Client { source, .. } if generation_moved(source));
    match producer.abort_transaction(TIMEOUT) {
        Ok(()) if outdated => Outcome::Outdated(epoch),
        Ok(()) => Outcome::Failed(error),
        Err(failed) => {
            // The broker gives the transaction up by itself.
            tracing::warn!(error = %failed, "a transaction could not be aborted");
            Outcome::Failed(error)
        }
    }
}

fn send(
    producer: &BaseProducer,
    epoch: &Epoch,
    member: &ConsumerGroupMetadata,
    deadline: Instant,
) -> Result<()> {
    let remaining = || deadline.saturating_duration_since(Instant::now());
    for message in &epoch.messages {
        let mut record = BaseRecord::<(), [u8]>::to(&message.topic).payload(&message.payload);
        if let Some(partition) = message.partition {
            record = record.partition(partition);
        }
        if let Some(headers) = &message.headers {
            record = record.headers(headers.clone());
        }
        while let Err((error, unsent)) = producer.send(record) {
            let full = error == KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
            if !full || remaining().is_zero() {
                return Err(Error::client("send an epoch")(error));
            }
            producer.poll(Duration::from_millis(10));
            record = unsent;
        }
    }
    producer.flush(remaining()).map_err(Error::client("send an epoch"))?;
    producer
        .send_offsets_to_transaction(&list_of(&epoch.offsets)?, member, remaining())
        .map_err(Error::client("send offsets with an epoch"))?;
    producer.commit_transaction(remaining()).map_err(Error::client("commit an epoch"))
}
