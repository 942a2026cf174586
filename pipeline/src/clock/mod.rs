//! Wall time and elapsed time: the only place that asks the operating system for them.
//!
//! Event time is data and never comes from here. What does come from here is the bound on future
//! time stamps, the age of files, and silence; tests turn the hands themselves.
//!
//! The wall time of the machine is followed steadily, see [`steady`]: a clock that is set wrongly
//! for a moment decides nothing.

mod steady;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use operators::watermark::Uptime;
use uuid::Uuid;

use steady::Steady;

use crate::time::nanoseconds;

/// A clock, cheap to clone; clones show the same time.
#[derive(Debug, Clone)]
pub struct Clock {
    hands: Hands,
    /// Tells this run of the clock from all others.
    run: Arc<str>,
}

#[derive(Debug, Clone)]
enum Hands {
    System { started: Instant, steady: Arc<Mutex<Steady>> },
    Manual { now_ns: Arc<AtomicI64>, elapsed_ns: Arc<AtomicU64> },
}

/// What a [`Clock`] showed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// As [`Clock::now_ns`].
    pub(crate) wall: i64,
    /// As [`Clock::monotonic`].
    pub(crate) monotonic: Duration,
}

impl Clock {
    /// The clock of this machine.
    pub fn system() -> Self {
        Self::of(Hands::System { started: Instant::now(), steady: Arc::default() })
    }

    /// A clock that stands still until [`Clock::advance`], and begins at `now_ns` nanoseconds since
    /// the epoch.
    pub fn manual(now_ns: i64) -> Self {
        let hands = Hands::Manual {
            now_ns: Arc::new(AtomicI64::new(now_ns)),
            elapsed_ns: Arc::new(AtomicU64::new(0)),
        };
        Self::of(hands)
    }

    fn of(hands: Hands) -> Self {
        Self { hands, run: Uuid::new_v4().simple().to_string().into() }
    }

    /// Nanoseconds since the epoch, UTC. Steps, in either direction, some time after the machine's
    /// clock was set.
    pub fn now_ns(&self) -> i64 {
        self.wall().0
    }

    /// Whether the machine's clock was set a moment ago, so that nobody knows yet whether it was
    /// right before or is now.
    pub(crate) fn is_disputed(&self) -> bool {
        self.wall().1
    }

    fn wall(&self) -> (i64, bool) {
        match &self.hands {
            Hands::System { started, steady } => {
                let mut steady = steady.lock().unwrap_or_else(PoisonError::into_inner);
                // Read under the lock: the two belong together.
                let wall = steady.look(started.elapsed(), system_ns(), since_boot);
                (wall, steady.is_disputed())
            }
            Hands::Manual { now_ns, .. } => (now_ns.load(Ordering::Acquire), false),
        }
    }

    /// Time that also passes while the machine is suspended, where the system has such a clock:
    /// since some instant; never goes back.
    pub(crate) fn unbroken(&self) -> Duration {
        match &self.hands {
            Hands::System { .. } => since_boot().unwrap_or_else(|| self.monotonic()),
            Hands::Manual { .. } => self.monotonic(),
        }
    }

    /// Time since the clock was made, for those who know no other clock of this process.
    pub(crate) fn uptime(&self) -> Uptime {
        Uptime { run: self.run.to_string(), nanos: nanoseconds(self.monotonic()) }
    }

    /// Time since the clock was made; never goes back.
    pub fn monotonic(&self) -> Duration {
        match &self.hands {
            Hands::System { started, .. } => started.elapsed(),
            Hands::Manual { elapsed_ns, .. } => Duration::from_nanos(elapsed_ns.load(Ordering::Acquire)),
        }
    }

    /// Both times, for all that is worked on together.
    pub(crate) fn look(&self) -> Now {
        Now { wall: self.now_ns(), monotonic: self.monotonic() }
    }

    /// Moves a manual clock forwards; the system's clock moves by itself and ignores this.
    pub fn advance(&self, by: Duration) {
        if let Hands::Manual { now_ns, elapsed_ns } = &self.hands {
            let nanos = nanoseconds(by);
            now_ns.fetch_add(nanos, Ordering::AcqRel);
            elapsed_ns.fetch_add(nanos.unsigned_abs(), Ordering::AcqRel);
        }
    }

    /// Sets the wall time of a manual clock, as an administrator would: elapsed time does not
    /// notice.
    pub fn set(&self, to_ns: i64) {
        if let Hands::Manual { now_ns, .. } = &self.hands {
            now_ns.store(to_ns, Ordering::Release);
        }
    }
}

/// Nanoseconds since the epoch, as the machine has them.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
fn system_ns() -> i64 {
    let now = match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => nanoseconds(since),
        Err(before) => -nanoseconds(before.duration()),
    };
    now.saturating_add(set_ahead())
}

/// Time since the machine was started, in which it may have been suspended: the monotone clock of
/// Linux stands still then. None on other systems.
fn since_boot() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    let seconds: f64 = text.split_ascii_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// Names a file with how many milliseconds a process's clock is ahead of the machine's, in builds
/// for trials.
pub(crate) const TEST_CLOCK: &str = "TIDEMARK_TEST_CLOCK";

/// How far a test sets this process's clock ahead, in nanoseconds: the clock of the machine is not
/// a test's to set.
#[cfg(any(debug_assertions, feature = "set-clock"))]
fn set_ahead() -> i64 {
    use std::sync::OnceLock;
    static FILE: OnceLock<Option<std::path::PathBuf>> = OnceLock::new();
    let Some(file) = FILE.get_or_init(|| std::env::var_os(TEST_CLOCK).map(Into::into)) else {
        return 0;
    };
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.trim().parse::<i64>().unwrap_or(0).saturating_mul(1_000_000)
}

#[cfg(not(any(debug_assertions, feature = "set-clock")))]
fn set_ahead() -> i64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(1_000);
        let same = clock.clone();
        assert_eq!((clock.now_ns(), clock.monotonic()), (1_000, Duration::ZERO));
        clock.advance(Duration::from_nanos(5));
        assert_eq!((same.now_ns(), same.monotonic()), (1_005, Duration::from_nanos(5)));
        clock.set(10);
        assert_eq!((same.now_ns(), same.monotonic()), (10, Duration::from_nanos(5)));
    }

    #[test]
    fn the_system_clock_shows_this_century() {
        let clock = Clock::system();
        assert!(clock.now_ns() > 1_700_000_000_000_000_000, "after 2023");
        let first = clock.monotonic();
        assert!(clock.monotonic() >= first);
        assert!(!clock.is_disputed());
        let first = clock.unbroken();
        assert!(clock.unbroken() >= first);
    }

    #[test]
    fn clones_are_one_run_and_other_clocks_are_others() {
        let clock = Clock::system();
        let (first, second) = (clock.uptime(), clock.clone().uptime());
        assert!(first.run == second.run && first.nanos <= second.nanos);
        assert_ne!(Clock::system().uptime().run, first.run);
    }
}
