//! When an epoch is large enough: at `epoch_points`, or when it would take more memory than its
//! share.
//!
//! What a point takes in the end depends on how many groups the points make, which shows only when
//! they are aggregated. So it is learned from the epochs before. The first one is as long as it may
//! be when every point makes a group of its own, each further one at most twice the one before;
//! what raises the number of groups from one epoch to the next, series never seen, is counted as it
//! comes.

use super::epoch::Size;
use crate::memory::LEAST_POINT_BYTES;

/// A state exists twice when it is divided over partitions; its message is here and in librdkafka.
const COPIES: usize = 4;

/// Of a dead letter, beside its excerpt: headers, names, what librdkafka keeps.
pub(super) const DEAD_LETTER_BYTES: usize = 1 << 10;

#[derive(Debug)]
pub(super) struct EpochBound {
    share: usize,
    most: usize,
    /// Points that an epoch may have now.
    limit: usize,
    new_series: usize,
    /// Bytes that a point took in the epochs before, with the states that it became.
    per_point: usize,
}

impl EpochBound {
    /// `share`: bytes of an epoch. `most`: points of an epoch, whatever they take. `state_bytes`:
    /// what the states of one group are in all rollups.
    pub(super) fn new(share: usize, most: usize, state_bytes: usize) -> Self {
        let new_series = COPIES * state_bytes;
        let limit = most.min(share / (LEAST_POINT_BYTES + new_series)).max(1);
        Self { share, most, limit, new_series, per_point: LEAST_POINT_BYTES }
    }

    /// Whether an epoch of so many points has to end, `new_series` of which belong to series never
    /// seen before. `waiting`: bytes that it holds besides.
    pub(super) fn is_full(&self, points: usize, new_series: usize, waiting: usize) -> bool {
        points >= self.limit || self.bytes(points, new_series) + waiting >= self.share
    }

    /// What such an epoch will take.
    pub(super) fn bytes(&self, points: usize, new_series: usize) -> usize {
        points * self.per_point + new_series * self.new_series
    }

    /// What an epoch has become.
    pub(super) fn learn(&mut self, size: Size) {
        let Size { points, states, messages } = size;
        if points == 0 {
            return;
        }
        let took = LEAST_POINT_BYTES + COPIES / 2 * (states + messages) / points;
        // More is believed at once; less only when it lasts.
        self.per_point = if took > self.per_point { took } else { (3 * self.per_point + took) / 4 };
        self.limit = self.most.min(self.limit.max(2 * points));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points of the epochs that a backlog is read in, when each point costs so much in states.
    fn epochs(bound: &mut EpochBound, states_per_point: usize, count: usize) -> Vec<usize> {
        let mut sizes = Vec::new();
        for _ in 0..count {
            let points = (1..).map(|thousands| thousands * 1_000).find(|points| bound.is_full(*points, 0, 0));
            let points = points.expect("every epoch ends");
            bound.learn(Size { points, states: points * states_per_point, messages: 0 });
            sizes.push(points);
        }
        sizes
    }

    #[test]
    fn epochs_grow_to_the_bound_in_points_when_memory_allows() {
        let mut bound = EpochBound::new(128 << 20, 1_000_000, 250);
        assert_eq!(epochs(&mut bound, 10, 4), [125_000, 250_000, 500_000, 1_000_000]);
    }

    #[test]
    fn epochs_end_early_by_bytes() {
        let share = 64 << 20;
        let mut bound = EpochBound::new(share, 1_000_000, 128);
        let sizes = epochs(&mut bound, 200, 6);
        let per_point = LEAST_POINT_BYTES + 2 * 200;
        assert!(sizes.iter().all(|points| points * per_point <= share + 1_000 * per_point), "{sizes:?}");
        assert!(sizes[5] > 100_000, "{sizes:?}");
        // Fewer groups: epochs become longer again.
        assert!(epochs(&mut bound, 1, 12)[11] > 400_000);
    }

    #[test]
    fn new_series_end_an_epoch_before_their_states_are_known() {
        let mut bound = EpochBound::new(64 << 20, 1_000_000, 4 * 128);
        epochs(&mut bound, 1, 6);
        assert!(!bound.is_full(40_000, 0, 0) && bound.is_full(40_000, 40_000, 0));
        assert!(bound.is_full(1, 0, 64 << 20), "dead letters count too");
    }
}
