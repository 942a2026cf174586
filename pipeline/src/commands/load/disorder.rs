//! Disorder on purpose: points leave up to a bound of event time later than they should,
//! repeatably.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

use points::book::Point;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::time::nanoseconds;

/// Delays each point by a random part of `bound`. No point leaves after one whose time is more than
/// `bound` ahead of its own. Holds the points of one `bound` of event time in memory.
#[derive(Debug)]
pub(super) struct Disorder {
    bound: i64,
    random: StdRng,
    /// By the time at which they leave, then in the order in which they came.
    waiting: BinaryHeap<Reverse<Waiting>>,
    came: u64,
    /// Everything up to this time may leave.
    released: i64,
}

/// A point and the event time at which it leaves: its own, or later.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Due {
    pub(super) at: i64,
    pub(super) point: Point,
}

/// Ordered by when it leaves, then by when it came.
#[derive(Debug)]
struct Waiting {
    due: Due,
    came: u64,
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due.at, self.came).cmp(&(other.due.at, other.came))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}

impl Disorder {
    pub(super) fn new(bound: Duration, seed: u64) -> Self {
        Self {
            bound: nanoseconds(bound),
            random: StdRng::seed_from_u64(seed),
            waiting: BinaryHeap::new(),
            came: 0,
            released: i64::MIN,
        }
    }

    /// The next point in order of time, or the end.
    pub(super) fn push(&mut self, next: Option<Point>) {
        let Some(point) = next else {
            self.released = i64::MAX;
            return;
        };
        // Nothing still to come leaves before this point's own time.
        self.released = point.time;
        let delay = if self.bound == 0 { 0 } else { self.random.random_range(0..=self.bound) };
        let due = Due { at: point.time.saturating_add(delay), point };
        self.waiting.push(Reverse(Waiting { due, came: self.came }));
        self.came += 1;
    }

    /// The next point to leave, if it is time.
    pub(super) fn pop(&mut self) -> Option<Due> {
        let Reverse(first) = self.waiting.peek()?;
        if first.due.at > self.released {
            return None;
        }
        self.waiting.pop().map(|Reverse(first)| first.due)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shuffled(times: &[i64], bound: i64, seed: u64) -> Vec<Due> {
        let mut disorder = Disorder::new(Duration::from_nanos(bound.unsigned_abs()), seed);
        let mut out = Vec::new();
        for (index, time) in times.iter().enumerate() {
            disorder.push(Some(Point { time: *time, value: index as f64, series: 0 }));
            while let Some(due) = disorder.pop() {
                out.push(due);
            }
        }
        disorder.push(None);
        while let Some(due) = disorder.pop() {
            out.push(due);
        }
        out
    }

    proptest! {
        #[test]
        fn never_beyond_the_bound(
            mut times in proptest::collection::vec(-1_000_i64..1_000, 0..200),
            bound in 0_i64..500,
            seed in any::<u64>(),
        ) {
            times.sort_unstable();
            let out = shuffled(&times, bound, seed);

            let mut highest = i64::MIN;
            for due in &out {
                prop_assert!(highest.saturating_sub(due.point.time) <= bound);
                prop_assert!((0..=bound).contains(&(due.at - due.point.time)));
                highest = highest.max(due.point.time);
            }
            prop_assert!(out.windows(2).all(|pair| pair[0].at <= pair[1].at), "they leave in order");
            let mut indices: Vec<usize> = out.iter().map(|due| due.point.value as usize).collect();
            indices.sort_unstable();
            prop_assert_eq!(indices, (0..times.len()).collect::<Vec<_>>(), "the same points");
            prop_assert_eq!(&out, &shuffled(&times, bound, seed), "the same seed, the same order");
        }
    }

    #[test]
    fn no_bound_no_disorder() {
        let times = [1, 1, 2, 3, 3, 3];
        let order: Vec<f64> = shuffled(&times, 0, 7).iter().map(|due| due.point.value).collect();
        assert_eq!(order, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    }

    #[test]
    fn a_bound_does_shuffle() {
        let times: Vec<i64> = (0..1_000).collect();
        let out = shuffled(&times, 100, 1);
        let displaced =
            out.iter().enumerate().filter(|(index, due)| due.point.value != *index as f64).count();
        assert!(displaced > 900, "{displaced} of 1,000 points moved");
    }
}
