//! Transitions that were taken in: `rollup` sends some again, with the same ids, when it goes on from a snapshot.

use std::collections::{HashSet, VecDeque};

/// Ids that are remembered, the latest: some 100 bytes each. More than `rollup` sends between two snapshots.
const REMEMBERED: usize = 100_000;

/// Messages before the committed offset that are read again for their ids.
pub(super) const HISTORY: i64 = 20_000;

#[derive(Debug, Default)]
pub(super) struct Seen {
    ids: HashSet<Box<str>>,
    oldest_first: VecDeque<Box<str>>,
}

impl Seen {
    /// Notes an id, and says whether it is new.
    pub(super) fn note(&mut self, id: &str) -> bool {
        if !self.ids.insert(id.into()) {
            return false;
        }
        self.oldest_first.push_back(id.into());
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
