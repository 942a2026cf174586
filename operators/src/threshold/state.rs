//! The state of one rule for one group: what a window's verdict makes of it.

use super::runs::Run;
use super::verdict::Verdict;
use crate::window::Windows;
use serde::{Deserialize, Serialize};

/// Where an alert stands. Times are ends of windows, in nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    Inactive,
    /// The condition has held in every evaluated window since this one, not yet for long enough.
    Pending {
        since: i64,
    },
    /// The alert fired; the condition came to hold at `since`.
    Firing {
        since: i64,
        /// The first of the windows since which the alert would be resolved, did it not have to go
        /// on firing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recovered: Option<i64>,
    },
}

/// What a rule asks of verdicts before it fires or resolves. Times in nanoseconds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Patience {
    /// How long the condition must hold.
    pub(super) hold: i64,
    /// How long the alert must be recovered before it is resolved.
    pub(super) keep: i64,
    /// The condition holds when it is true in `m` of the last `n` windows. None: in each.
    pub(super) m_of_n: Option<(u32, u32)>,
}

/// The longest `n` of "m of n": verdicts are kept as bits.
pub(super) const MOST_WINDOWS: u32 = 64;

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct State {
    pub(super) phase: Phase,
    /// The end of the newest evaluated window. It and older ones are not evaluated again.
    pub(super) last: i64,
    /// Whether the condition was true in the last windows, the newest in the lowest bit; for "m of
    /// n" only.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) truths: u64,
}

fn is_zero(bits: &u64) -> bool {
    *bits == 0
}

/// A change to emit. `since`: when the condition came to hold.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Change {
    Pending {
        since: i64,
    },
    Fired {
        since: i64,
    },
    Resolved {
        since: i64,
    },
    /// A pending alert ended without having fired.
    Ended {
        since: i64,
    },
}

impl State {
    pub(super) fn new() -> Self {
        Self { phase: Phase::Inactive, last: i64::MIN, truths: 0 }
    }

    /// Whether a state just made would go on like this one.
    pub(super) fn is_idle(&self) -> bool {
        self.phase == Phase::Inactive && self.truths == 0
    }

    /// Evaluates the window that ends at `end`. A verdict without a condition, SQL's null, has no
    /// effect: the state is kept.
    pub(super) fn step(&mut self, verdict: Verdict, end: i64, patience: &Patience) -> Option<Change> {
        if end <= self.last {
            return None;
        }
        self.last = end;
        let (condition, recovery) = self.judge(verdict, patience);
        match self.phase {
            Phase::Firing { since, recovered } => {
                // Where both hold, the recovery is a wrong one, and firing again at once would be
                // noise.
                if condition == Some(true) || recovery == Some(false) {
                    self.phase = Phase::Firing { since, recovered: None };
                    return None;
                }
                recovery?;
                let first = recovered.unwrap_or(end);
                if end.saturating_sub(first) < patience.keep {
                    self.phase = Phase::Firing { since, recovered: Some(first) };
                    return None;
                }
                self.phase = Phase::Inactive;
                Some(Change::Resolved { since })
            }
            Phase::Pending { since } => match condition {
                None => None,
                Some(false) => {
                    self.phase = Phase::Inactive;
                    Some(Change::Ended { since })
                }
                Some(true) => self.hold(since, end, patience).then_some(Change::Fired { since }),
            },
            Phase::Inactive => {
                if condition != Some(true) {
                    return None;
                }
                let fires = self.hold(end, end, patience);
                Some(if fires { Change::Fired { since: end } } else { Change::Pending { since: end } })
            }
        }
    }

    /// Evaluates windows with one verdict that follow one another, without a look at those that
    /// cannot change anything. `changed` is called with each change and the end of its window.
    pub(super) fn step_all(
        &mut self,
        run: &Run,
        patience: &Patience,
        windows: &Windows,
        mut changed: impl FnMut(Change, i64),
    ) {
        let mut end = run.first;
        loop {
            let before = (self.phase, self.truths);
            if let Some(change) = self.step(run.verdict, end, patience) {
                changed(change, end);
            }
            if end >= run.last {
                break;
            }
            let next = windows.end_after(end);
            end = if (self.phase, self.truths) != before {
                next
            } else {
                // Time alone can change it.
                match self.due(patience).filter(|due| *due > end) {
                    Some(due) => windows.ended_by(due).clamp(next, run.last),
                    None => run.last,
                }
            };
        }
    }

    /// When the condition will have held for long enough, or the recovery.
    fn due(&self, patience: &Patience) -> Option<i64> {
        match self.phase {
            Phase::Pending { since } => Some(since.saturating_add(patience.hold)),
            Phase::Firing { recovered: Some(first), .. } => Some(first.saturating_add(patience.keep)),
            Phase::Inactive | Phase::Firing { recovered: None, .. } => None,
        }
    }

    /// The condition holds since `since`: fires, or is pending.
    fn hold(&mut self, since: i64, end: i64, patience: &Patience) -> bool {
        let fires = end.saturating_sub(since) >= patience.hold;
        self.phase = if fires { Phase::Firing { since, recovered: None } } else { Phase::Pending { since } };
        fires
    }

    /// Condition and recovery, over the last windows where the rule counts them.
    fn judge(&mut self, verdict: Verdict, patience: &Patience) -> (Option<bool>, Option<bool>) {
        let Some((m, n)) = patience.m_of_n else {
            return (verdict.condition(), verdict.recovery());
        };
        let Some(is_true) = verdict.condition() else { return (None, verdict.recovery()) };
        let kept = u64::MAX >> (u64::BITS - n.clamp(1, MOST_WINDOWS));
        self.truths = (self.truths << 1 | u64::from(is_true)) & kept;
        let holds = self.truths.count_ones() >= m;
        // A recovery of its own speaks for the window alone; else it is over when too few windows
        // are left.
        let recovery = if verdict.has_own_recovery() { verdict.recovery() } else { Some(!holds) };
        (Some(holds), recovery)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Tumble;
    use proptest::prelude::*;

    /// Each window is `end`, condition and recovery as `+`, `-` or `?`; the changes are those
    /// expected.
    fn check_with(patience: Patience, windows: &[(i64, &str)], expected: &[(i64, Change)]) {
        let truth = |symbol: u8| match symbol {
            b'+' => Some(true),
            b'-' => Some(false),
            _ => None,
        };
        let mut state = State::new();
        let mut changes = Vec::new();
        for (end, symbols) in windows {
            let symbols = symbols.as_bytes();
            let verdict = match symbols.get(1) {
                Some(recovery) => Verdict::with_recovery(truth(symbols[0]), truth(*recovery)),
                None => Verdict::of(truth(symbols[0])),
            };
            let change = state.step(verdict, *end, &patience);
            changes.extend(change.map(|change| (*end, change)));
        }
        assert_eq!(changes, expected, "{patience:?}, windows {windows:?}");
    }

    fn check(hold: i64, windows: &[(i64, &str)], expected: &[(i64, Change)]) {
        check_with(Patience { hold, ..Patience::default() }, windows, expected);
    }

    proptest! {
        /// Windows evaluated at once give the same as one by one.
        #[test]
        fn a_run_is_its_windows(
            runs in prop::collection::vec((1i64..40, 0u8..5), 1..8), hold in 0i64..60, keep in 0i64..60, size in 1i64..4,
            m_of_n in prop::option::of((1u32..4, 3u32..6)),
        ) {
            let windows = Windows::tumbling(Tumble::new(size, None).unwrap());
            let patience = Patience { hold, keep, m_of_n };
            let (mut at_once, mut singly) = (State::new(), State::new());
            let mut first = size;
            for (count, verdict) in runs {
                let verdict = match verdict {
                    0 => Verdict::of(Some(true)),
                    1 => Verdict::of(Some(false)),
                    2 => Verdict::of(None),
                    3 => Verdict::with_recovery(Some(false), Some(false)),
                    _ => Verdict::with_recovery(None, Some(true)),
                };
                let last = first + (count - 1) * size;
                let mut changes = Vec::new();
                at_once.step_all(&Run { first, last, verdict }, &patience, &windows, |change, end| changes.push((change, end)));
                let mut expected = Vec::new();
                for end in (first..=last).step_by(size as usize) {
                    expected.extend(singly.step(verdict, end, &patience).map(|change| (change, end)));
                }
                prop_assert_eq!(changes, expected);
                prop_assert_eq!(at_once, singly);
                first = last + size;
            }
        }
    }

    fn fired(since: i64) -> Change {
        Change::Fired { since }
    }

    fn resolved(since: i64) -> Change {
        Change::Resolved { since }
    }

    fn pending(since: i64) -> Change {
        Change::Pending { since }
    }

    fn ended(since: i64) -> Change {
        Change::Ended { since }
    }

    #[test]
    fn windows_to_changes() {
        // Without `for`, the first window fires.
        check(0, &[(1, "-+"), (2, "+-"), (3, "+-"), (4, "-+")], &[(2, fired(2)), (4, resolved(2))]);
        // With it, the condition has to hold.
        check(2, &[(1, "+-"), (2, "+-"), (3, "+-"), (4, "+-")], &[(1, pending(1)), (3, fired(1))]);
        check(
            2,
            &[(1, "+-"), (2, "-+"), (3, "+-"), (4, "+-"), (5, "+-")],
            &[(1, pending(1)), (2, ended(1)), (3, pending(3)), (5, fired(3))],
        );
        check(10, &[(1, "+-"), (9, "+-")], &[(1, pending(1))]);
        // Windows that are missing do not break the chain.
        check(2, &[(1, "+-"), (5, "+-")], &[(1, pending(1)), (5, fired(1))]);
        // Null keeps any state.
        check(2, &[(1, "+-"), (2, "??"), (3, "+-")], &[(1, pending(1)), (3, fired(1))]);
        check(0, &[(1, "+-"), (2, "??"), (3, "-+")], &[(1, fired(1)), (3, resolved(1))]);
        check(0, &[(1, "??")], &[]);
        // Between condition and recovery nothing changes.
        check(0, &[(1, "+-"), (2, "--"), (3, "+-"), (4, "-+")], &[(1, fired(1)), (4, resolved(1))]);
        check(0, &[(1, "--"), (2, "-+")], &[]);
        // A recovery that overlaps the condition does not flap.
        check(0, &[(1, "++"), (2, "++"), (3, "-+")], &[(1, fired(1)), (3, resolved(1))]);
        // A window is evaluated once.
        check(0, &[(2, "+-"), (2, "-+"), (1, "-+"), (3, "-+")], &[(2, fired(2)), (3, resolved(2))]);
        check(
            0,
            &[(i64::MIN + 1, "+-"), (i64::MAX, "-+")],
            &[(i64::MIN + 1, fired(i64::MIN + 1)), (i64::MAX, resolved(i64::MIN + 1))],
        );
        check(
            i64::MAX,
            &[(i64::MIN + 1, "+-"), (i64::MAX, "+-")],
            &[(i64::MIN + 1, pending(i64::MIN + 1)), (i64::MAX, fired(i64::MIN + 1))],
        );
    }

    #[test]
    fn keeps_firing_for_a_while() {
        let keep = Patience { keep: 2, ..Patience::default() };
        check_with(keep, &[(1, "+"), (2, "-"), (3, "-"), (4, "-")], &[(1, fired(1)), (4, resolved(1))]);
        // A true one in between, or one that is neither, restarts the wait; null has no effect.
        check_with(keep, &[(1, "+"), (2, "-"), (3, "+"), (4, "-"), (5, "-")], &[(1, fired(1))]);
        check_with(keep, &[(1, "+-"), (2, "-+"), (3, "--"), (4, "-+"), (5, "-+")], &[(1, fired(1))]);
        check_with(keep, &[(1, "+"), (2, "-"), (3, "?"), (4, "-")], &[(1, fired(1)), (4, resolved(1))]);
    }

    #[test]
    fn m_of_the_last_n_windows() {
        let rule = |m, n| Patience { m_of_n: Some((m, n)), ..Patience::default() };
        check_with(
            rule(2, 3),
            &[(1, "+"), (2, "-"), (3, "+"), (4, "-"), (5, "-"), (6, "+")],
            &[(3, fired(3)), (4, resolved(3))],
        );
        check_with(rule(2, 3), &[(1, "+"), (2, "?"), (3, "?"), (4, "+")], &[(4, fired(4))]);
        check_with(rule(1, 64), &[(1, "+"), (2, "-"), (3, "-")], &[(1, fired(1))]);
        // With a recovery of its own, that one ends it.
        check_with(
            rule(2, 3),
            &[(1, "+-"), (2, "+-"), (3, "--"), (4, "--"), (5, "-+")],
            &[(2, fired(2)), (5, resolved(2))],
        );
        // Together with `for`: two of three have to hold for a while.
        let both = Patience { hold: 1, m_of_n: Some((2, 3)), ..Patience::default() };
        check_with(both, &[(1, "+"), (2, "+"), (3, "-")], &[(2, pending(2)), (3, fired(2))]);
    }
}
