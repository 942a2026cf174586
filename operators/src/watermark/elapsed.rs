//! How much time has passed along the log, by the clocks of the processes that report in it.
//!
//! No two clocks are compared, and none is believed as a whole: only the difference between two
//! reports of one process counts, by that process's own monotone clock, and at most a bound of it.
//! One process leads; its reports move the time. When another one has reported for longer than the
//! bound, by its own clock, and the leader has not, it takes the lead.
//!
//! A report may have been made long before it reached the log. But a process makes a report only
//! after the one before is in the log: what its second report after something says was so after it.
//! So time here is never ahead of the time that has passed in truth, however long reports are on
//! their way.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::EpochFacts;

/// A process's monotone clock as of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uptime {
    /// Made up at its start: the clock of one run. Names of hosts and numbers of processes come
    /// back.
    pub run: String,
    /// Nanoseconds since then.
    pub nanos: i64,
}

/// Nanoseconds that have passed since the first report. Serialisable, as a part of the snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Elapsed {
    nanos: i64,
    leader: Option<String>,
    runs: BTreeMap<String, Run>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    /// Its clock at its last report.
    clock: i64,
    /// Reports since the leader's last one.
    reports: u32,
    /// What has passed on its clock since the second of them.
    waited: i64,
    /// When it last reported.
    at: i64,
}

/// Reports of a process after which the next one was made after something that is in the log before
/// them.
pub(super) const SURELY_AFTER: u32 = 2;

/// After so many bounds without a report a run is forgotten: should it come back, its first report
/// has no effect.
const KEPT: i64 = 10;

impl Elapsed {
    pub(super) fn nanos(&self) -> i64 {
        self.nanos
    }

    /// Takes in the clock of one report. `bound`: the most that one report is believed, and how
    /// long the leader may be silent. Returns whether the report is the leader's.
    pub(super) fn observe(&mut self, facts: &EpochFacts, bound: i64) -> bool {
        let Some(Uptime { run, nanos: clock }) = uptime(facts) else { return false };
        let before = self.runs.get(&run);
        let passed = before.map_or(0, |before| clock.saturating_sub(before.clock).clamp(0, bound));
        let (reports, waited) = before.map_or((0, 0), |before| (before.reports, before.waited));
        let waited = if reports < SURELY_AFTER { 0 } else { waited.saturating_add(passed) };
        let led = self.leader.as_ref().is_none_or(|leader| *leader == run);
        let leads = led || waited > bound;
        self.nanos = self.nanos.saturating_add(match (led, leads) {
            (true, _) => passed,
            (false, true) => bound,
            (false, false) => 0,
        });
        let mut own = Run { clock, reports: reports + 1, waited, at: self.nanos };
        if leads {
            (own.reports, own.waited) = (0, 0);
            self.runs.values_mut().for_each(|other| (other.reports, other.waited) = (0, 0));
            self.leader = Some(run.clone());
        }
        self.runs.insert(run, own);
        let oldest = self.nanos.saturating_sub(bound.saturating_mul(KEPT));
        self.runs.retain(|_, run| run.at >= oldest);
        leads
    }
}

/// Releases before this one reported their wall clocks only. Those can be set, so that a difference
/// may be wrong by as much as the bound; never by more.
fn uptime(facts: &EpochFacts) -> Option<Uptime> {
    if facts.uptime.is_some() {
        return facts.uptime.clone();
    }
    let has_reported = facts.wall != i64::MIN;
    let run = || format!("wall clock of {}", facts.owner.as_deref().unwrap_or("a process"));
    has_reported.then(|| Uptime { run: run(), nanos: facts.wall })
}
