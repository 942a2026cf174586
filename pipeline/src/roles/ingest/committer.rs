//! Epochs are aggregated and committed on a thread of their own, while the next one is read.
//!
//! One epoch is under way at a time. A caller that must not go on before it is settled, such as a
//! rebalance, waits for it here. While other members join or leave, the group may move on to its
//! next generation before an epoch's offsets arrive, and refuse them; the epoch is then sent again,
//! whole, with the membership as it is now.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use uuid::Uuid;

use super::epoch::{Aggregator, Collected, Epoch, Size};
use super::look::Look;
use crate::error::{Error, Result};
use crate::kafka::{self, Plain};
use crate::roles::context::Context;
use crate::roles::group::{Membership, generation_moved, list_of};

/// How long a transaction may take before the broker gives it up.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How often an epoch is sent when the group moves on meanwhile.
const MAX_ATTEMPTS: usize = 10;

/// What is to be done, and as which member.
type Order = (Work, ConsumerGroupMetadata);

pub(super) enum Work {
    Aggregate(Collected),
    Commit(Epoch),
}

/// An epoch that is committed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Committed {
    /// By its transaction.
    pub(super) took: Duration,
    pub(super) size: Size,
}

enum Outcome {
    Committed(Committed),
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
    /// Starts the thread and fences nobody: each process has a transactional id of its own, and the
    /// group's generation, sent with the offsets, fences a process that is no longer the owner
    /// (KIP-447).
    pub(super) fn start(aggregator: Aggregator, mut look: Look) -> Result<Self> {
        let config = &aggregator.context.config;
        let id = format!("{}-{}", config.ingest.group, Uuid::new_v4());
        // A batch is refused whole when it is larger than a message may be.
        let producer = kafka::batching_producer(&config.kafka, &id, TIMEOUT, aggregator.batch_bytes())?;
        producer.init_transactions(TIMEOUT).map_err(Error::client("start transactions"))?;
        let (orders, incoming) = sync_channel::<Order>(1);
        let (report, outcomes) = sync_channel(1);
        thread::Builder::new()
            .name("ingest-commit".into())
            .spawn(move || {
                while let Ok((work, member)) = incoming.recv() {
                    let epoch = match work {
                        Work::Aggregate(mut collected) => {
                            collected.facts.topics = look.topics(&producer);
                            let looked = look.at_logs(&mut collected.facts.partitions);
                            aggregator.context.board.epoch_ended(&collected.facts);
                            looked.and_then(|()| aggregator.aggregate(collected))
                        }
                        Work::Commit(epoch) => Ok(epoch),
                    };
                    let outcome = match epoch {
                        Ok(epoch) => commit(&aggregator.context, &producer, epoch, &member),
                        Err(error) => Outcome::Failed(error),
                    };
                    if report.send(outcome).is_err() {
                        break;
                    }
                }
            })
            .map_err(|error| Error::Refused(format!("cannot start a thread: {error}")))?;
        Ok(Self { orders, outcomes, under_way: false, outcome: None })
    }

    /// Whether an epoch is still under way.
    pub(super) fn is_busy(&mut self) -> Result<bool> {
        if self.under_way && self.outcome.is_none() {
            self.outcome = match self.outcomes.try_recv() {
                Ok(outcome) => Some(outcome),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => {
                    return Err(Error::Interrupted("the commit thread ended early"));
                }
            };
        }
        Ok(self.under_way && self.outcome.is_none())
    }

    /// Hands an epoch over. The one before it must be settled.
    pub(super) fn submit(&mut self, work: Work, member: ConsumerGroupMetadata) -> Result<()> {
        self.orders.send((work, member)).map_err(|_| Error::Interrupted("the commit thread ended early"))?;
        self.under_way = true;
        Ok(())
    }

    /// Waits until no epoch is under way, and gives the last one if it was not asked for before. A
    /// failed one is an error: everything since the committed offsets has to be read again.
    pub(super) fn settle(
        &mut self,
        patience: Duration,
        membership: Membership<'_>,
    ) -> Result<Option<Committed>> {
        for _ in 0..MAX_ATTEMPTS {
            if !self.under_way {
                return Ok(None);
            }
            let outcome = match self.outcome.take() {
                Some(outcome) => outcome,
                None => self.outcomes.recv_timeout(patience).map_err(|error| match error {
                    RecvTimeoutError::Timeout => Error::Interrupted("the last transaction took too long"),
                    RecvTimeoutError::Disconnected => Error::Interrupted("the commit thread ended early"),
                })?,
            };
            self.under_way = false;
            match outcome {
                Outcome::Committed(committed) => return Ok(Some(committed)),
                Outcome::Failed(error) => return Err(error),
                Outcome::Outdated(epoch) => {
                    tracing::info!("the group has changed meanwhile, the epoch is sent again");
                    self.submit(Work::Commit(epoch), membership()?)?;
                }
            }
        }
        Err(Error::Interrupted("the group changed during every attempt to commit"))
    }
}

/// A dead letter that its topic does not take costs the dead letters of its epoch, which are
/// counted: nothing else would ever be committed.
fn commit(
    context: &Context,
    producer: &BaseProducer<Plain>,
    mut epoch: Epoch,
    member: &ConsumerGroupMetadata,
) -> Outcome {
    let started = Instant::now();
    let deadline = started + TIMEOUT;
    if let Err(error) = producer.begin_transaction() {
        return Outcome::Failed(Error::client("begin a transaction")(error));
    }
    let Err(error) = send(producer, &epoch, member, deadline) else {
        return Outcome::Committed(Committed { took: started.elapsed(), size: epoch.size });
    };
    let too_large = error.of_client().is_some_and(kafka::is_too_large);
    let outdated = error.of_client().is_some_and(generation_moved);
    match producer.abort_transaction(TIMEOUT) {
        Ok(()) if too_large && epoch.give_up(&context.config.topics.dead_letter, context) => {
            commit(context, producer, epoch, member)
        }
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
    producer: &BaseProducer<Plain>,
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
    kafka::flush(producer, remaining()).map_err(Error::client("send an epoch"))?;
    producer
        .send_offsets_to_transaction(&list_of(&epoch.offsets)?, member, remaining())
        .map_err(Error::client("send offsets with an epoch"))?;
    producer.commit_transaction(remaining()).map_err(Error::client("commit an epoch"))
}
