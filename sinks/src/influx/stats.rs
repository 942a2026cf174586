//! Counters of the InfluxDB sink.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

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
        }
    }
}
