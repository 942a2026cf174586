//! One source partition that this process owns: what the epoch under way has of it.

use std::collections::BTreeSet;
use std::time::Duration;

use operators::watermark::PartitionFacts;
use points::decode::Points;

use super::epoch::Outgoing;
use crate::roles::group::{Assigned, Source};
use crate::time::nanoseconds;

pub(super) struct Owned {
    pub(super) source: Source,
    /// Messages before this were aggregated by an earlier epoch; they are read for the archive
    /// alone.
    pub(super) aggregated: i64,
    /// The next offset to read.
    pub(super) next: i64,
    /// Where the epoch under way starts.
    pub(super) from: i64,
    pub(super) points: Points,
    pub(super) archived_only: Points,
    /// Refused, on their way to the dead-letter topic.
    pub(super) dead: Vec<Outgoing>,
    pub(super) high: Option<i64>,
    pub(super) low: Option<i64>,
    /// The highest event time since it was taken over.
    newest: Option<i64>,
    /// Whether the consumer has come to the end of the log in this epoch.
    came_to_end: bool,
    /// As of the epoch before: it did, or had before and nothing came since.
    caught_up: bool,
    pub(super) messages: u64,
    /// When the last message was read.
    pub(super) last_message: Duration,
}

impl Owned {
    pub(super) fn new(assigned: &Assigned, aggregated: i64, start: i64, now: Duration) -> Self {
        Self {
            source: assigned.source(),
            aggregated,
            next: start,
            from: start,
            points: Points::default(),
            archived_only: Points::default(),
            dead: Vec::new(),
            high: None,
            low: None,
            newest: None,
            came_to_end: false,
            caught_up: false,
            messages: 0,
            last_message: now,
        }
    }

    /// A message was read.
    pub(super) fn read(&mut self, offset: i64, now: Duration) {
        self.next = offset + 1;
        self.messages += 1;
        self.last_message = now;
    }

    /// The consumer came to the end of the log.
    pub(super) fn announce_end(&mut self) {
        self.came_to_end = true;
    }

    /// [`super::ends::Ends`] decides whether it was read to its end.
    pub(super) fn facts(&self, now: Duration) -> PartitionFacts {
        PartitionFacts {
            topic: self.source.0.clone(),
            partition: self.source.1,
            from: self.from.max(self.aggregated),
            to: self.next.max(self.aggregated),
            high: self.high,
            low: self.low,
            at_end: false,
            silent: nanoseconds(now.saturating_sub(self.last_message)),
        }
    }

    /// The points of the epoch. The next one most often has as many.
    pub(super) fn take_points(&mut self) -> Points {
        let next = Points::with_capacity(self.points.len());
        std::mem::replace(&mut self.points, next)
    }

    /// What the epoch has of this partition was handed over.
    pub(super) fn close_epoch(&mut self) {
        self.newest = self.newest.max(self.high);
        self.caught_up = std::mem::take(&mut self.came_to_end) || (self.caught_up && self.messages == 0);
        self.archived_only.clear();
        self.from = self.next;
        self.high = None;
        self.low = None;
        self.messages = 0;
    }
}

/// The partitions whose event time is more than `drift`, in nanoseconds, ahead of the slowest one
/// that has unread messages. A backlog is read from each partition as fast as it comes; without
/// waiting for each other, those with little in them would be far ahead, and every window in
/// between open.
pub(super) fn ahead(partitions: &[Owned], drift: i64) -> BTreeSet<Source> {
    let slowest = partitions.iter().filter(|owned| !owned.caught_up).filter_map(|owned| owned.newest).min();
    let Some(slowest) = slowest else { return BTreeSet::new() };
    let is_ahead = |owned: &&Owned| owned.newest.is_some_and(|newest| newest.saturating_sub(slowest) > drift);
    partitions.iter().filter(is_ahead).map(|owned| owned.source.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned() -> Owned {
        let assigned = Assigned {
            topic: "points".into(),
            partition: 0,
            offset: None,
            metadata: String::new(),
            log: (0, 0),
        };
        Owned::new(&assigned, 0, 10, Duration::ZERO)
    }

    #[test]
    fn who_is_ahead_waits_for_who_has_more_to_read() {
        let mut partitions: Vec<Owned> = (0..3).map(|_| owned()).collect();
        for (number, owned) in (0..).zip(&mut partitions) {
            owned.source.1 = number;
        }
        // An epoch: how far each partition came, none without a message, and which came to their
        // ends.
        let mut epoch = |came: [Option<i64>; 3], ends: [bool; 3]| {
            for (owned, (came, end)) in partitions.iter_mut().zip(came.into_iter().zip(ends)) {
                if came.is_some() {
                    owned.read(owned.next, Duration::ZERO);
                }
                owned.high = came;
                if end {
                    owned.announce_end();
                }
                owned.close_epoch();
            }
            ahead(&partitions, 10).into_iter().map(|(_, partition)| partition).collect::<Vec<_>>()
        };
        assert_eq!(epoch([None, None, None], [false; 3]), [0; 0], "nothing is known");
        assert_eq!(epoch([Some(10), Some(20), Some(21)], [false; 3]), [2]);
        assert_eq!(epoch([Some(12), None, None], [false; 3]), [0; 0], "the slowest has come on");
        assert_eq!(epoch([Some(13), Some(30), Some(5)], [false; 3]), [1], "older points change nothing");
        assert_eq!(
            epoch([Some(14), None, None], [true, false, false]),
            [0; 0],
            "the slowest has nothing to read"
        );
        assert_eq!(epoch([None, Some(90), Some(80)], [false; 3]), [0; 0], "and nothing new came");
        assert_eq!(epoch([Some(15), None, None], [false; 3]), [1, 2], "until something does");
        assert_eq!(epoch([Some(16), None, None], [true, false, false]), [0; 0]);
    }
}
