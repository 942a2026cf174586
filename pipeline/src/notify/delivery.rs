//! The queue and the task of each receiver: a slow or failing one delays no other.
//!
//! A task has a few deliveries under way at once, each of another group, so that a message which a receiver chokes on
//! holds up what follows for the same group, and nothing else. What fails in passing is tried again until
//! it succeeds, fails for good, or [`Retry::total`] is over. The queues have no bound of their own: whoever submits
//! bounds what is unsettled.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use sinks::Notification;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::message::same_group;
use super::receivers::Receiver;
use crate::error::{Error, Result};
use crate::shutdown::Shutdown;
use crate::telemetry::{DeliveryLabels, Metrics};

/// Deliveries that one receiver has under way at once.
const PARALLEL: usize = 4;

/// How a delivery that failed in passing is tried again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    /// The first pause; each further one is about twice as long.
    pub(super) min: Duration,
    /// The longest pause.
    pub(super) max: Duration,
    /// No attempt starts later than this after the first.
    pub(super) total: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { min: Duration::from_secs(1), max: Duration::from_secs(30), total: Duration::from_secs(3600) }
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

    /// How long to wait before the next attempt, when the last one failed so, `elapsed` after the first began and
    /// with `pause` next; `None`: no more.
    ///
    /// A receiver that asks for a longer pause gets it, but for one longer than the time that is left: then the
    /// last attempt is at its end.
    fn wait(self, error: &sinks::Error, pause: Duration, elapsed: Duration) -> Option<Duration> {
        let left = self.total.checked_sub(elapsed)?;
        if !error.retryable() || pause > left {
            return None;
        }
        let asked = error.retry_after().unwrap_or(Duration::ZERO);
        Some(pause.max(asked.min(left)))
    }
}

/// A notification to be delivered, and the message it came with.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) notification: Arc<Notification>,
}

/// A job that is done: the receiver was told, or never will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) receiver: Arc<str>,
    pub(super) partition: i32,
    pub(super) offset: i64,
}

/// The tasks of all receivers. To be ended with [`Deliveries::stop`].
#[derive(Debug)]
pub(super) struct Deliveries {
    runtime: Handle,
    queues: BTreeMap<Arc<str>, UnboundedSender<Job>>,
    settled: mpsc::Receiver<Settled>,
    stop: Shutdown,
    tasks: Vec<JoinHandle<()>>,
}

impl Deliveries {
    pub(super) fn start(
        runtime: &Handle,
        metrics: &Arc<Metrics>,
        receivers: &[Receiver],
        retry: Retry,
    ) -> Self {
        let stop = Shutdown::new();
        let (report, settled) = mpsc::channel();
        let mut queues = BTreeMap::new();
        let mut tasks = Vec::new();
        for receiver in receivers {
            let (queue, jobs) = unbounded_channel();
            let courier = Courier {
                receiver: receiver.clone(),
                metrics: Arc::clone(metrics),
                retry,
                stop: stop.clone(),
                report: report.clone(),
            };
            queues.insert(Arc::clone(&receiver.name), queue);
            tasks.push(runtime.spawn(courier.run(jobs)));
        }
        Self { runtime: runtime.clone(), queues, settled, stop, tasks }
    }

    /// Queues a job of a receiver, behind those of the same alert.
    ///
    /// # Errors
    /// [`Error::Stopped`] when the receiver's task is gone.
    pub(super) fn submit(&self, receiver: &str, job: Job) -> Result<()> {
        let queue = self.queues.get(receiver).ok_or(Error::Stopped("a receiver's task"))?;
        queue.send(job).map_err(|_| Error::Stopped("a receiver's task"))
    }

    /// What was settled since the last call. Does not wait.
    ///
    /// # Errors
    /// [`Error::Stopped`] when a task is gone: what it had will not be settled.
    pub(super) fn settled(&self) -> Result<Vec<Settled>> {
        if self.tasks.iter().any(JoinHandle::is_finished) {
            return Err(Error::Stopped("a receiver's task"));
        }
        Ok(self.settled.try_iter().collect())
    }

    /// Starts nothing more, gives what is under way up to `grace`, and returns what was settled since the last call.
    /// Blocks: not to be called on a thread of the runtime.
    pub(super) fn stop(mut self, grace: Duration) -> Vec<Settled> {
        self.stop.trigger();
        self.runtime.block_on(async {
            if timeout(grace, join_all(&mut self.tasks)).await.is_ok() {
                return;
            }
            tracing::warn!("deliveries under way are broken off, they are repeated under the same id");
            self.tasks.retain(|task| !task.is_finished());
            self.tasks.iter().for_each(JoinHandle::abort);
            join_all(&mut self.tasks).await;
        });
        self.settled.try_iter().collect()
    }
}

/// The task of one receiver.
struct Courier {
    receiver: Receiver,
    metrics: Arc<Metrics>,
    retry: Retry,
    stop: Shutdown,
    report: mpsc::Sender<Settled>,
}

impl Courier {
    async fn run(self, mut jobs: UnboundedReceiver<Job>) {
        let mut waiting: VecDeque<Job> = VecDeque::new();
        let mut busy: Vec<Arc<Notification>> = Vec::new();
        let mut under_way = FuturesUnordered::new();
        let mut stopped = pin!(self.stop.triggered());
        loop {
            while under_way.len() < PARALLEL && !self.stop.is_triggered() {
                // The first one, so that none overtakes another of its alert.
                let idle = |job: &Job| !busy.iter().any(|other| same_group(other, &job.notification));
                let Some(job) = waiting.iter().position(idle).and_then(|i| waiting.remove(i)) else { break };
                busy.push(Arc::clone(&job.notification));
                under_way.push(self.deliver(job));
            }
            tokio::select! {
                () = &mut stopped => break,
                Some(notification) = under_way.next() => {
                    busy.retain(|other| !Arc::ptr_eq(other, &notification));
                }
                job = jobs.recv() => match job {
                    Some(job) => waiting.push_back(job),
                    None => break,
                },
            }
        }
        // What waits is left to the next owner.
        while under_way.next().await.is_some() {}
    }

    /// Delivers, with as many attempts as it takes, and reports it. Gives up silently when asked to stop between
    /// two attempts.
    async fn deliver(&self, job: Job) -> Arc<Notification> {
        let Job { partition, offset, notification } = job;
        let started = Instant::now();
        let mut pauses = self.retry.pauses();
        loop {
            let Err(error) = self.attempt(&notification).await else {
                self.count("delivered");
                break;
            };
            let pause = pauses.next().unwrap_or(self.retry.max);
            let Some(pause) = self.retry.wait(&error, pause, started.elapsed()) else {
                self.count("failed");
                tracing::error!(
                    receiver = &*self.receiver.name,
                    group = notification.group_key,
                    id = notification.id,
                    status = %notification.status(),
                    reason = %error,
                    "notification not delivered, it will not be tried again"
                );
                break;
            };
            self.count("retried");
            tracing::warn!(
                receiver = &*self.receiver.name,
                group = notification.group_key,
                id = notification.id,
                reason = %error,
                ?pause,
                "notification not delivered, trying again"
            );
            tokio::select! {
                () = sleep(pause) => {}
                () = self.stop.triggered() => return notification,
            }
        }
        let receiver = Arc::clone(&self.receiver.name);
        // Nobody listens any more once the deliveries were stopped.
        let _ = self.report.send(Settled { receiver, partition, offset });
        notification
    }

    async fn attempt(&self, notification: &Arc<Notification>) -> Result<(), sinks::Error> {
        self.receiver.sink.write(Arc::clone(notification)).await?;
        self.receiver.sink.flush().await
    }

    fn count(&self, result: &'static str) {
        let labels = DeliveryLabels { receiver: self.receiver.name.to_string(), result };
        self.metrics.notify.deliveries.get_or_create(&labels).inc();
    }
}

#[cfg(test)]
#[path = "delivery_tests.rs"]
mod tests;
