//! Wall time that goes on at the pace of a clock that nobody sets, and follows the machine's clock
//! when that stays where it is.
//!
//! A machine's clock may be set an hour ahead and back within seconds: by a daemon that starts
//! before it knows the time, by a host that resumes a virtual machine. Points that are judged by it
//! meanwhile would be refused, or accepted and make all others late. So a step counts only when it
//! has held for a while. Until then the time is disputed, and who can waits.

use std::time::Duration;

use super::nanoseconds;

/// Differences up to this are followed at once: a clock that is corrected as it should be never
/// steps.
const SLEW: i64 = 500_000_000;
/// How long a step has to hold.
const HOLDS: Duration = Duration::from_secs(10);
/// A clock that is set again and again is followed after this, wherever it is: waiting longer would
/// help nobody.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Steady {
    /// Wall time at the start of the other clock, none before the first look.
    base: Option<i64>,
    dispute: Option<Dispute>,
    /// How long the machine has been up when the monotone clock started, and suspended since.
    before: Option<Duration>,
    suspended: Duration,
}

/// The machine's clock shows something else.
#[derive(Debug, Clone, Copy)]
struct Dispute {
    began: Duration,
    /// Where it is, as `base`, and since when.
    base: i64,
    since: Duration,
}

impl Steady {
    /// The wall time, when the monotone clock and the machine's clock show this. The monotone clock
    /// stands still while the machine is suspended; `since_boot` knows more, and is asked only when
    /// the two differ.
    pub(super) fn look(
        &mut self,
        monotonic: Duration,
        system: i64,
        since_boot: impl FnOnce() -> Option<Duration>,
    ) -> i64 {
        let shown = system.saturating_sub(nanoseconds(monotonic + self.suspended));
        let differ = self.base.is_none_or(|base| !is_near(shown, base));
        if differ && let Some(boot) = since_boot() {
            // Until its start the process was not there to be suspended.
            let beyond = boot.saturating_sub(monotonic);
            let before = *self.before.get_or_insert(beyond);
            self.suspended = beyond.saturating_sub(before).max(self.suspended);
        }
        let passed = monotonic + self.suspended;
        let shown = system.saturating_sub(nanoseconds(passed));
        let base = self.follow(passed, shown);
        self.base = Some(base);
        base.saturating_add(nanoseconds(passed))
    }

    pub(super) fn is_disputed(&self) -> bool {
        self.dispute.is_some()
    }

    fn follow(&mut self, now: Duration, shown: i64) -> i64 {
        let Some(base) = self.base else { return shown };
        if is_near(shown, base) {
            self.dispute = None;
            return shown;
        }
        let ahead_ms = shown.saturating_sub(base) / 1_000_000;
        let dispute = match self.dispute {
            Some(dispute) if is_near(shown, dispute.base) => dispute,
            Some(dispute) => Dispute { base: shown, since: now, ..dispute },
            None => {
                tracing::warn!(
                    ahead_ms,
                    "the machine's clock was set, it is followed when it stays there for 10s"
                );
                Dispute { began: now, base: shown, since: now }
            }
        };
        let holds = now.saturating_sub(dispute.since) >= HOLDS;
        if holds || now.saturating_sub(dispute.began) >= PATIENCE {
            tracing::warn!(ahead_ms, "the machine's clock is followed to where it was set");
            self.dispute = None;
            return shown;
        }
        self.dispute = Some(dispute);
        base
    }
}

fn is_near(one: i64, other: i64) -> bool {
    one.abs_diff(other) <= SLEW.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const START: i64 = 1_700_000_000 * SECOND;

    /// What is shown, in seconds after the start, when the machine's clock is so far ahead at each
    /// second.
    fn shown(ahead: impl IntoIterator<Item = i64>) -> Vec<(i64, bool)> {
        let mut steady = Steady::default();
        let looks = (0..).zip(ahead).map(|(second, ahead)| {
            let wall =
                steady.look(Duration::from_secs(second), START + (second as i64 + ahead) * SECOND, || None);
            ((wall - START) / SECOND, steady.is_disputed())
        });
        looks.collect()
    }

    #[test]
    fn a_step_of_two_seconds_is_not_followed() {
        for hour in [3_600, -3_600] {
            let found = shown([0, 0, hour, hour, 0, 0]);
            let expected = [(0, false), (1, false), (2, true), (3, true), (4, false), (5, false)];
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_step_that_holds_is_followed() {
        let found = shown([0, 0].into_iter().chain([3_600; 12]));
        assert_eq!(found[11], (11, true));
        assert_eq!(found[12..], [(3_612, false), (3_613, false)]);
    }

    #[test]
    fn a_clock_that_is_set_again_and_again_is_followed_in_the_end() {
        let found = shown((0..70).map(|second| if second == 0 { 0 } else { 100 * second }));
        assert_eq!(found[60], (60, true));
        assert!(found[61].0 > 6_000 && !found[61].1, "{:?}", found[61]);
    }

    #[test]
    fn what_is_slewed_is_followed_at_once() {
        let mut steady = Steady::default();
        for second in 0..100 {
            let system = START + second * SECOND + second * SECOND / 10;
            let wall = steady.look(Duration::from_secs(second.unsigned_abs()), system, || None);
            assert_eq!((wall, steady.is_disputed()), (system, false));
        }
    }

    #[test]
    fn a_machine_that_was_suspended_has_not_set_its_clock() {
        let mut steady = Steady::default();
        let up = Duration::from_secs(5_000);
        for (second, slept) in [(0, 0), (1, 0), (2, 7_200), (3, 7_200), (4, 7_205)] {
            let system = START + (second + slept) * SECOND;
            let monotonic = Duration::from_secs(second.unsigned_abs());
            let boot = up + monotonic + Duration::from_secs(slept.unsigned_abs());
            assert_eq!(steady.look(monotonic, system, || Some(boot)), system);
            assert!(!steady.is_disputed());
        }
        // And then somebody sets it.
        let boot = up + Duration::from_secs(5 + 7_205);
        let wall = steady.look(Duration::from_secs(5), START, || Some(boot));
        assert_eq!((wall, steady.is_disputed()), (START + (5 + 7_205) * SECOND, true));
    }

    proptest! {
        /// Steps that never hold: the time shown is that of the other clock.
        #[test]
        fn steps_that_do_not_hold_decide_nothing(
            steps in prop::collection::vec((1usize..9, -4_000i64..4_000, 1usize..30), 1..20),
        ) {
            let mut ahead = vec![0];
            for (lasts, by, quiet) in steps {
                ahead.extend(std::iter::repeat_n(by, lasts).chain(std::iter::repeat_n(0, quiet)));
            }
            for (second, (wall, _)) in (0..).zip(shown(ahead)) {
                prop_assert_eq!(wall, second);
            }
        }
    }
}
