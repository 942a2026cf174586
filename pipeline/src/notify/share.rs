//! What this process does for the partitions it owns: reads them into the ledger and delivers what is due.

use std::sync::Arc;
use std::time::Duration;

use operators::threshold::Transition;
use rdkafka::Message;
use rdkafka::message::BorrowedMessage;

use super::delivery::{Deliveries, Job, Retry};
use super::ledger::{Ledger, Position};
use super::message;
use super::receivers::Receiver;
use crate::error::{Error, Result};
use crate::group::{Assigned, Commit, Membership, Share, Source};
use crate::roles::Context;
use crate::telemetry::DeliveryLabels;

/// How long deliveries under way may take when partitions are given up or the process ends.
const GRACE: Duration = Duration::from_secs(5);

/// Messages that are not settled, above which no more are read: the bound on memory while a receiver is away.
const MAX_UNSETTLED: usize = 1_000;

pub(super) struct NotifyShare {
    context: Context,
    receivers: Vec<Receiver>,
    ledger: Ledger,
    /// While partitions are owned.
    deliveries: Option<Deliveries>,
    joined: bool,
}

impl NotifyShare {
    pub(super) fn new(context: &Context, receivers: &[Receiver]) -> Self {
        Self {
            context: context.clone(),
            receivers: receivers.to_vec(),
            ledger: empty_ledger(receivers),
            deliveries: None,
            joined: false,
        }
    }

    /// Whether the group has said what this process owns, be it nothing.
    pub(super) fn has_joined(&self) -> bool {
        self.joined
    }

    /// Takes a message in and queues it for those it has to be told.
    pub(super) fn take(&mut self, message: &BorrowedMessage<'_>) -> Result<()> {
        let (partition, offset) = (message.partition(), message.offset());
        let transition = match message::read(message.payload()) {
            Ok(transition) => transition,
            Err(reason) => {
                if !self.ledger.is_history(partition, offset) {
                    self.count("", "unreadable");
                    tracing::error!(
                        partition,
                        offset,
                        reason,
                        "not a transition of an alert, nobody is told"
                    );
                }
                self.ledger.pass(partition, offset);
                return Ok(());
            }
        };
        let known = self.known_receivers(&transition, partition, offset);
        for name in self.ledger.read(partition, offset, &transition.id, &known) {
            let notification = message::notification(&transition, &name);
            let deliveries = self.deliveries.as_ref().ok_or(Error::Stopped("deliveries"))?;
            deliveries.submit(&name, Job { partition, offset, notification })?;
        }
        Ok(())
    }

    /// Whether the broker should be asked where a partition ends, now that all of it was read.
    pub(super) fn reads_history(&self, partition: i32) -> bool {
        self.ledger.reads_history(partition)
    }

    /// Whether the partition, which ends at `end`, has to be read from its beginning.
    pub(super) fn ended(&mut self, partition: i32, end: i64) -> bool {
        self.ledger.ended(partition, end)
    }

    /// Whether no more messages should be read for now. Reading goes on when half of them are settled.
    pub(super) fn is_full(&self, paused: bool) -> bool {
        let bound = if paused { MAX_UNSETTLED / 2 } else { MAX_UNSETTLED };
        self.ledger.unsettled() >= bound
    }

    /// What has to be committed by now.
    pub(super) fn due(&mut self) -> Result<Vec<Position>> {
        if let Some(deliveries) = &self.deliveries {
            for settled in deliveries.settled()? {
                self.ledger.settle(settled.partition, settled.offset, &settled.receiver);
            }
        }
        Ok(self.ledger.due())
    }

    pub(super) fn committed(&mut self, due: Vec<Position>) {
        self.ledger.committed(due);
    }

    pub(super) fn as_commit(&self, due: &[Position]) -> Commit {
        let topic = &self.context.config.topics.alerts;
        due.iter()
            .map(|position| (topic.clone(), position.partition, position.offset, position.text.clone()))
            .collect()
    }

    /// Ends all deliveries, and returns what has to be committed.
    pub(super) fn give_up(&mut self) -> Commit {
        if let Some(deliveries) = self.deliveries.take() {
            for settled in deliveries.stop(GRACE) {
                self.ledger.settle(settled.partition, settled.offset, &settled.receiver);
            }
        }
        let due = self.ledger.due();
        // The next owner may tell more: the history is read again when a partition comes back.
        self.ledger = empty_ledger(&self.receivers);
        self.as_commit(&due)
    }

    /// The receivers of a transition that exist, each once.
    fn known_receivers(&self, transition: &Transition, partition: i32, offset: i64) -> Vec<Arc<str>> {
        let mut known: Vec<Arc<str>> = Vec::new();
        for name in &transition.receivers {
            match self.receivers.iter().find(|receiver| *receiver.name == **name) {
                Some(receiver) if known.contains(&receiver.name) => {}
                Some(receiver) => known.push(Arc::clone(&receiver.name)),
                None if self.ledger.is_history(partition, offset) => {}
                None => {
                    self.count(name, "failed");
                    tracing::error!(
                        receiver = name,
                        rule = transition.rule,
                        id = transition.id,
                        status = %transition.status,
                        reason = "no [[receiver]] of this name in the alerts file",
                        "notification not delivered, it will not be tried again"
                    );
                }
            }
        }
        known
    }

    fn count(&self, receiver: &str, result: &'static str) {
        let labels = DeliveryLabels { receiver: receiver.to_owned(), result };
        self.context.metrics.notify.deliveries.get_or_create(&labels).inc();
    }
}

impl Share for NotifyShare {
    fn assigned(&mut self, partitions: &[Assigned]) -> Result<Vec<Option<i64>>> {
        if self.deliveries.is_none() {
            let Context { runtime, metrics, .. } = &self.context;
            self.deliveries = Some(Deliveries::start(runtime, metrics, &self.receivers, Retry::default()));
        }
        self.joined = true;
        let take_over = |assigned: &Assigned| {
            self.ledger.take_over(assigned.partition, assigned.offset, &assigned.metadata)
        };
        Ok(partitions.iter().map(take_over).collect())
    }

    /// The group is not cooperative: these are all.
    fn revoked(&mut self, _: &[Source], _: Membership<'_>) -> Result<Commit> {
        Ok(self.give_up())
    }

    fn lost(&mut self) -> Result<()> {
        self.give_up();
        Ok(())
    }
}

fn empty_ledger(receivers: &[Receiver]) -> Ledger {
    Ledger::new(receivers.iter().map(|receiver| Arc::clone(&receiver.name)).collect())
}
