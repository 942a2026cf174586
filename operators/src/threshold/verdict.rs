//! The verdict of a rule on one window of one group.

use serde::{Deserialize, Serialize};

/// How windows count in which a group has no row, by CloudWatch's four ways to treat missing data.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum MissingData {
    /// They have no effect: the state is kept.
    #[default]
    Keep,
    /// As if the condition were false.
    Ok,
    /// As if the condition were true.
    Alert,
    /// They do not count for the condition, and an alert of their own reports missing data.
    NoData,
}

/// Condition and recovery of a window, each true, false or null, in a byte.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub(super) struct Verdict(u8);

const TRUE: u8 = 1;
const FALSE: u8 = 2;
const OWN_RECOVERY: u8 = 1 << 4;
const MISSING: u8 = 1 << 5;
const UNKNOWN: u8 = 1 << 6;

impl Verdict {
    /// Of a group that has no row in the window.
    pub(super) const MISSING: Self = Self(MISSING);

    /// Of a window whose points are not all at hand, so that it cannot be known whether the group
    /// has a row: has no effect, also about missing data.
    pub(super) const UNKNOWN: Self = Self(UNKNOWN);

    /// Of a rule that recovers when its condition is false.
    pub(super) fn of(condition: Option<bool>) -> Self {
        Self(bits(condition) | bits(condition.map(|is_true| !is_true)) << 2)
    }

    pub(super) fn with_recovery(condition: Option<bool>, recovery: Option<bool>) -> Self {
        Self(bits(condition) | bits(recovery) << 2 | OWN_RECOVERY)
    }

    pub(super) fn condition(self) -> Option<bool> {
        truth(self.0 & 3)
    }

    pub(super) fn recovery(self) -> Option<bool> {
        truth(self.0 >> 2 & 3)
    }

    pub(super) fn has_own_recovery(self) -> bool {
        self.0 & OWN_RECOVERY != 0
    }

    pub(super) fn is_missing(self) -> bool {
        self.0 & MISSING != 0
    }

    /// The same where missing data count as something, else null.
    pub(super) fn counted(self, missing: MissingData) -> Self {
        if !self.is_missing() {
            return self;
        }
        match missing {
            MissingData::Ok => Self::of(Some(false)),
            MissingData::Alert => Self::of(Some(true)),
            MissingData::Keep | MissingData::NoData => Self::of(None),
        }
    }

    /// What the alert about missing data makes of the window.
    pub(super) fn of_absence(self) -> Self {
        Self::of((self != Self::UNKNOWN).then_some(self.is_missing()))
    }
}

fn bits(truth: Option<bool>) -> u8 {
    match truth {
        None => 0,
        Some(true) => TRUE,
        Some(false) => FALSE,
    }
}

fn truth(bits: u8) -> Option<bool> {
    match bits {
        TRUE => Some(true),
        FALSE => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn condition_and_recovery_fit_into_a_byte() {
        let truths = [None, Some(true), Some(false)];
        for condition in truths {
            let verdict = Verdict::of(condition);
            assert_eq!((verdict.condition(), verdict.has_own_recovery()), (condition, false));
            assert_eq!(verdict.recovery(), condition.map(|is_true| !is_true));
            for recovery in truths {
                let verdict = Verdict::with_recovery(condition, recovery);
                assert_eq!((verdict.condition(), verdict.recovery()), (condition, recovery));
                assert!(verdict.has_own_recovery() && !verdict.is_missing());
                assert_eq!(verdict.counted(MissingData::Alert), verdict);
            }
        }
    }

    #[test]
    fn missing_data_count_as_the_rule_says() {
        for (missing, condition, recovery) in [
            (MissingData::Keep, None, None),
            (MissingData::NoData, None, None),
            (MissingData::Ok, Some(false), Some(true)),
            (MissingData::Alert, Some(true), Some(false)),
        ] {
            let counted = Verdict::MISSING.counted(missing);
            assert_eq!((counted.condition(), counted.recovery()), (condition, recovery), "{missing:?}");
        }
        assert_eq!(Verdict::MISSING.of_absence().condition(), Some(true));
        assert_eq!(Verdict::of(None).of_absence().condition(), Some(false));
        assert_eq!(Verdict::UNKNOWN.of_absence(), Verdict::of(None));
        let counted = Verdict::UNKNOWN.counted(MissingData::Alert);
        assert_eq!((counted.condition(), counted.recovery()), (None, None));
    }
}
