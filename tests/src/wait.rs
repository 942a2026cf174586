//! Waiting for something to become true, with a bound, and with a message worth reading when it
//! does not.

use std::thread::park_timeout;
use std::time::{Duration, Instant};

/// Calls `probe` until it gives `Ok`, at most for `timeout`.
///
/// # Panics
/// When the time is over, with `what` was waited for and the last `Err`, which says what was there
/// instead.
#[track_caller]
pub fn wait_until<T>(timeout: Duration, what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        let seen = match probe() {
            Ok(value) => return value,
            Err(seen) => seen,
        };
        if start.elapsed() >= timeout {
            panic!("waited {timeout:?} for {what}; seen last: {seen}");
        }
        // Nobody unparks this thread; a stray wake-up costs one more probe.
        park_timeout(pause);
        pause = (pause * 2).min(Duration::from_millis(25));
    }
}
