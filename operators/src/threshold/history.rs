//! The verdicts that late points may still change, and what a change of one does to the alert.
//!
//! A state is a fold over verdicts. Of the windows that are not final it keeps each verdict, and
//! the state before them; so when late points change one, the fold is done again, and its result is
//! compared with what was emitted before. Incidents of before and after that overlap are one and
//! the same.

use super::runs::Runs;
use super::state::{Change, Patience, Phase, State};
use super::verdict::Verdict;
use crate::window::Windows;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct History {
    /// After all verdicts.
    #[serde(flatten)]
    pub(super) state: State,
    /// Before the recent ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base: Option<State>,
    /// Of the windows that are not final.
    #[serde(default, skip_serializing_if = "Runs::is_empty")]
    recent: Runs,
    /// `since` of the pending or firing alert as it was emitted: a correction may move it, and the
    /// incident stays the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    said_since: Option<i64>,
}

/// An alert from firing to resolved, as the verdicts have it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Incident {
    since: i64,
    resolved: Option<i64>,
}

impl Incident {
    fn overlaps(&self, other: &Self) -> bool {
        let until = |incident: &Self| incident.resolved.unwrap_or(i64::MAX);
        self.since < until(other) && other.since < until(self)
    }
}

impl History {
    pub(super) fn new() -> Self {
        Self { state: State::new(), base: None, recent: Runs::default(), said_since: None }
    }

    /// Takes in the verdict of the newest window. `final_until`: windows that end by then will not
    /// change.
    pub(super) fn step(
        &mut self,
        end: i64,
        verdict: Verdict,
        patience: &Patience,
        windows: &Windows,
        final_until: i64,
    ) -> Option<Change> {
        if end <= self.state.last {
            return None;
        }
        if end > final_until {
            self.base.get_or_insert(self.state);
            self.recent.set(end, verdict, windows);
        }
        let change = self.state.step(verdict, end, patience)?;
        Some(self.emitted(change))
    }

    /// The same incident keeps its time.
    fn emitted(&mut self, change: Change) -> Change {
        match change {
            Change::Pending { since } => {
                self.said_since = Some(since);
                change
            }
            Change::Fired { since } => Change::Fired { since: *self.said_since.get_or_insert(since) },
            Change::Resolved { since } => Change::Resolved { since: self.said_since.take().unwrap_or(since) },
            Change::Ended { since } => Change::Ended { since: self.said_since.take().unwrap_or(since) },
        }
    }

    /// Makes verdicts final that cannot change any more.
    pub(super) fn settle(&mut self, final_until: i64, patience: &Patience, windows: &Windows) {
        if let Some(base) = &mut self.base {
            for run in self.recent.take_until(final_until, windows) {
                base.step_all(&run, patience, windows, |_, _| {});
            }
        }
        if self.recent.is_empty() {
            self.base = None;
        }
    }

    /// Whether a history just made would go on like this one.
    pub(super) fn is_idle(&self) -> bool {
        let none_true = || self.recent.iter().all(|run| run.verdict.condition() != Some(true));
        self.state.is_idle() && none_true()
    }

    /// Whether the window can still be corrected.
    pub(super) fn is_recent(&self, end: i64) -> bool {
        end <= self.state.last && self.base.is_some_and(|base| end > base.last)
    }

    /// What it holds besides its own size, by content: the same after a restart.
    pub(super) fn bytes(&self) -> usize {
        self.recent.bytes()
    }

    /// The group of a corrected window had no state, for it had no true verdict: its windows that
    /// are not final count as false. These end from `first` to `last`.
    pub(super) fn all_false(first: i64, last: i64) -> Self {
        let recent = Runs::of(first, last, Verdict::of(Some(false)));
        let last = if recent.is_empty() { i64::MIN } else { last };
        let state = State { last, ..State::new() };
        let base = (!recent.is_empty()).then(State::new);
        Self { state, base, recent, said_since: None }
    }

    /// `since` of the alert as it was emitted.
    pub(super) fn said_since(&self) -> Option<i64> {
        self.said_since
    }

    /// Late points changed the verdict of a window. Returns the changes to emit, the oldest first.
    pub(super) fn correct(
        &mut self,
        end: i64,
        verdict: Verdict,
        patience: &Patience,
        windows: &Windows,
    ) -> Vec<Change> {
        if !self.is_recent(end) {
            return Vec::new();
        }
        if self.recent.get(end) == Some(verdict) {
            return Vec::new();
        }
        let (_, mut before) = self.replay(patience, windows);
        if let (Some(open), Some(since)) = (before.last_mut(), self.said_since)
            && open.resolved.is_none()
        {
            open.since = since;
        }
        self.recent.set(end, verdict, windows);
        let phase = self.state.phase;
        let (state, after) = self.replay(patience, windows);
        self.state = state;
        let mut changes = difference(&before, &after);
        self.said_since = match self.state.phase {
            Phase::Inactive => None,
            Phase::Pending { since } => Some(since),
            Phase::Firing { since, .. } => {
                let still = self.said_since.filter(|_| matches!(phase, Phase::Firing { .. }));
                let reopened = changes.iter().rev().find_map(|change| match change {
                    Change::Fired { since } => Some(*since),
                    _ => None,
                });
                let since = still.or(reopened).unwrap_or(since);
                // The last change emitted is the one that holds.
                if changes.last().is_some_and(|last| *last != Change::Fired { since }) {
                    changes.push(Change::Fired { since });
                }
                Some(since)
            }
        };
        changes.extend(self.difference_of_pending(phase));
        changes
    }

    /// What has to be shown when nothing has to be notified.
    fn difference_of_pending(&self, before: Phase) -> Option<Change> {
        match (before, self.state.phase) {
            // What fired was taken back before, and may yet come true.
            (Phase::Inactive | Phase::Firing { .. }, Phase::Pending { since }) => {
                Some(Change::Pending { since })
            }
            (Phase::Pending { since }, Phase::Inactive) => Some(Change::Ended { since }),
            _ => None,
        }
    }

    fn replay(&self, patience: &Patience, windows: &Windows) -> (State, Vec<Incident>) {
        let mut state = self.base.unwrap_or(self.state);
        let mut incidents = Vec::new();
        if let Phase::Firing { since, .. } = state.phase {
            incidents.push(Incident { since, resolved: None });
        }
        for run in self.recent.iter() {
            state.step_all(run, patience, windows, |change, end| match change {
                Change::Fired { since } => incidents.push(Incident { since, resolved: None }),
                Change::Resolved { .. } => {
                    if let Some(open) = incidents.last_mut() {
                        open.resolved = Some(end);
                    }
                }
                Change::Pending { .. } | Change::Ended { .. } => {}
            });
        }
        (state, incidents)
    }
}

/// What turns the incidents that were notified into those that are true.
fn difference(before: &[Incident], after: &[Incident]) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut matched = vec![false; after.len()];
    for old in before {
        let found = (0..after.len()).find(|at| !matched[*at] && after[*at].overlaps(old));
        let Some(at) = found else {
            // It never was one.
            changes.push(Change::Resolved { since: old.since });
            continue;
        };
        matched[at] = true;
        match (old.resolved, after[at].resolved) {
            (before, after) if before == after => {}
            (_, Some(_)) => changes.push(Change::Resolved { since: old.since }),
            (_, None) => changes.push(Change::Fired { since: old.since }),
        }
    }
    for (new, _) in after.iter().zip(matched).filter(|(_, matched)| !matched) {
        changes.push(Change::Fired { since: new.since });
        if new.resolved.is_some() {
            changes.push(Change::Resolved { since: new.since });
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Tumble;
    use proptest::prelude::*;

    fn verdict(symbol: char) -> Verdict {
        match symbol {
            '+' => Verdict::of(Some(true)),
            '-' => Verdict::of(Some(false)),
            'm' => Verdict::MISSING,
            _ => Verdict::of(None),
        }
    }

    /// A window ends at each number.
    fn windows() -> Windows {
        Windows::tumbling(Tumble::new(1, None).expect("it is positive"))
    }

    fn history(patience: &Patience, verdicts: &str, final_until: i64) -> History {
        let mut history = History::new();
        for (end, symbol) in (1..).zip(verdicts.chars()) {
            history.step(end, verdict(symbol), patience, &windows(), final_until);
            history.settle(final_until, patience, &windows());
        }
        history
    }

    /// Verdicts of the windows that end at 1, 2, …; the window that is corrected; what it becomes.
    fn check(hold: i64, verdicts: &str, end: i64, to: char, expected: &[Change]) {
        let patience = Patience { hold, ..Patience::default() };
        let mut history = history(&patience, verdicts, 0);
        let changes = history.correct(end, verdict(to), &patience, &windows());
        assert_eq!(changes, expected, "{verdicts}, {end} becomes {to}");
        assert_eq!(history.correct(end, verdict(to), &patience, &windows()), [], "the same again");
    }

    #[test]
    fn corrections_say_what_changed() {
        use Change::{Ended, Fired, Pending, Resolved};
        // Fired wrongly, and still firing.
        check(0, "--+", 3, '-', &[Resolved { since: 3 }]);
        // Did not fire, and is so now.
        check(0, "---", 3, '+', &[Fired { since: 3 }]);
        // An incident that nobody was notified of, and is over.
        check(0, "---", 2, '+', &[Fired { since: 2 }, Resolved { since: 2 }]);
        // One that was notified, was over, and never was.
        check(0, "-+-", 2, '-', &[Resolved { since: 2 }]);
        // It goes on: what had resolved it did not.
        check(0, "-+-", 3, '+', &[Fired { since: 2 }]);
        // It ended earlier than was announced.
        check(0, "+++-", 3, '-', &[Resolved { since: 1 }]);
        // It began earlier: the same incident, nothing to emit.
        check(0, "-++", 1, '+', &[]);
        // The condition did not hold without a break.
        check(2, "+++", 2, '-', &[Resolved { since: 1 }, Pending { since: 3 }]);
        check(2, "++", 1, '-', &[]);
        check(2, "--", 2, '+', &[Pending { since: 2 }]);
        check(2, "-+", 2, '-', &[Ended { since: 2 }]);
        // Final windows, and those that come later, are not corrected.
        let mut history = history(&Patience::default(), "--+", 2);
        assert_eq!(history.correct(2, verdict('+'), &Patience::default(), &windows()), []);
        assert_eq!(history.correct(4, verdict('+'), &Patience::default(), &windows()), []);
    }

    #[test]
    fn an_incident_keeps_its_time_when_it_began_earlier() {
        let patience = Patience::default();
        let mut history = history(&patience, "-++", 0);
        assert_eq!(history.correct(1, verdict('+'), &patience, &windows()), []);
        assert_eq!(
            history.step(4, verdict('-'), &patience, &windows(), 0),
            Some(Change::Resolved { since: 2 })
        );
    }

    proptest! {
        /// A corrected state is the one that the right verdicts would have made, and goes on as
        /// that one.
        #[test]
        fn a_corrected_state_is_that_of_the_right_verdicts(
            verdicts in "[-+?m]{1,12}", corrections in prop::collection::vec((1i64..13, "[-+?m]"), 0..6),
            settled in 0i64..8, hold in 0i64..4, keep in 0i64..3, m in prop::option::of((1u32..4, 3u32..5)),
        ) {
            let patience = Patience { hold, keep, m_of_n: m };
            let mut history = history(&patience, &verdicts, settled);
            let mut right: Vec<char> = verdicts.chars().collect();
            let mut firing = matches!(history.state.phase, Phase::Firing { .. });
            for (end, to) in corrections {
                let to = to.chars().next().expect("one");
                if history.is_recent(end) {
                    right[end as usize - 1] = to;
                }
                for change in history.correct(end, verdict(to), &patience, &windows()) {
                    match change {
                        Change::Fired { .. } => firing = true,
                        Change::Resolved { .. } => firing = false,
                        _ => {}
                    }
                }
                prop_assert_eq!(firing, matches!(history.state.phase, Phase::Firing { .. }), "the last emitted change holds");
                let text: String = right.iter().collect();
                let expected = tests::history(&patience, &text, settled);
                prop_assert_eq!(history.state, expected.state);
                prop_assert_eq!(&history.recent, &expected.recent);
            }
        }
    }
}
