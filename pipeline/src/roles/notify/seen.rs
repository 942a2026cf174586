//! Transitions that were taken in: `rollup` sends some again, with the same ids, when it goes on
//! from a snapshot.

use std::collections::{HashSet, VecDeque};

use twox_hash::XxHash3_64;

/// Ids that are remembered, the latest, each by its hash: 32 MB at most. `rollup` sends again what
/// it has sent since its last snapshot, which may be hours of a storm while its sink is away.
const REMEMBERED: usize = 1_000_000;

/// Messages before the committed offset that are read again for their ids.
pub(super) const HISTORY: i64 = REMEMBERED as i64;

#[derive(Debug, Default)]
pub(super) struct Seen {
    ids: HashSet<u64>,
    oldest_first: VecDeque<u64>,
}

impl Seen {
    /// Notes an id. Returns whether it is new.
    pub(super) fn note(&mut self, id: &str) -> bool {
        let id = XxHash3_64::oneshot(id.as_bytes());
        if !self.ids.insert(id) {
            return false;
        }
        self.oldest_first.push_back(id);
        if self.oldest_first.len() > REMEMBERED
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_ids_are_remembered() {
        let mut seen = Seen::default();
        assert!(seen.note("a") && !seen.note("a"));
        for number in 0..REMEMBERED {
            assert!(seen.note(&number.to_string()));
        }
        assert!(seen.note("a"), "forgotten, for there were many since");
        assert!(!seen.note(&(REMEMBERED - 1).to_string()));
        assert_eq!(seen.ids.len(), seen.oldest_first.len());
    }
}
