//! Attempts to deliver, each on a task of its own: a slow receiver delays no other.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use futures::future::join_all;
use sinks::Notification;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::receivers::Receiver;

/// Attempts that one receiver has under way at once.
const PARALLEL: usize = 8;

/// An attempt that has ended.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Of the notification.
    pub(super) id: String,
    pub(super) result: Result<(), sinks::Error>,
}

/// To be ended with [`Attempts::stop`].
#[derive(Debug)]
pub(super) struct Attempts {
    runtime: Handle,
    turns: BTreeMap<Arc<str>, Arc<Semaphore>>,
    report: mpsc::Sender<Outcome>,
    ended: mpsc::Receiver<Outcome>,
    tasks: Vec<JoinHandle<()>>,
}

impl Attempts {
    pub(super) fn new(runtime: &Handle) -> Self {
        let (report, ended) = mpsc::channel();
        Self { runtime: runtime.clone(), turns: BTreeMap::new(), report, ended, tasks: Vec::new() }
    }

    /// Starts one, when its receiver's turn comes.
    pub(super) fn start(&mut self, receiver: &Receiver, notification: Arc<Notification>) {
        let turns = self
            .turns
            .entry(Arc::clone(&receiver.name))
            .or_insert_with(|| Arc::new(Semaphore::new(PARALLEL)));
        let (turns, sink, report) = (Arc::clone(turns), Arc::clone(&receiver.sink), self.report.clone());
        self.tasks.retain(|task| !task.is_finished());
        self.tasks.push(self.runtime.spawn(async move {
            let Ok(_turn) = turns.acquire().await else { return };
            let id = notification.id.clone();
            // A sink that panics must not leave its notification without an outcome.
            let attempt = tokio::spawn(async move {
                sink.write(notification).await?;
                sink.flush().await
            });
            let abort = AbortOnDrop(attempt.abort_handle());
            let result = attempt.await.unwrap_or_else(|error| {
                Err(sinks::Error::Config(format!("the receiver's program failed: {error}")))
            });
            drop(abort);
            // Nobody listens any more once they were stopped.
            let _ = report.send(Outcome { id, result });
        }));
    }

    /// Those that have ended since the last call. Does not wait.
    pub(super) fn ended(&self) -> Vec<Outcome> {
        self.ended.try_iter().collect()
    }

    /// Gives what is under way up to `grace`, and returns what has ended since the last call.
    /// Blocks: not to be called on a thread of the runtime.
    pub(super) fn stop(&mut self, grace: Duration) -> Vec<Outcome> {
        // Those that wait for their turn do not begin.
        self.turns.values().for_each(|turns| turns.close());
        self.turns.clear();
        let tasks = &mut self.tasks;
        self.runtime.block_on(async {
            if timeout(grace, join_all(tasks.iter_mut())).await.is_err() {
                tracing::warn!("deliveries under way are broken off, they are repeated under the same id");
                tasks.retain(|task| !task.is_finished());
                tasks.iter().for_each(JoinHandle::abort);
                join_all(tasks.iter_mut()).await;
            }
        });
        self.tasks.clear();
        self.ended()
    }
}

/// An attempt ends with the task that waits for it.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
