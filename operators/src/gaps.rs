//! Windows of one tier that the stream cannot give whole, because states of theirs are missing.
//!
//! Nothing that is missing has an event time later than the newest known by then. So the windows
//! concerned are those from the oldest that was not final up to the newest that starts by that
//! time: a *gap*, in which no window is given out. All windows after it are whole.

use serde::{Deserialize, Serialize};

use crate::window::Windows;

/// Windows by their starts, from `from` up to, without, `to`. All times are nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// `i64::MIN` when there is no oldest window, as none was final yet.
    pub from: i64,
    pub to: i64,
    /// Windows that end by then may have been given out, whole, from the states that are missing
    /// now.
    pub written: Option<i64>,
    /// What was given out may have fields that the rollup no longer has.
    pub other_fields: bool,
}

impl Gap {
    pub(crate) fn holds(&self, start: i64) -> bool {
        (self.from..self.to).contains(&start)
    }

    /// End of the last window.
    pub fn end(&self, windows: &Windows) -> i64 {
        windows.end(windows.start(self.to.saturating_sub(1)))
    }

    fn is_same(&self, other: &Self) -> bool {
        (self.from, self.to) == (other.from, other.to)
    }
}

/// The gaps of a tier, oldest first; they do not overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Gaps {
    gaps: Vec<Gap>,
    /// Windows that start before this are final whatever the lateness: their states were forgotten
    /// before it grew.
    forgotten: Option<i64>,
}

impl Gaps {
    pub(crate) fn all(&self) -> &[Gap] {
        &self.gaps
    }

    pub(crate) fn hold(&self, start: i64) -> bool {
        self.gaps.iter().any(|gap| gap.holds(start))
    }

    /// Whether a window takes nothing in any more that would be final at `final_at`.
    pub(crate) fn is_final(&self, start: i64, final_at: i64, watermark: Option<i64>) -> bool {
        self.forgotten.is_some_and(|before| start < before) || watermark.is_some_and(|at| final_at <= at)
    }

    /// Records that states of points up to `newest` are missing. Returns the gap that this makes or
    /// enlarges; none when all windows concerned were final at `watermark`, or are in a gap
    /// already.
    pub(crate) fn add(
        &mut self,
        windows: &Windows,
        lateness: i64,
        watermark: Option<i64>,
        newest: i64,
    ) -> Option<&Gap> {
        let from = watermark.map_or(i64::MIN, |at| first_open(windows, lateness, at));
        let from = from.max(self.forgotten.unwrap_or(i64::MIN));
        let to = windows.pane().end(windows.pane().start(newest));
        if to <= from || self.gaps.iter().any(|gap| gap.from <= from && to <= gap.to) {
            return None;
        }
        let mut whole = Gap { from, to, written: watermark, other_fields: false };
        self.gaps.retain(|old| {
            let overlaps = old.to > from && old.from < to;
            if overlaps {
                whole.from = whole.from.min(old.from);
                whole.to = whole.to.max(old.to);
                whole.written = whole.written.max(old.written);
                whole.other_fields |= old.other_fields;
            }
            !overlaps
        });
        self.gaps.push(whole);
        self.gaps.last()
    }

    /// What was given out until now may have fields that the rollup no longer has.
    pub(crate) fn have_other_fields(&mut self) {
        self.gaps.iter_mut().for_each(|gap| gap.other_fields = true);
    }

    /// Windows that end by `watermark` may have been emitted by the owner that had the states
    /// missing here.
    pub(crate) fn may_be_written(&mut self, watermark: Option<i64>) {
        if let Some(newest) = self.gaps.last_mut() {
            newest.written = newest.written.max(watermark);
        }
    }

    /// The states of windows that were final at `watermark` with `lateness` are gone.
    pub(crate) fn forget(&mut self, windows: &Windows, lateness: i64, watermark: i64) {
        self.forgotten = self.forgotten.max(Some(first_open(windows, lateness, watermark)));
    }

    /// Another plan's states are gone, also of windows that had been final.
    pub(crate) fn begin_anew(&mut self) {
        self.forgotten = None;
    }

    /// Gaps whose windows are all final at `watermark`: no more points will come for them.
    pub(crate) fn due(
        &self,
        windows: &Windows,
        lateness: i64,
        watermark: Option<i64>,
    ) -> impl Iterator<Item = &Gap> {
        let open = watermark.map_or(i64::MIN, |at| first_open(windows, lateness, at));
        self.gaps.iter().filter(move |gap| gap.to <= open)
    }

    /// The windows have been rebuilt, or are given up. Changes nothing in the stream once they are
    /// final.
    pub(crate) fn remove(&mut self, done: &Gap) {
        self.gaps.retain(|gap| !gap.is_same(done));
    }
}

/// Start of the oldest window that is not final at `watermark`.
fn first_open(windows: &Windows, lateness: i64, watermark: i64) -> i64 {
    let newest = windows.start(watermark.saturating_sub(lateness));
    windows.holding(newest).next().unwrap_or(newest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::window::Tumble;

    fn ranges(gaps: &Gaps) -> Vec<(i64, i64)> {
        gaps.all().iter().map(|gap| (gap.from, gap.to)).collect()
    }

    #[test]
    fn gaps_grow_together_and_end_one_by_one() {
        let windows = Windows::tumbling(Tumble::new(10, None).unwrap());
        let mut gaps = Gaps::default();
        assert!(gaps.add(&windows, 30, Some(100), 60).is_none(), "60 was final at 100");
        assert!(gaps.add(&windows, 30, Some(100), 79).is_some());
        assert!(gaps.add(&windows, 30, Some(100), 75).is_none(), "nothing new");
        assert!(gaps.add(&windows, 30, Some(105), 81).is_some());
        assert_eq!(ranges(&gaps), [(70, 90)]);
        // What is due is left as it is.
        assert!(gaps.add(&windows, 30, Some(120), 95).is_some());
        assert_eq!(ranges(&gaps), [(70, 90), (90, 100)]);
        let due: Vec<Gap> = gaps.due(&windows, 30, Some(120)).cloned().collect();
        assert_eq!(due.len(), 1);
        gaps.remove(&due[0]);
        assert_eq!(ranges(&gaps), [(90, 100)]);
        assert!(!gaps.hold(89) && gaps.hold(90) && !gaps.hold(100));
        assert_eq!(gaps.due(&windows, 30, Some(129)).count(), 0);
        assert_eq!(gaps.due(&windows, 30, Some(130)).count(), 1);
    }

    proptest! {
        /// Every window that may lack a point and is not final is in the gap, and no other.
        #[test]
        fn a_gap_has_the_windows_concerned(
            slide in 1i64..50, panes in 1i64..6, lateness in 0i64..200, watermark in -500i64..500, newest in -500i64..800,
        ) {
            let windows = Windows::hopping(slide * panes, slide).unwrap();
            let mut gaps = Gaps::default();
            let gap = gaps.add(&windows, lateness, Some(watermark), newest).cloned();
            for start in (-2_000..2_000).filter(|at: &i64| at.rem_euclid(slide) == 0) {
                let is_open = windows.end(start) + lateness > watermark;
                prop_assert_eq!(gaps.hold(start), is_open && start <= newest, "{}", start);
            }
            if let Some(gap) = gap {
                let last = windows.end(windows.start(gap.to - 1)) + lateness;
                prop_assert_eq!(gaps.due(&windows, lateness, Some(last - 1)).count(), 0);
                prop_assert_eq!(gaps.due(&windows, lateness, Some(last)).count(), 1);
                prop_assert_eq!(gap.end(&windows), last - lateness);
            }
        }
    }
}
