//! Whether this process has been running without a gap.
//!
//! A frozen process (a suspended machine, swapping, SIGSTOP) does not know that its group has given
//! its partitions to another one, and goes on where it stood: with a request that the new owner's
//! writes have overtaken. Kafka fences transactions and commits, but no store fences requests. So
//! whatever writes to one asks the lease first: it ends for good when the process was silent for so
//! long that the group may have given it up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use crate::clock::Clock;
use crate::error::{Error, Result};

const TICK: Duration = Duration::from_millis(250);

/// One session's lease. Cheap to clone; it is watched for as long as one is there.
#[derive(Debug, Clone)]
pub(crate) struct Lease(Arc<State>);

#[derive(Debug)]
struct State {
    clock: Clock,
    longest_gap: u64,
    /// Nanoseconds on the clock when the process was last seen running.
    seen: AtomicU64,
    expired: AtomicBool,
}

impl Lease {
    /// Starts to watch, on a thread of its own that freezes with the process. A member that was
    /// silent for less than half of `session_timeout` is still one: heartbeats are many times as
    /// frequent.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(crate) fn start(clock: &Clock, session_timeout: Duration) -> Result<Self> {
        let lease = Self::new(clock, session_timeout / 2);
        let watched = Arc::downgrade(&lease.0);
        thread::Builder::new()
            .name("lease".into())
            .spawn(move || watch(&watched))
            .map_err(|_| Error::Interrupted("the lease's thread cannot be started"))?;
        Ok(lease)
    }

    fn new(clock: &Clock, longest_gap: Duration) -> Self {
        Self(Arc::new(State {
            clock: clock.clone(),
            longest_gap: nanoseconds(longest_gap),
            seen: AtomicU64::new(nanoseconds(clock.unbroken())),
            expired: AtomicBool::new(false),
        }))
    }

    /// Whether stores may still be written to.
    pub(crate) fn holds(&self) -> bool {
        self.0.look(false)
    }

    /// # Errors
    /// When the lease has ended: the session has to end too, and start again from the committed
    /// offsets.
    pub(crate) fn check(&self) -> Result<()> {
        if self.holds() {
            return Ok(());
        }
        Err(Error::Interrupted("the process was frozen for longer than its group waits for a member"))
    }
}

impl State {
    fn look(&self, running: bool) -> bool {
        // A machine that was suspended has not seen its monotone clock move.
        let now = nanoseconds(self.clock.unbroken());
        let gap = now.saturating_sub(self.seen.load(Ordering::Acquire));
        if gap >= self.longest_gap {
            self.expired.store(true, Ordering::Release);
        }
        if running {
            self.seen.store(now, Ordering::Release);
        }
        !self.expired.load(Ordering::Acquire)
    }
}

fn watch(state: &Weak<State>) {
    while let Some(state) = state.upgrade() {
        state.look(true);
        drop(state);
        thread::park_timeout(TICK);
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_for_good_after_a_gap_whoever_looks_first() {
        let gap = Duration::from_secs(15);
        for running_first in [true, false] {
            let clock = Clock::manual(0);
            let lease = Lease::new(&clock, gap);
            for _ in 0..100 {
                clock.advance(gap / 2);
                lease.0.look(true);
                assert!(lease.holds());
            }
            clock.advance(gap);
            if running_first {
                lease.0.look(true);
            }
            assert!(!lease.holds());
            lease.0.look(true);
            assert!(lease.check().is_err(), "running again does not bring it back");
        }
    }
}
