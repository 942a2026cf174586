//! What a connection waits for, since when, and until when it may.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// The parts of a conversation. Each may take the configured time, and a client cannot make it
/// longer by sending or reading a byte now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The client has the next word: the head of its first or next request.
    Waiting,
    /// The request is being answered; its body may still be on its way.
    Working,
    /// The client takes the answer.
    Answering,
}

/// The pace of one connection.
#[derive(Debug)]
pub(super) struct Pace {
    patience: Duration,
    now: Mutex<(Phase, Instant)>,
    /// Its place is needed for another connection.
    evicted: Notify,
}

impl Pace {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, now: Mutex::new((Phase::Waiting, Instant::now())), evicted: Notify::new() }
    }

    pub(super) fn working(&self) {
        *self.lock() = (Phase::Working, Instant::now());
    }

    pub(super) fn answering(&self) {
        *self.lock() = (Phase::Answering, Instant::now());
    }

    pub(super) fn waiting(&self) {
        *self.lock() = (Phase::Waiting, Instant::now());
    }

    /// Whether no request is under way.
    pub(super) fn is_waiting(&self) -> bool {
        self.lock().0 == Phase::Waiting
    }

    /// Since when the client has had the word. `None` while the server has it: such a connection
    /// keeps its place.
    pub(super) fn client_has_the_word_since(&self) -> Option<Instant> {
        let (phase, since) = *self.lock();
        (phase != Phase::Working).then_some(since)
    }

    pub(super) fn evict(&self) {
        self.evicted.notify_one();
    }

    /// Completes when the connection has to be closed.
    pub(super) async fn over(&self) {
        tokio::select! {
            () = self.evicted.notified() => {}
            () = self.too_slow() => {}
        }
    }

    async fn too_slow(&self) {
        loop {
            let (phase, since) = *self.lock();
            // The answer "timed out" leaves after the whole time of a request, and must come before
            // the end.
            let patience = if phase == Phase::Working { 2 * self.patience } else { self.patience };
            let end = since + patience;
            if end <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, (Phase, Instant)> {
        // No code panics while it holds the lock.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
