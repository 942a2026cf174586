//! Counters of the InfluxDB sink.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// What the sink did since it was connected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InfluxStats {
    /// Lines that are durable.
    pub lines: u64,
    /// Write requests that were answered or timed out.
    pub posts: u64,
    /// Requests that had to be repeated because the server was away, busy or refused.
    pub retries: u64,
    /// Lines that InfluxDB will never take; each went to the callback.
    pub rejected: u64,
    /// Points deleted because their rows were withdrawn.
    pub deleted: u64,
    /// Fields left out because they were NaN or infinite.
    pub non_finite: u64,
    /// Rows left out because no field was left.
    pub empty: u64,
    /// Batches under way now.
    pub in_flight: usize,
    /// What last went wrong, also when it went well since.
    pub last_error: Option<String>,
    /// Set while requests fail and are repeated.
    pub trouble: Option<Trouble>,
}

/// The server is away, busy or refuses, and what is to be written waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// How long it has lasted.
    pub since: Duration,
    /// Requests that failed in this time.
    pub failures: u64,
    /// What the last of them ended with.
    pub error: String,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    failures: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) lines: AtomicU64,
    pub(crate) posts: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) deleted: AtomicU64,
    pub(crate) non_finite: AtomicU64,
    pub(crate) empty: AtomicU64,
    pub(crate) in_flight: AtomicUsize,
    last_error: Mutex<Option<String>>,
    failing: Mutex<Option<Failing>>,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn set_last_error(&self, error: &str) {
        if let Ok(mut last) = self.last_error.lock() {
            *last = Some(error.to_owned());
        }
    }

    /// A request failed and will be repeated.
    pub(crate) fn failed(&self, error: &str) {
        self.set_last_error(error);
        if let Ok(mut failing) = self.failing.lock() {
            failing.get_or_insert_with(|| Failing { since: Instant::now(), failures: 0 }).failures += 1;
        }
    }

    /// The server answered a request with something about its lines.
    pub(crate) fn answered(&self) {
        if let Ok(mut failing) = self.failing.lock() {
            *failing = None;
        }
    }

    fn trouble(&self) -> Option<Trouble> {
        let failing = self.failing.lock().ok()?;
        let Failing { since, failures } = failing.as_ref()?;
        let error = self.last_error.lock().ok()?.clone().unwrap_or_default();
        Some(Trouble { since: since.elapsed(), failures: *failures, error })
    }

    pub(crate) fn snapshot(&self) -> InfluxStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        InfluxStats {
            lines: read(&self.lines),
            posts: read(&self.posts),
            retries: read(&self.retries),
            rejected: read(&self.rejected),
            deleted: read(&self.deleted),
            non_finite: read(&self.non_finite),
            empty: read(&self.empty),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            last_error: self.last_error.lock().ok().and_then(|last| last.clone()),
            trouble: self.trouble(),
        }
    }
}
