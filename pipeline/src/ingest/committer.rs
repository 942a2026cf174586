//! Kafka transactions on a thread of their own: the commit of one epoch runs while the next is aggregated.
//!
//! One epoch is under way at a time. Whoever must not go on before it is settled, a rebalance above all, waits
//! for it here.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::group::{Commit, list_of};
use crate::kafka;
use crate::roles::Context;

/// How long a transaction may take before the broker gives it up.
const TIMEOUT: Duration = Duration::from_secs(60);

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
    pub(super) offsets: Commit,
    pub(super) group: ConsumerGroupMetadata,
}

pub(super) struct Committer {
    epochs: SyncSender<Epoch>,
    outcomes: Receiver<Result<Duration>>,
    under_way: bool,
    /// How long the last epoch took, until someone asks.
    took: Option<Duration>,
}

impl Committer {
    /// Starts the thread and fences nobody: each process has a transactional id of its own, and the group's
    /// generation, sent with the offsets, fences a process that is no longer the owner (KIP-447).
    pub(super) fn start(context: &Context) -> Result<Self> {
        let id = format!("{}-{}", context.config.ingest.group, Uuid::new_v4());
        let producer =
            kafka::transactional_producer(&context.config.kafka, &id, TIMEOUT, DefaultProducerContext)?;
        producer.init_transactions(TIMEOUT).map_err(Error::client("start transactions"))?;
        let (epochs, incoming) = sync_channel::<Epoch>(1);
        let (report, outcomes) = sync_channel(1);
        thread::Builder::new()
            .name("ingest-commit".into())
            .spawn(move || {
                while let Ok(epoch) = incoming.recv() {
                    let started = Instant::now();
                    let outcome = commit(&producer, epoch);
                    let failed = outcome.is_err();
                    if report.send(outcome.map(|()| started.elapsed())).is_err() || failed {
                        break;
                    }
                }
            })
            .map_err(|error| Error::Refused(format!("cannot start a thread: {error}")))?;
        Ok(Self { epochs, outcomes, under_way: false, took: None })
    }

    /// Whether an epoch is still being committed.
    pub(super) fn is_busy(&mut self) -> Result<bool> {
        if self.under_way {
            match self.outcomes.try_recv() {
                Ok(outcome) => {
                    self.under_way = false;
                    self.took = Some(outcome?);
                }
                Err(std::sync::mpsc::TryRecvError::Empty) => {}
                Err(std::sync::mpsc::TryRecvError::Disconnected) => {
                    return Err(Error::Stopped("the commit thread"));
                }
            }
        }
        Ok(self.under_way)
    }

    /// Hands an epoch over. The one before it must be settled.
    pub(super) fn submit(&mut self, epoch: Epoch) -> Result<()> {
        self.epochs.send(epoch).map_err(|_| Error::Stopped("the commit thread"))?;
        self.under_way = true;
        Ok(())
    }

    /// Waits until no epoch is under way, and says how long the last one took if it was not asked before. A failed
    /// one is an error: everything since the committed offsets has to be read again.
    pub(super) fn settle(&mut self) -> Result<Option<Duration>> {
        if !self.under_way {
            return Ok(self.took.take());
        }
        self.under_way = false;
        self.outcomes.recv().map_err(|_| Error::Stopped("the commit thread"))?.map(Some)
    }
}

fn commit(producer: &BaseProducer, epoch: Epoch) -> Result<()> {
    producer.begin_transaction().map_err(Error::client("begin a transaction"))?;
    let sent = send(producer, epoch);
    if sent.is_err() {
        // The broker gives the transaction up by itself when this fails too.
        if let Err(error) = producer.abort_transaction(TIMEOUT) {
            tracing::warn!(%error, "a transaction could not be aborted");
        }
    }
    sent
}

fn send(producer: &BaseProducer, epoch: Epoch) -> Result<()> {
    for message in epoch.messages {
        let mut record = BaseRecord::<(), [u8]>::to(&message.topic).payload(&message.payload);
        if let Some(partition) = message.partition {
            record = record.partition(partition);
        }
        if let Some(headers) = message.headers {
            record = record.headers(headers);
        }
        while let Err((error, unsent)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(Error::client("send an epoch")(error));
            }
            producer.poll(Duration::from_millis(10));
            record = unsent;
        }
    }
    producer.flush(TIMEOUT).map_err(Error::client("send an epoch"))?;
    if !epoch.offsets.is_empty() {
        producer
            .send_offsets_to_transaction(&list_of(&epoch.offsets)?, &epoch.group, TIMEOUT)
            .map_err(Error::client("send offsets with an epoch"))?;
    }
    producer.commit_transaction(TIMEOUT).map_err(Error::client("commit an epoch"))
}
