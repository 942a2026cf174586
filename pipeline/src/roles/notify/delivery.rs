//! Dispatches until they are delivered: attempts, pauses between them, and the receiver that is
//! notified instead.
//!
//! What fails in passing is tried again until it succeeds, fails for good, or [`Retry::total`] is
//! over. Then the receiver's fallback has it, under the same id; and the fallback's fallback, if
//! that fails too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alerts::dispatch::Dispatch;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use sinks::Notification;
use tokio::runtime::Handle;
use url::Url;

use super::attempts::{Attempts, Outcome};
use super::message;
use super::receivers::Receiver;
use crate::alerting::LONGEST_PAUSE;

/// How a delivery that failed in passing is tried again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    /// The first pause; each further one is about twice as long.
    pub(super) min: Duration,
    /// The longest pause, unless the receiver asks for a longer one.
    pub(super) max: Duration,
    /// No attempt starts later than this after the first.
    pub(super) total: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { min: Duration::from_secs(1), max: LONGEST_PAUSE, total: Duration::from_secs(3600) }
    }
}

impl Retry {
    /// Pauses without end. Jitter adds up to once the pause, so they grow to half of the longest.
    fn pauses(self) -> ExponentialBackoff {
        ExponentialBuilder::new()
            .with_min_delay(self.min)
            .with_max_delay(self.max / 2)
            .without_max_times()
            .with_jitter()
            .build()
    }

    /// How long to wait after an attempt that failed so, `elapsed` after the first began and with
    /// `pause` next; `None`: no more. A receiver that asks for a longer pause gets it, as far as
    /// there is time left.
    pub(super) fn wait(self, error: &sinks::Error, pause: Duration, elapsed: Duration) -> Option<Duration> {
        let left = self.total.checked_sub(elapsed)?;
        if !error.retryable() || pause > left {
            return None;
        }
        let asked = error.retry_after().unwrap_or(Duration::ZERO);
        Some(pause.max(asked.min(left)))
    }
}

/// What has become of a dispatch.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Report {
    Delivered(Arc<Notification>),
    /// An attempt failed, and there will be another.
    Failed {
        reason: String,
        doubtful: bool,
    },
    GaveUp {
        reason: String,
        told_by_fallback: Option<String>,
    },
}

/// A dispatch that is not settled.
#[derive(Debug)]
struct Job {
    notification: Arc<Notification>,
    /// Who is tried: the dispatch's own receiver first.
    receiver: Receiver,
    /// Why those before it were given up.
    given_up: Option<String>,
    pauses: ExponentialBackoff,
    /// When the first attempt with this receiver began, and when the next begins; by the monotonic
    /// clock.
    started: Duration,
    due: Option<Duration>,
    tried: Vec<Arc<str>>,
}

#[derive(Debug)]
pub(super) struct Deliveries {
    receivers: BTreeMap<Arc<str>, Receiver>,
    retry: Retry,
    /// Where people reach this program.
    external_url: Option<Url>,
    attempts: Attempts,
    jobs: BTreeMap<String, Job>,
}

impl Deliveries {
    pub(super) fn new(
        runtime: &Handle,
        receivers: &[Receiver],
        retry: Retry,
        external_url: Option<Url>,
    ) -> Self {
        let receivers = receivers.iter().map(|receiver| (Arc::clone(&receiver.name), receiver.clone()));
        Self {
            receivers: receivers.collect(),
            retry,
            external_url,
            attempts: Attempts::new(runtime),
            jobs: BTreeMap::new(),
        }
    }

    /// Dispatches that are not settled.
    pub(super) fn unsettled(&self) -> usize {
        self.jobs.len()
    }

    /// Delivers a dispatch, with a note about its data. False: there is no receiver of its name.
    pub(super) fn submit(&mut self, dispatch: &Dispatch, note: Option<&str>, now: Duration) -> bool {
        let Some(receiver) = self.receivers.get(dispatch.receiver.as_str()) else { return false };
        let notification = self.notification(dispatch, note);
        self.attempts.start(receiver, Arc::clone(&notification));
        let job = Job {
            notification,
            receiver: receiver.clone(),
            given_up: None,
            pauses: self.retry.pauses(),
            started: now,
            due: None,
            tried: vec![Arc::clone(&receiver.name)],
        };
        self.jobs.insert(dispatch.id.clone(), job);
        true
    }

    fn notification(&self, dispatch: &Dispatch, note: Option<&str>) -> Arc<Notification> {
        message::notification(dispatch, note, self.external_url.as_ref())
    }

    /// Delivers a dispatch in the place of one that is between two attempts: at the time of its
    /// next one. It has its own hour, for it may tell of what is new.
    pub(super) fn replace(&mut self, old: &str, by: &Dispatch, note: Option<&str>, now: Duration) -> bool {
        let Some(job) = self.jobs.remove(old) else { return self.submit(by, note, now) };
        let job = Job { notification: self.notification(by, note), started: now, ..job };
        self.jobs.insert(by.id.clone(), job);
        true
    }

    /// Starts the attempts that are due. Returns what has become of dispatches since the last call,
    /// with the receiver that was tried.
    pub(super) fn advance(&mut self, now: Duration) -> Vec<(String, Arc<str>, Report)> {
        let ended = self.attempts.ended();
        let reports = ended.into_iter().filter_map(|outcome| self.end(outcome, now)).collect();
        for job in self.jobs.values_mut().filter(|job| job.due.is_some_and(|due| due <= now)) {
            job.due = None;
            self.attempts.start(&job.receiver, Arc::clone(&job.notification));
        }
        reports
    }

    /// Ends all attempts. Returns their outcomes. What is not settled is left to the next owner.
    pub(super) fn stop(&mut self, grace: Duration, now: Duration) -> Vec<(String, Arc<str>, Report)> {
        let ended = self.attempts.stop(grace);
        let reports = ended.into_iter().filter_map(|outcome| self.end(outcome, now)).collect();
        self.attempts.stop(Duration::ZERO);
        self.jobs.clear();
        reports
    }

    fn end(&mut self, outcome: Outcome, now: Duration) -> Option<(String, Arc<str>, Report)> {
        let Outcome { id, result } = outcome;
        let job = self.jobs.get_mut(&id)?;
        let tried = Arc::clone(&job.receiver.name);
        let Err(error) = result else {
            let fallback = job.given_up.take();
            let notification = Arc::clone(&job.notification);
            self.jobs.remove(&id);
            let report = match fallback {
                None => Report::Delivered(notification),
                Some(reason) => Report::GaveUp { reason, told_by_fallback: Some(tried.to_string()) },
            };
            return Some((id, tried, report));
        };
        let reason = error.to_string();
        let pause = job.pauses.next().unwrap_or(self.retry.max);
        if let Some(wait) = self.retry.wait(&error, pause, now.saturating_sub(job.started)) {
            job.due = Some(now + wait);
            let doubtful = error.may_have_arrived();
            return Some((id, tried, Report::Failed { reason, doubtful }));
        }
        let given_up = match job.given_up.take() {
            None => reason,
            Some(before) => format!("{before}; {tried}: {reason}"),
        };
        let next = job.receiver.fallback.as_ref().filter(|name| !job.tried.contains(name));
        let Some(next) = next.and_then(|name| self.receivers.get(name)) else {
            self.jobs.remove(&id);
            return Some((id, tried, Report::GaveUp { reason: given_up, told_by_fallback: None }));
        };
        tracing::error!(
            receiver = &*tried,
            id,
            reason = given_up,
            fallback = &*next.name,
            "notification not delivered, the fallback is notified"
        );
        job.tried.push(Arc::clone(&next.name));
        job.receiver = next.clone();
        (job.pauses, job.started, job.given_up) = (self.retry.pauses(), now, Some(given_up));
        self.attempts.start(next, Arc::clone(&job.notification));
        None
    }
}

#[cfg(test)]
#[path = "delivery_tests.rs"]
mod tests;
