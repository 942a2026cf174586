//! What this process does for the partitions it owns: transitions in, dispatches out, and what
//! becomes of these.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alerts::dispatch::{Command, Effect, Policy};
use rdkafka::Message;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::message::BorrowedMessage;
use sinks::Notification;

use super::behind::Behind;
use super::delivery::{Deliveries, Report, Retry};
use super::desk::Desk;
use super::message;
use super::receivers::Receiver;
use crate::config::AlertsConfig;
use crate::error::Result;
use crate::kafka::state_topic::{Record, read_state};
use crate::roles::context::Context;
use crate::roles::group::{Assigned, Commit, Membership, Share, Source};
use crate::telemetry::{DeliveryLabels, StageLabels};

/// How long deliveries under way may take when partitions are given up or the process ends.
const GRACE: Duration = Duration::from_secs(5);

/// Dispatches that are not settled, above which no more transitions are read: the bound on memory
/// while receivers are away. What waits for a receiver that is away is one dispatch for each of its
/// groups.
const MAX_UNSETTLED: usize = 10_000;

pub(super) struct NotifyShare {
    context: Context,
    policy: Policy,
    receivers: Vec<Receiver>,
    retry: Retry,
    desks: BTreeMap<i32, Desk>,
    /// The partition of each dispatch that is not settled.
    partitions: BTreeMap<String, i32>,
    deliveries: Deliveries,
    /// All there are.
    commands: BTreeMap<String, Command>,
    behind: Behind,
    joined: bool,
}

impl NotifyShare {
    pub(super) fn new(
        context: &Context,
        config: &AlertsConfig,
        receivers: &[Receiver],
        retry: Retry,
    ) -> Self {
        Self {
            deliveries: deliveries(context, receivers, retry),
            context: context.clone(),
            policy: config.policy.clone(),
            behind: Behind::new(config.behind.clone(), context.clock.now_ns()),
            receivers: receivers.to_vec(),
            retry,
            desks: BTreeMap::new(),
            partitions: BTreeMap::new(),
            commands: BTreeMap::new(),
            joined: false,
        }
    }

    /// Whether the group has assigned partitions to this process, be it none.
    pub(super) fn has_joined(&self) -> bool {
        self.joined
    }

    /// Whether it owns anything.
    pub(super) fn is_owner(&self) -> bool {
        !self.desks.is_empty()
    }

    /// Takes in a message of the alerts topic.
    pub(super) fn take(&mut self, message: &BorrowedMessage<'_>) {
        let (partition, offset) = (message.partition(), message.offset());
        let Some(desk) = self.desks.get_mut(&partition) else { return };
        if desk.next.is_some_and(|next| offset < next) {
            return;
        }
        match message::read(message.payload()) {
            Ok(transition) => desk.take(&transition, offset, self.context.clock.now_ns()),
            Err(reason) => {
                desk.pass(offset);
                count(&self.context, "", "unreadable");
                tracing::error!(
                    partition,
                    offset,
                    reason,
                    "not a transition of an alert, nobody is notified"
                );
            }
        }
    }

    /// Takes in a record of the topic of commands.
    pub(super) fn command(&mut self, record: &Record) {
        let command = match message::read_command(record.value.as_deref()) {
            Ok(command) => command,
            Err(reason) => {
                tracing::error!(key = record.key, reason, "not a command to the alerts, it has no effect");
                return;
            }
        };
        let now = self.context.clock.now_ns();
        for desk in self.desks.values_mut() {
            desk.command(&record.key, command.as_ref(), now);
        }
        match command {
            Some(command) => self.commands.insert(record.key.clone(), command),
            None => self.commands.remove(&record.key),
        };
    }

    /// Takes in a record of the topic of alert states.
    pub(super) fn progress(&mut self, record: &Record) {
        self.behind.note(record);
    }

    /// Whether no more messages should be read for now. Reading goes on when half of them are
    /// settled.
    pub(super) fn is_full(&self, paused: bool) -> bool {
        let bound = if paused { MAX_UNSETTLED / 2 } else { MAX_UNSETTLED };
        self.deliveries.unsettled() >= bound
    }

    /// Decides what is due, makes it last, and sends it.
    pub(super) fn advance(&mut self, member: &ConsumerGroupMetadata) -> Result<()> {
        let reports = self.deliveries.advance(self.context.clock.monotonic());
        self.settle(reports);
        let now = self.context.clock.now_ns();
        let stall = self.behind.stall(now).map(|stall| stall.describe());
        for (partition, desk) in &mut self.desks {
            // One partition's owner is enough to tell of what concerns all.
            if *partition == 0
                && let Some(transition) = self.behind.due(&desk.dispatcher, now)
            {
                tracing::error!(status = %transition.status, transition.description, "{}", transition.summary);
                desk.dispatcher.transition(&transition, now);
            }
            for effect in desk.settle(&self.context, member)? {
                let at = self.context.clock.monotonic();
                let (dispatch, is_known) = match effect {
                    Effect::Log(_) => continue,
                    Effect::Send(dispatch) => {
                        let is_known = self.deliveries.submit(&dispatch, stall.as_deref(), at);
                        (dispatch, is_known)
                    }
                    Effect::Replaced { old, by } => {
                        self.partitions.remove(&old);
                        let is_known = self.deliveries.replace(&old, &by, stall.as_deref(), at);
                        (by, is_known)
                    }
                };
                self.partitions.insert(dispatch.id.clone(), *partition);
                if !is_known {
                    let reason = "no [[receiver]] of this name in the alerts file";
                    let now = self.context.clock.now_ns();
                    tracing::error!(
                        receiver = dispatch.receiver,
                        id = dispatch.id,
                        reason,
                        "notification not delivered"
                    );
                    desk.dispatcher.gave_up(&dispatch.id, reason, None, now);
                }
            }
        }
        Ok(())
    }

    fn settle(&mut self, reports: Vec<(String, Arc<str>, Report)>) {
        let now = self.context.clock.now_ns();
        for (id, receiver, report) in reports {
            let Some(partition) = self.partitions.get(&id).copied() else { continue };
            let Some(desk) = self.desks.get_mut(&partition) else { continue };
            if !matches!(report, Report::Failed { .. }) {
                self.partitions.remove(&id);
            }
            match report {
                Report::Delivered(notification) => {
                    count(&self.context, &receiver, "delivered");
                    observe(&self.context, &notification, now);
                    desk.dispatcher.sent(&id, now);
                }
                Report::Failed { reason, doubtful } => {
                    count(&self.context, &receiver, "retried");
                    tracing::warn!(
                        receiver = &*receiver,
                        id,
                        reason,
                        doubtful,
                        "notification not delivered, trying again"
                    );
                    desk.dispatcher.failed(&id, &reason, doubtful, now);
                }
                Report::GaveUp { reason, told_by_fallback } => {
                    let result = if told_by_fallback.is_some() { "fallback" } else { "failed" };
                    count(&self.context, &receiver, result);
                    let fallback = told_by_fallback.as_deref();
                    if fallback.is_none() {
                        tracing::error!(
                            receiver = &*receiver,
                            id,
                            reason,
                            "notification not delivered, it will not be tried again"
                        );
                    }
                    desk.dispatcher.gave_up(&id, &reason, fallback, now);
                }
            }
        }
    }

    /// Ends all deliveries, and makes last what they came to.
    pub(super) fn give_up(&mut self, member: Result<ConsumerGroupMetadata>) -> Result<()> {
        let reports = self.deliveries.stop(GRACE, self.context.clock.monotonic());
        self.settle(reports);
        let mut desks = std::mem::take(&mut self.desks);
        self.partitions.clear();
        self.deliveries = deliveries(&self.context, &self.receivers, self.retry);
        if desks.is_empty() {
            return Ok(());
        }
        let member = member?;
        // What is decided now is sent by the next owner: it finds it.
        desks.values_mut().try_for_each(|desk| desk.settle(&self.context, &member).map(drop))
    }
}

impl Share for NotifyShare {
    fn assigned(&mut self, partitions: &[Assigned]) -> Result<Vec<Option<i64>>> {
        self.joined = true;
        let mut starts = Vec::new();
        for assigned in partitions {
            let (topic, partition, end) = (&assigned.topic, assigned.partition, assigned.log.1);
            let beyond = assigned.offset.is_some_and(|offset| offset > end);
            if beyond {
                tracing::error!(
                    topic,
                    partition,
                    end,
                    "the topic ends before the committed offset: was it deleted and created again? it is read from its beginning"
                );
            }
            let next = assigned.offset.filter(|_| !beyond);
            let mut desk = Desk::take_over(&self.context, self.policy.clone(), partition, next, end)?;
            let now = self.context.clock.now_ns();
            // Read once more: what the former owner has just taken in must not pass for taken back.
            let stored =
                read_state(&self.context.config.kafka, &self.context.config.topics.alert_commands(), None)?;
            let read = |value: &[u8]| message::read_command(Some(value)).ok().flatten();
            self.commands =
                stored.iter().filter_map(|(key, value)| Some((key.clone(), read(value)?))).collect();
            desk.hold_only(&stored.into_keys().collect(), now);
            for (key, command) in &self.commands {
                desk.command(key, Some(command), now);
            }
            self.desks.insert(partition, desk);
            starts.push(next);
        }
        Ok(starts)
    }

    /// The group is not cooperative: these are all.
    fn revoked(&mut self, _: &[Source], membership: Membership<'_>) -> Result<Commit> {
        self.give_up(membership())?;
        Ok(Vec::new())
    }

    fn lost(&mut self) -> Result<()> {
        self.deliveries.stop(Duration::ZERO, self.context.clock.monotonic());
        self.desks.clear();
        self.partitions.clear();
        Ok(())
    }
}

fn deliveries(context: &Context, receivers: &[Receiver], retry: Retry) -> Deliveries {
    Deliveries::new(&context.runtime, receivers, retry, context.config.http.external_url.clone())
}

fn count(context: &Context, receiver: &str, result: &'static str) {
    let labels = DeliveryLabels { receiver: receiver.to_owned(), result };
    context.metrics.notify.deliveries.get_or_create(&labels).inc();
}

/// How long it took until people were notified of what is new to them.
fn observe(context: &Context, notification: &Notification, now: i64) {
    for alert in notification.alerts.iter().filter(|alert| !alert.transitions.is_empty()) {
        let stages = [
            ("evaluated", alert.evaluated.map(|evaluated| evaluated - alert.window_end)),
            ("delivered", Some(now - alert.window_end)),
            ("sample_to_delivered", alert.sample.map(|sample| now - sample)),
        ];
        for (stage, took) in stages {
            let Some(took) = took else { continue };
            let labels = StageLabels { rule: alert.rule.clone(), stage };
            context.metrics.notify.latency_seconds.get_or_create(&labels).observe(took as f64 / 1e9);
        }
    }
}

#[cfg(test)]
#[path = "share_tests.rs"]
mod tests;
