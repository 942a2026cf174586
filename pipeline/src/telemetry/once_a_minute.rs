//! One log line a minute for each cause: what happens a thousand times a second is logged once,
//! with a count.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const PAUSE: Duration = Duration::from_secs(60);
/// Causes that are remembered. Beyond them the oldest is forgotten, and logged again when it comes
/// back.
const CAUSES: usize = 1_000;

/// Decides when a cause may be logged again.
#[derive(Debug, Default)]
pub(crate) struct OnceAMinute {
    causes: Mutex<HashMap<String, Cause>>,
}

#[derive(Debug)]
struct Cause {
    logged: Duration,
    held_back: u64,
}

impl OnceAMinute {
    /// Whether `key` may be logged at `now`, on a clock that never goes back: if so, how many times
    /// it was held back since the last line.
    pub(crate) fn take(&self, key: &str, now: Duration) -> Option<u64> {
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cause) = causes.get_mut(key) {
            if now.saturating_sub(cause.logged) < PAUSE {
                cause.held_back += 1;
                return None;
            }
            cause.logged = now;
            return Some(std::mem::take(&mut cause.held_back));
        }
        if causes.len() >= CAUSES
            && let Some(oldest) =
                causes.iter().min_by_key(|(_, cause)| cause.logged).map(|(key, _)| key.clone())
        {
            causes.remove(&oldest);
        }
        causes.insert(key.to_owned(), Cause { logged: now, held_back: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_said_once_a_minute_and_counted_meanwhile() {
        let once = OnceAMinute::default();
        let at = Duration::from_secs;
        assert_eq!(once.take("a", at(5)), Some(0));
        assert_eq!(once.take("a", at(6)), None);
        assert_eq!(once.take("b", at(7)), Some(0));
        assert_eq!(once.take("a", at(64)), None);
        assert_eq!(once.take("a", at(65)), Some(2));
        assert_eq!(once.take("a", at(200)), Some(0));
    }

    #[test]
    fn causes_are_bounded() {
        let once = OnceAMinute::default();
        for cause in 0..2 * CAUSES as u64 {
            assert_eq!(once.take(&cause.to_string(), Duration::from_millis(cause)), Some(0));
        }
        assert_eq!(once.causes.lock().unwrap().len(), CAUSES);
    }
}
