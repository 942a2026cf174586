//! The state of one rule for one group: what a window's conditions make of it.

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
    },
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct State {
    pub(super) phase: Phase,
    /// The end of the newest evaluated window. It and older ones are not evaluated again.
    pub(super) last: i64,
}

/// What somebody has to be told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Change {
    Fired { since: i64 },
    Resolved { since: i64 },
}

impl State {
    pub(super) fn new() -> Self {
        Self { phase: Phase::Inactive, last: i64::MIN }
    }

    /// Evaluates the window that ends at `end`. A condition of None, SQL's null, says nothing: the state is
    /// kept. `hold` is how long the condition must hold, in nanoseconds.
    pub(super) fn step(
        &mut self,
        condition: Option<bool>,
        recovery: Option<bool>,
        end: i64,
        hold: i64,
    ) -> Option<Change> {
        if end <= self.last {
            return None;
        }
        self.last = end;
        if let Phase::Firing { since } = self.phase {
            // Where both hold, the recovery is a wrong one, and firing again at once would be noise.
            let recovered = recovery == Some(true) && condition != Some(true);
            if !recovered {
                return None;
            }
            self.phase = Phase::Inactive;
            return Some(Change::Resolved { since });
        }
        match condition {
            None => None,
            Some(false) => {
                self.phase = Phase::Inactive;
                None
            }
            Some(true) => {
                let since = match self.phase {
                    Phase::Pending { since } => since,
                    _ => end,
                };
                if end.saturating_sub(since) >= hold {
                    self.phase = Phase::Firing { since };
                    return Some(Change::Fired { since });
                }
                self.phase = Phase::Pending { since };
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each window is `end`, condition and recovery as `+`, `-` or `?`; the changes are those expected.
    fn check(hold: i64, windows: &[(i64, &str)], expected: &[(i64, Change)]) {
        let truth = |symbol: u8| match symbol {
            b'+' => Some(true),
            b'-' => Some(false),
            _ => None,
        };
        let mut state = State::new();
        let mut changes = Vec::new();
        for (end, symbols) in windows {
            let symbols = symbols.as_bytes();
            let change = state.step(truth(symbols[0]), truth(symbols[1]), *end, hold);
            changes.extend(change.map(|change| (*end, change)));
        }
        assert_eq!(changes, expected, "hold {hold}, windows {windows:?}");
    }

    #[test]
    fn windows_to_changes() {
        use Change::{Fired, Resolved};
        let (fired, resolved) = (|since| Fired { since }, |since| Resolved { since });
        // Without `for`, the first window fires.
        check(0, &[(1, "-+"), (2, "+-"), (3, "+-"), (4, "-+")], &[(2, fired(2)), (4, resolved(2))]);
        // With it, the condition has to hold.
        check(2, &[(1, "+-"), (2, "+-"), (3, "+-"), (4, "+-")], &[(3, fired(1))]);
        check(2, &[(1, "+-"), (2, "-+"), (3, "+-"), (4, "+-"), (5, "+-")], &[(5, fired(3))]);
        check(10, &[(1, "+-"), (9, "+-")], &[]);
        // Windows that are missing do not break the chain.
        check(2, &[(1, "+-"), (5, "+-")], &[(5, fired(1))]);
        // Null keeps any state.
        check(2, &[(1, "+-"), (2, "??"), (3, "+-")], &[(3, fired(1))]);
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
        check(i64::MAX, &[(i64::MIN + 1, "+-"), (i64::MAX, "+-")], &[(i64::MAX, fired(i64::MIN + 1))]);
    }
}
