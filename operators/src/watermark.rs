//! Event-time progress: the watermark of a `rollup` partition, derived from the facts that travel
//! in its log.
//!
//! No accepted point older than the watermark is expected any more. It is the minimum over *all*
//! partitions of the source topics of the highest accepted event time less the disorder bound. Only
//! a partition that was read to its end and has been silent for the idle timeout stops holding it.
//! Nothing here reads a clock: time is what has passed between the reports in the log, see
//! [`elapsed`], so a replay gives the same watermarks, and a clock that is wrong or set moves none
//! of them.
//!
//! With several `ingest` processes, the report that a partition is idle may be older than the
//! points that another one reports before it in the log: what was sent together with those points
//! may still be unread. So an idle partition lets the watermark go only as far as the others had
//! come at its owner's report before the last: of that, the last one's look at the end of the log
//! is certainly later. It costs an epoch or two, and no clock is compared with another.

mod elapsed;
mod view;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use elapsed::Uptime;
use elapsed::{Elapsed, SURELY_AFTER};
pub use view::{SourceView, Standing};

/// What one `ingest` process knows, at the end of one epoch, about the source partitions it owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochFacts {
    /// Wall time at the end of the epoch, nanoseconds since the Unix epoch, for people: nothing is
    /// decided by it.
    pub wall: i64,
    /// The reporting process's monotone clock at the end of the epoch. Releases before this one did
    /// not write it.
    #[serde(default)]
    pub uptime: Option<Uptime>,
    /// How many partitions each source topic has, with or without an owner.
    pub topics: BTreeMap<String, i32>,
    pub partitions: Vec<PartitionFacts>,
    /// The process that reports, for people: nothing is decided by it.
    pub owner: Option<String>,
}

impl EpochFacts {
    /// Event time of the newest point that the epoch accepted.
    pub fn newest(&self) -> Option<i64> {
        self.partitions.iter().filter_map(|partition| partition.high).max()
    }

    /// Empty facts.
    pub fn nothing() -> Self {
        Self { wall: i64::MIN, uptime: None, topics: BTreeMap::new(), partitions: Vec::new(), owner: None }
    }
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
    /// Lowest accepted event time in this epoch: tells whose points corrected a window, and moves
    /// nothing.
    pub low: Option<i64>,
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
    /// How long a partition's last facts stay believable, by the clocks of the processes that go on
    /// reporting; an idle partition that nobody has reported for longer may have unread data, so it
    /// holds the watermark again. No single report is believed to tell of more than this.
    pub owner_timeout: i64,
}

/// A source partition's identity: topic and number.
pub type Source = (String, i32);

/// The fold over the facts. Serialisable, as a part of the snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    value: Option<i64>,
    /// Of the last facts, for people.
    wall: i64,
    /// Snapshots of releases before this one lack it.
    #[serde(default)]
    elapsed: Elapsed,
    topics: BTreeMap<String, i32>,
    /// When a process last named all of the partitions of each topic that are known.
    #[serde(default)]
    named: BTreeMap<String, i64>,
    #[serde(with = "as_pairs")]
    sources: BTreeMap<Source, SourceState>,
    /// How far the sources that are not idle have come, or all of them when all are idle. Unlike
    /// the watermark it may go back: when an idle source turns out to have older points.
    target: Option<i64>,
    #[serde(default)]
    idle_since: Option<IdleSince>,
}

/// From when on, and from which target, all sources are idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct IdleSince {
    /// Of the process that moves the time, since the last source became idle: what passed before
    /// was not idle.
    reports: u32,
    time: i64,
    target: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SourceState {
    next_offset: i64,
    high: Option<i64>,
    at_end: bool,
    silent: i64,
    wall: i64,
    /// When it was last reported. Of a snapshot that lacks it: long ago.
    #[serde(default = "long_ago")]
    at: i64,
    owner: Option<String>,
    /// The target when the source was last reported.
    seen: Option<i64>,
    /// The target when it was reported before that. An owner sends a report only after its report
    /// before is in the log, and looks for the end of the partition in between: whatever led to
    /// this target had been read from Kafka before that look, so nothing that was there with it is
    /// unread.
    confirmed: Option<i64>,
}

/// The partition that keeps the watermark where it is, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub source: Source,
    pub reason: HoldReason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

    /// The highest event time of all sources: no point so far is newer. None before the first
    /// point.
    pub(crate) fn newest(&self) -> Option<i64> {
        self.sources.values().filter_map(|state| state.high).max()
    }

    /// Takes in one epoch's facts and moves the watermark, never back.
    pub fn observe(&mut self, facts: &EpochFacts, options: &WatermarkOptions) -> Option<i64> {
        if facts.wall != i64::MIN {
            self.wall = facts.wall;
        }
        let leads = self.elapsed.observe(facts, options.owner_timeout);
        self.observe_topics(&facts.topics, options);
        for partition in &facts.partitions {
            let source = (partition.topic.clone(), partition.partition);
            let before = self.sources.get(&source);
            let state = SourceState {
                next_offset: before.map_or(partition.to, |b| b.next_offset.max(partition.to)),
                high: before.and_then(|b| b.high).max(partition.high),
                at_end: partition.at_end,
                silent: partition.silent,
                wall: facts.wall,
                at: self.elapsed.nanos(),
                owner: facts.owner.clone(),
                seen: None,
                confirmed: before.and_then(|b| b.seen),
            };
            self.sources.insert(source, state);
        }
        self.target = self.next_target(leads, options);
        for partition in &facts.partitions {
            let source = (partition.topic.clone(), partition.partition);
            if let Some(state) = self.sources.get_mut(&source) {
                state.seen = self.target;
            }
        }
        // None is less than any time: an idle source that was not confirmed yet keeps the watermark
        // where it is.
        let idle = self.sources.values().filter(|state| self.is_idle(state, options));
        let confirmed = idle.map(|state| state.confirmed).min();
        self.value = self.value.max(confirmed.map_or(self.target, |confirmed| confirmed.min(self.target)));
        self.value
    }

    /// Takes in how many partitions each source topic has. Partitions are added at once. Those that
    /// no process has named for the owner timeout are gone: their topic was taken out of the
    /// configuration, or made again with fewer. Until then a process that was started before the
    /// change may name them.
    fn observe_topics(&mut self, topics: &BTreeMap<String, i32>, options: &WatermarkOptions) {
        if topics.is_empty() {
            return;
        }
        let now = self.elapsed.nanos();
        for (topic, count) in topics {
            let known = self.topics.entry(topic.clone()).or_insert(0);
            if count >= known {
                *known = *count;
                self.named.insert(topic.clone(), now);
            }
        }
        let (named, sources) = (&mut self.named, &mut self.sources);
        self.topics.retain(|topic, known| {
            let since = *named.entry(topic.clone()).or_insert(now);
            if now.saturating_sub(since) > options.owner_timeout {
                *known = topics.get(topic).copied().unwrap_or(0);
                named.insert(topic.clone(), now);
                sources.retain(|(other, partition), _| other != topic || partition < known);
            }
            *known > 0
        });
        let topics = &self.topics;
        named.retain(|topic, _| topics.contains_key(topic));
    }

    fn next_target(&mut self, leads: bool, options: &WatermarkOptions) -> Option<i64> {
        match self.minimum(options) {
            Minimum::Held(_) => {
                self.idle_since = None;
                None
            }
            Minimum::Active { time, .. } => {
                self.idle_since = None;
                Some(time)
            }
            // Event time goes on at the pace of time itself, from where it stands, so that the last
            // windows close, yet slow clocks and loads of old data are not suddenly late.
            Minimum::AllIdle => {
                let reached = self.value.max(self.target).or_else(|| self.oldest_high(options))?;
                let now = self.elapsed.nanos();
                let idle =
                    self.idle_since.get_or_insert(IdleSince { reports: 0, time: now, target: reached });
                if idle.reports < SURELY_AFTER {
                    idle.time = now;
                    idle.reports += u32::from(leads);
                }
                Some(idle.target.saturating_add(now.saturating_sub(idle.time)))
            }
        }
    }

    fn is_orphaned(&self, state: &SourceState, options: &WatermarkOptions) -> bool {
        self.elapsed.nanos().saturating_sub(state.at) > options.owner_timeout
    }

    fn is_idle(&self, state: &SourceState, options: &WatermarkOptions) -> bool {
        state.at_end && state.silent >= options.idle_timeout && !self.is_orphaned(state, options)
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
                if self.is_idle(state, options) {
                    continue;
                }
                let orphaned = self.is_orphaned(state, options);
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

fn long_ago() -> i64 {
    i64::MIN
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
#[path = "watermark_tests.rs"]
mod tests;
