//! One source partition that this process owns: what the epoch under way has of it, and whether it was read to its end.

use std::collections::BTreeSet;
use std::time::Duration;

use operators::decode::Points;
use operators::watermark::PartitionFacts;

use super::epoch::Outgoing;
use crate::clock::nanoseconds;
use crate::group::{Assigned, Source};

pub(super) struct Owned {
    pub(super) source: Source,
    /// Messages before this were aggregated by an earlier epoch; they are read for the archive alone.
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
    end: End,
}

/// Whether a silent partition was read to its end.
#[derive(Debug, Default)]
struct End {
    reached: bool,
    /// High watermark that the consumer was asked to read up to again.
    probed: Option<i64>,
    /// The consumer came to the end since the last message and since it was asked.
    announced: bool,
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
            end: End::default(),
        }
    }

    /// A message was read.
    pub(super) fn read(&mut self, offset: i64, now: Duration) {
        self.next = offset + 1;
        self.messages += 1;
        self.last_message = now;
        self.end = End::default();
    }

    /// The consumer came to the end of the log.
    pub(super) fn announce_end(&mut self) {
        self.came_to_end = true;
        self.end.announced = true;
    }

    /// Takes in a look at the partition's high watermark, and says whether the consumer has to be asked to read from
    /// [`Owned::next`] again.
    ///
    /// Control records of transactions count in the high watermark but are never delivered. So the end counts as
    /// reached too when the consumer came to it, without a message, after it was sent back to the last message, and the
    /// high watermark is still what it was then. An announcement from before says nothing: what came since may
    /// be waiting behind other partitions' messages. With several source topics an announcement does not say which one
    /// it means, and is not used.
    pub(super) fn look(&mut self, high: i64, announcements_count: bool) -> bool {
        if high <= self.next {
            self.end.reached = true;
            return false;
        }
        let asked = self.end.probed == Some(high);
        self.end.reached = announcements_count && asked && self.end.announced;
        if !announcements_count || asked {
            return false;
        }
        self.end = End { probed: Some(high), ..End::default() };
        true
    }

    pub(super) fn facts(&self, now: Duration) -> PartitionFacts {
        PartitionFacts {
            topic: self.source.0.clone(),
            partition: self.source.1,
            from: self.from.max(self.aggregated),
            to: self.next.max(self.aggregated),
            high: self.high,
            low: self.low,
            at_end: self.end.reached,
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
        // Each report needs a look of its own.
        self.end.reached = false;
    }
}

/// The partitions whose event time is more than `drift`, in nanoseconds, ahead of the slowest one that has unread messages.
/// A backlog is read from each partition as fast as it comes; without waiting for each other, those with little in them
/// would be far ahead, and every window in between open.
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

    fn at_end(owned: &Owned) -> bool {
        owned.facts(Duration::ZERO).at_end
    }

    #[test]
    fn who_is_ahead_waits_for_who_has_more_to_read() {
        let mut partitions: Vec<Owned> = (0..3).map(|_| owned()).collect();
        for (number, owned) in (0..).zip(&mut partitions) {
            owned.source.1 = number;
        }
        // An epoch: how far each partition came, none without a message, and which came to their ends.
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

    #[test]
    fn an_announcement_from_before_the_last_record_says_nothing() {
        let mut owned = owned();
        assert!(!owned.look(10, true) && at_end(&owned));
        owned.announce_end();
        // A record more: unread data, or the end of a transaction.
        assert!(owned.look(11, true) && !at_end(&owned));
        assert!(!owned.look(11, true) && !at_end(&owned), "no answer yet");
        owned.announce_end();
        assert!(!owned.look(11, true) && at_end(&owned), "it was the end of a transaction");
        assert!(owned.look(13, true) && !at_end(&owned));
        owned.read(11, Duration::ZERO);
        assert!(owned.look(13, true) && !at_end(&owned), "a message came: there may be more");
    }

    #[test]
    fn with_several_topics_only_offsets_count() {
        let mut owned = owned();
        owned.announce_end();
        assert!(!owned.look(11, false) && !at_end(&owned));
        owned.announce_end();
        assert!(!owned.look(11, false) && !at_end(&owned));
    }
}
