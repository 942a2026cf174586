//! What the watermark is made of, for people who ask why it stands where it does. Nothing is
//! decided by it.

use serde::{Deserialize, Serialize};

use super::{Source, SourceState, Watermark, WatermarkOptions};

/// A source partition as the log has it, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceView {
    pub source: Source,
    pub standing: Standing,
    /// Highest accepted event time so far.
    pub high: Option<i64>,
    /// The next offset to be covered.
    pub next_offset: Option<i64>,
    /// Nanoseconds of silence at its last report.
    pub silent: i64,
    /// Wall time of its last report, by the clock of its owner; none when there was none.
    pub reported: Option<i64>,
    /// Nanoseconds between that and the newest report of any, as far as is known.
    pub age: Option<i64>,
    /// The process that reported it last.
    pub owner: Option<String>,
}

/// What a source partition means to the watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Its newest point counts.
    Active,
    /// Read to its end and silent: it does not count.
    Idle,
    /// Holds the watermark until it gives a point or is idle.
    NoPointYet,
    /// Nobody has reported it for longer than the owner timeout: what it last gave counts.
    NoOwner,
    /// Holds the watermark until somebody reports it.
    NeverReported,
}

impl Watermark {
    /// Wall time of the newest facts.
    pub fn wall(&self) -> i64 {
        self.wall
    }

    /// Every partition of every source topic, reported or not.
    pub fn sources(&self, options: &WatermarkOptions) -> Vec<SourceView> {
        let all = self.topics.iter().flat_map(|(topic, count)| (0..*count).map(move |p| (topic.clone(), p)));
        all.map(|source| self.source(source, options)).collect()
    }

    fn source(&self, source: Source, options: &WatermarkOptions) -> SourceView {
        let state = self.sources.get(&source);
        SourceView {
            standing: state.map_or(Standing::NeverReported, |state| self.standing(state, options)),
            high: state.and_then(|state| state.high),
            next_offset: state.map(|state| state.next_offset),
            silent: state.map_or(0, |state| state.silent),
            reported: state.map(|state| state.wall),
            age: state
                .map(|state| self.elapsed.nanos().saturating_sub(state.at))
                .filter(|age| *age < i64::MAX),
            owner: state.and_then(|state| state.owner.clone()),
            source,
        }
    }

    fn standing(&self, state: &SourceState, options: &WatermarkOptions) -> Standing {
        if self.is_orphaned(state, options) {
            Standing::NoOwner
        } else if self.is_idle(state, options) {
            Standing::Idle
        } else if state.high.is_none() {
            Standing::NoPointYet
        } else {
            Standing::Active
        }
    }
}
