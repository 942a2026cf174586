//! Verdicts of windows in order, windows with one verdict that follow one another as one run.
//!
//! A group that is silent for a day, or well for a day, is one run, however many windows a day has.
//! Where verdicts alternate there is a run for each row that the group has had, and the fold holds
//! a state for that row as well.

use super::verdict::Verdict;
use crate::window::Windows;
use serde::{Deserialize, Serialize};

/// Windows that follow one another and have one verdict.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(from = "Written", into = "Written")]
pub(super) struct Run {
    /// End of the first window.
    pub(super) first: i64,
    /// End of the last window.
    pub(super) last: i64,
    pub(super) verdict: Verdict,
}

/// A run in a snapshot. Former releases wrote every window.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Written {
    Windows(i64, i64, Verdict),
    Window(i64, Verdict),
}

impl From<Written> for Run {
    fn from(written: Written) -> Self {
        match written {
            Written::Windows(first, last, verdict) => Self { first, last, verdict },
            Written::Window(end, verdict) => Self { first: end, last: end, verdict },
        }
    }
}

impl From<Run> for Written {
    fn from(run: Run) -> Self {
        match run {
            Run { first, last, verdict } if first == last => Self::Window(last, verdict),
            Run { first, last, verdict } => Self::Windows(first, last, verdict),
        }
    }
}

/// Runs, the oldest first. Windows between two of them have no verdict.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub(super) struct Runs(Vec<Run>);

impl Runs {
    pub(super) fn of(first: i64, last: i64, verdict: Verdict) -> Self {
        Self(if first <= last { vec![Run { first, last, verdict }] } else { Vec::new() })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Run> {
        self.0.iter()
    }

    /// What they weigh besides their own size, by content: the same after a restart.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.0.as_slice())
    }

    pub(super) fn get(&self, end: i64) -> Option<Verdict> {
        let run = self.0.get(self.position(end))?;
        (run.first <= end).then_some(run.verdict)
    }

    /// Gives the window that ends at `end` a verdict, whether it had one or not.
    pub(super) fn set(&mut self, end: i64, verdict: Verdict, windows: &Windows) {
        let mut at = self.position(end);
        match self.0.get(at).copied() {
            Some(run) if run.first <= end => {
                if run.verdict == verdict {
                    return;
                }
                let before = (run.first < end).then(|| Run { last: windows.ended_by(end - 1), ..run });
                let after = (end < run.last).then(|| Run { first: windows.end_after(end), ..run });
                let parts = before.into_iter().chain([Run { first: end, last: end, verdict }]).chain(after);
                self.0.splice(at..=at, parts);
                at += usize::from(run.first < end);
            }
            _ => self.0.insert(at, Run { first: end, last: end, verdict }),
        }
        self.join(at + 1, windows);
        if at > 0 {
            self.join(at, windows);
        }
    }

    /// Takes out the windows that end at `until` or before, the oldest first.
    pub(super) fn take_until(&mut self, until: i64, windows: &Windows) -> Vec<Run> {
        let whole = self.0.partition_point(|run| run.last <= until);
        let mut taken: Vec<Run> = self.0.drain(..whole).collect();
        if let Some(run) = self.0.first_mut().filter(|run| run.first <= until) {
            let last = windows.ended_by(until);
            taken.push(Run { last, ..*run });
            run.first = windows.end_after(last);
        }
        taken
    }

    /// Of the run that holds the window, or else of the one after it.
    fn position(&self, end: i64) -> usize {
        self.0.partition_point(|run| run.last < end)
    }

    /// Makes the run at `at` and the one before it one, if they are.
    fn join(&mut self, at: usize, windows: &Windows) {
        let (Some(before), Some(run)) = (self.0.get(at.wrapping_sub(1)), self.0.get(at)) else { return };
        if before.verdict == run.verdict && windows.end_after(before.last) == run.first {
            self.0[at - 1].last = run.last;
            self.0.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Tumble;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// They are what a map from each window's end to its verdict is, in as few runs as there
        /// can be.
        #[test]
        fn runs_hold_what_a_map_holds(
            steps in prop::collection::vec((1i64..30, 0u8..3), 0..60), until in 0i64..40, size in 1i64..4,
        ) {
            let windows = Windows::tumbling(Tumble::new(size, None).unwrap());
            let verdicts = [Verdict::of(Some(true)), Verdict::of(Some(false)), Verdict::MISSING];
            let (mut runs, mut map) = (Runs::default(), BTreeMap::new());
            for (end, verdict) in steps {
                let (end, verdict) = (end * size, verdicts[usize::from(verdict)]);
                runs.set(end, verdict, &windows);
                map.insert(end, verdict);
                let mut fewest = 0;
                for end in (1..=30).map(|end| end * size) {
                    prop_assert_eq!(runs.get(end), map.get(&end).copied());
                    let (here, before) = (map.get(&end), map.get(&(end - size)));
                    fewest += usize::from(here.is_some() && here != before);
                }
                prop_assert_eq!(runs.iter().count(), fewest);
            }
            let text = serde_json::to_string(&runs).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Runs>(&text).unwrap(), &runs);
            let taken = Runs(runs.take_until(until, &windows));
            for end in (1..=30).map(|end| end * size) {
                let (of_taken, of_rest) = if end <= until { (map.get(&end), None) } else { (None, map.get(&end)) };
                prop_assert_eq!(taken.get(end), of_taken.copied());
                prop_assert_eq!(runs.get(end), of_rest.copied());
            }
        }
    }

    #[test]
    fn windows_of_former_releases_are_read() {
        let text = "[[60,6],[120,9],[180,300,32]]";
        let runs: Runs = serde_json::from_str(text).unwrap();
        assert_eq!(
            (runs.get(60), runs.get(120)),
            (Some(Verdict::of(Some(false))), Some(Verdict::of(Some(true))))
        );
        assert_eq!((runs.get(240), runs.get(360)), (Some(Verdict::MISSING), None));
        assert_eq!(serde_json::to_string(&runs).unwrap(), text);
    }
}
