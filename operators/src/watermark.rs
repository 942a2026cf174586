//! Event-time progress: the watermark of a `rollup` partition, derived from the facts that travel in its log.
//!
//! The watermark says that no accepted point older than it is expected any more. It is the minimum over
//! *all* partitions of the source topics of the highest accepted event time less the disorder bound. Only a
//! partition that was read to its end and has been silent for the idle timeout stops holding it. Nothing here
//! reads a clock: wall time is what `ingest` wrote into the log, so a replay gives the same watermarks.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What one `ingest` process knows, at the end of one epoch, about the source partitions it owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochFacts {
    /// Wall time at the end of the epoch, nanoseconds since the Unix epoch.
    pub wall: i64,
    /// How many partitions each source topic has, with or without an owner.
    pub topics: BTreeMap<String, i32>,
    pub partitions: Vec<PartitionFacts>,
}

/// One source partition as its owner saw it at the end of an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionFacts {
    pub topic: String,
    pub partition: i32,
    /// Offsets that this epoch covered: `from` up to, without, `to`.
    pub from: i64,
    pub to: i64,
    /// Highest accepted event time in this epoch, none when it had no point.
    pub high: Option<i64>,
    /// Whether everything in the log had been read.
    pub at_end: bool,
    /// Nanoseconds since the owner last saw a message here.
    pub silent: i64,
}

/// How the watermark follows the facts. All in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatermarkOptions {
    /// How far a point may be behind the newest one of its partition without being late.
    pub max_out_of_orderness: i64,
    /// Silence at the end of the log after which a partition stops holding the watermark.
    pub idle_timeout: i64,
    /// How long a partition's last facts stay believable; an idle partition that nobody has reported for
    /// longer may have unread data, so it holds the watermark again.
    pub owner_timeout: i64,
}

/// A source partition's identity: topic and number.
pub type Source = (String, i32);

/// The fold over the facts. Serialisable, as a part of the snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    value: Option<i64>,
    wall: i64,
    topics: BTreeMap<String, i32>,
    #[serde(with = "as_pairs")]
    sources: BTreeMap<Source, SourceState>,
    /// Wall time and watermark when the last source became idle.
    all_idle_since: Option<(i64, i64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SourceState {
    next_offset: i64,
    high: Option<i64>,
    at_end: bool,
    silent: i64,
    wall: i64,
}

/// The partition that keeps the watermark where it is, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub source: Source,
    pub reason: HoldReason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldReason {
    /// No `ingest` process has reported it yet.
    NeverReported,
    /// It has given no point yet and has not been silent for long enough.
    NoPointYet,
    /// Its newest point is the oldest of all.
    Slowest,
    /// Nobody owns it any more: no facts for longer than the owner timeout.
    NoOwner,
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NeverReported => "no ingest process has reported it yet",
            Self::NoPointYet => "no point yet",
            Self::Slowest => "its newest point is the oldest",
            Self::NoOwner => "no ingest process reports it any more",
        })
    }
}

impl Watermark {
    /// The watermark in nanoseconds, none before every partition was heard of.
    pub fn value(&self) -> Option<i64> {
        self.value
    }

    /// The next offset to be covered of every source partition, for accounting.
    pub fn offsets(&self) -> impl Iterator<Item = (&Source, i64)> {
        self.sources.iter().map(|(source, state)| (source, state.next_offset))
    }

    /// The highest event time of all sources: no point so far is newer. None before the first point.
    pub(crate) fn newest(&self) -> Option<i64> {
        self.sources.values().filter_map(|state| state.high).max()
    }

    /// Takes in one epoch's facts and moves the watermark, never back.
    pub fn observe(&mut self, facts: &EpochFacts, options: &WatermarkOptions) -> Option<i64> {
        self.wall = self.wall.max(facts.wall);
        for (topic, count) in &facts.topics {
            let known = self.topics.entry(topic.clone()).or_insert(0);
            *known = (*known).max(*count);
        }
        for partition in &facts.partitions {
            let source = (partition.topic.clone(), partition.partition);
            let before = self.sources.get(&source);
            let state = SourceState {
                next_offset: before.map_or(partition.to, |b| b.next_offset.max(partition.to)),
                high: before.and_then(|b| b.high).max(partition.high),
                at_end: partition.at_end,
                silent: partition.silent,
                wall: facts.wall,
            };
            self.sources.insert(source, state);
        }
        self.advance(options);
        self.value
    }

    fn advance(&mut self, options: &WatermarkOptions) {
        let candidate = match self.minimum(options) {
            Minimum::Held(_) => return self.all_idle_since = None,
            Minimum::Active { time, .. } => {
                self.all_idle_since = None;
                time
            }
            // Event time goes on at the pace of the wall clock, from where it stands, so that the last
            // windows close, yet slow clocks and loads of old data are not suddenly late.
            Minimum::AllIdle => {
                let Some(value) = self.value.or_else(|| self.oldest_high(options)) else { return };
                let (wall, from) = *self.all_idle_since.get_or_insert((self.wall, value));
                from.saturating_add(self.wall.saturating_sub(wall))
            }
        };
        self.value = self.value.max(Some(candidate));
    }

    /// Which source holds the watermark now; none when all are idle.
    pub fn holder(&self, options: &WatermarkOptions) -> Option<Holder> {
        match self.minimum(options) {
            Minimum::Held(holder) | Minimum::Active { holder, .. } => Some(holder),
            Minimum::AllIdle => None,
        }
    }

    fn oldest_high(&self, options: &WatermarkOptions) -> Option<i64> {
        let highs = self.sources.values().filter_map(|state| state.high);
        highs.min().map(|high| high.saturating_sub(options.max_out_of_orderness))
    }

    fn minimum(&self, options: &WatermarkOptions) -> Minimum {
        let mut slowest: Option<(i64, Holder)> = None;
        for (topic, count) in &self.topics {
            for partition in 0..*count {
                let source = (topic.clone(), partition);
                let Some(state) = self.sources.get(&source) else {
                    return Minimum::Held(Holder { source, reason: HoldReason::NeverReported });
                };
                let orphaned = self.wall.saturating_sub(state.wall) > options.owner_timeout;
                let idle = state.at_end && state.silent >= options.idle_timeout && !orphaned;
                if idle {
                    continue;
                }
                let Some(high) = state.high else {
                    let reason = if orphaned { HoldReason::NoOwner } else { HoldReason::NoPointYet };
                    return Minimum::Held(Holder { source, reason });
                };
                let time = high.saturating_sub(options.max_out_of_orderness);
                if slowest.as_ref().is_none_or(|(oldest, _)| time < *oldest) {
                    let reason = if orphaned { HoldReason::NoOwner } else { HoldReason::Slowest };
                    slowest = Some((time, Holder { source, reason }));
                }
            }
        }
        match slowest {
            Some((time, holder)) => Minimum::Active { time, holder },
            None => Minimum::AllIdle,
        }
    }
}

enum Minimum {
    /// A source without a time of its own keeps the watermark where it is.
    Held(Holder),
    Active {
        time: i64,
        holder: Holder,
    },
    AllIdle,
}

/// JSON has no tuple keys, so the sources travel as a list of pairs.
mod as_pairs {
    use super::{BTreeMap, Source, SourceState};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        sources: &BTreeMap<Source, SourceState>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        sources.iter().collect::<Vec<_>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<Source, SourceState>, D::Error> {
        Ok(Vec::<(Source, SourceState)>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OPTIONS: WatermarkOptions =
        WatermarkOptions { max_out_of_orderness: 5, idle_timeout: 60, owner_timeout: 30 };

    fn fact(partition: i32, high: Option<i64>, at_end: bool, silent: i64) -> PartitionFacts {
        PartitionFacts { topic: "points".into(), partition, from: 0, to: 1, high, at_end, silent }
    }

    fn epoch(wall: i64, count: i32, partitions: Vec<PartitionFacts>) -> EpochFacts {
        EpochFacts { wall, topics: BTreeMap::from([("points".into(), count)]), partitions }
    }

    /// Folds the epochs and returns the watermark after each.
    fn check(epochs: &[EpochFacts], expected: &[Option<i64>]) -> Watermark {
        let mut watermark = Watermark::default();
        let found: Vec<_> = epochs.iter().map(|facts| watermark.observe(facts, &OPTIONS)).collect();
        assert_eq!(found, expected);
        watermark
    }

    #[test]
    fn minimum_over_all_partitions_and_never_back() {
        let watermark = check(
            &[
                epoch(0, 2, vec![fact(0, Some(100), false, 0)]),
                epoch(1, 2, vec![fact(1, Some(50), false, 0)]),
                epoch(2, 2, vec![fact(1, Some(200), false, 0)]),
                epoch(3, 2, vec![fact(0, Some(90), false, 0)]),
                epoch(4, 2, vec![fact(0, Some(300), false, 0), fact(1, None, false, 1)]),
            ],
            &[None, Some(45), Some(95), Some(95), Some(195)],
        );
        let holder = watermark.holder(&OPTIONS).unwrap();
        assert_eq!((holder.source.1, holder.reason), (1, HoldReason::Slowest));
    }

    #[test]
    fn unread_data_is_never_idle() {
        check(
            &[
                epoch(0, 2, vec![fact(0, Some(100), true, 0), fact(1, Some(50), false, 1_000)]),
                epoch(1, 2, vec![fact(0, Some(200), true, 0), fact(1, None, false, 2_000)]),
                epoch(2, 2, vec![fact(0, Some(200), true, 0), fact(1, None, true, 2_000)]),
            ],
            &[Some(45), Some(45), Some(195)],
        );
    }

    #[test]
    fn a_partition_without_an_owner_holds_even_when_it_was_idle() {
        let watermark = check(
            &[
                epoch(0, 2, vec![fact(0, Some(100), false, 0), fact(1, None, true, 60)]),
                epoch(20, 2, vec![fact(0, Some(120), false, 0)]),
                epoch(60, 2, vec![fact(0, Some(160), false, 0)]),
                epoch(61, 2, vec![fact(1, None, true, 60)]),
            ],
            &[Some(95), Some(115), Some(115), Some(155)],
        );
        assert!(watermark.holder(&OPTIONS).is_some());
    }

    #[test]
    fn when_all_are_idle_event_time_keeps_the_pace_of_the_wall_clock() {
        check(
            &[
                epoch(1_000, 1, vec![fact(0, Some(100), true, 0)]),
                epoch(1_070, 1, vec![fact(0, None, true, 70)]),
                epoch(1_080, 1, vec![fact(0, None, true, 80)]),
                epoch(1_090, 1, vec![fact(0, Some(101), true, 0)]),
                epoch(1_091, 1, vec![fact(0, Some(300), true, 0)]),
            ],
            &[Some(95), Some(95), Some(105), Some(105), Some(295)],
        );
    }

    #[test]
    fn survives_a_snapshot() {
        let watermark = check(&[epoch(0, 1, vec![fact(0, Some(100), true, 0)])], &[Some(95)]);
        let text = serde_json::to_string(&watermark).unwrap();
        assert_eq!(serde_json::from_str::<Watermark>(&text).unwrap(), watermark);
    }

    proptest! {
        #[test]
        fn never_goes_back(
            steps in prop::collection::vec((0i32..3, prop::option::of(0i64..1_000), any::<bool>(), 0i64..200, 0i64..50), 1..60),
        ) {
            let mut watermark = Watermark::default();
            let mut wall = 0;
            let mut last = None;
            for (partition, high, at_end, silent, pause) in steps {
                wall += pause;
                let value = watermark.observe(&epoch(wall, 3, vec![fact(partition, high, at_end, silent)]), &OPTIONS);
                prop_assert!(value >= last, "{value:?} after {last:?}");
                last = value;
            }
        }
    }
}
