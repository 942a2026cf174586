//! Windows: which one a time falls into, and where that window ends.
//!
//! [`Tumble`] cuts time into pieces that follow each other. A rollup keeps its state by these
//! pieces, its *panes*; [`Windows`] has the panes of a window: one for tumbling windows, several
//! for hopping ones, which overlap.
//!
//! A window is half open, `[start, end)`. Without a time zone, windows are aligned to the Unix
//! epoch. With one, they are aligned to local midnight, see [`zoned`].

mod zoned;

use std::fmt;
use std::ops::Range;

use chrono_tz::Tz;

use crate::time::HOUR;

const DAY: i64 = 24 * HOUR;

/// Time cut into equal pieces: their length, and the zone whose clock they follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tumble {
    size: i64,
    zone: Option<Tz>,
}

/// Why a length or a zone cannot make windows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    #[error("a window must be longer than zero")]
    NotPositive,
    #[error("a window of more than an hour in a time zone must divide a day, or be one day")]
    NotPartOfDay,
    #[error("a hopping window must be a multiple of its slide, write a slide that divides it")]
    NotMultipleOfSlide,
    #[error(
        "a row of a hopping window merges a state for each slide in it, at most {MAX_PANES}, write a longer slide"
    )]
    TooManyPanes,
    #[error("unknown time zone zone=`{0}`, write an IANA name such as 'Europe/Berlin'")]
    UnknownZone(String),
}

impl Tumble {
    /// Windows of `size` nanoseconds, aligned to the epoch or to the local midnight of `zone`.
    pub fn new(size: i64, zone: Option<&str>) -> Result<Self, WindowError> {
        if size <= 0 {
            return Err(WindowError::NotPositive);
        }
        let zone = match zone {
            None => None,
            Some(name) => Some(name.parse::<Tz>().map_err(|_| WindowError::UnknownZone(name.to_owned()))?),
        };
        if zone.is_some() && DAY % size != 0 {
            return Err(WindowError::NotPartOfDay);
        }
        Ok(Self { size, zone })
    }

    /// The nominal length in nanoseconds; a local day may be an hour shorter or longer.
    pub fn size(&self) -> i64 {
        self.size
    }

    /// IANA name of the zone whose clock the windows follow; none when they are aligned to the
    /// epoch.
    pub fn zone(&self) -> Option<&'static str> {
        self.zone.map(Tz::name)
    }

    /// Start of the window that holds `time`. All times are nanoseconds since the epoch, UTC.
    pub fn start(&self, time: i64) -> i64 {
        match self.zone {
            None => floor(time, self.size),
            Some(zone) => zoned::start(zone, self.size, time),
        }
    }

    /// End of the window that starts at `start`, which must be a value that `start` returned.
    pub fn end(&self, start: i64) -> i64 {
        match self.zone {
            None => start.saturating_add(self.size),
            Some(zone) => zoned::end(zone, self.size, start),
        }
    }

    /// Start of the window of each time. Times that follow each other mostly share a window.
    pub(crate) fn starts<'t>(&self, times: impl IntoIterator<Item = &'t i64>) -> Vec<i64> {
        let (mut start, mut end) = (0, 0);
        let of = |time: &i64| {
            if !(start..end).contains(time) {
                start = self.start(*time);
                end = self.end(start);
            }
            start
        };
        times.into_iter().map(of).collect()
    }
}

/// A day of hops by the minute: more panes a window would be a mistake more often than a wish.
const MAX_PANES: i64 = 1_440;

/// The windows of a tier. Each is made of panes that follow each other, the first of which starts
/// with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    pane: Tumble,
    /// How many panes a window has: one, when windows tumble.
    panes: i64,
}

impl Windows {
    /// Windows that follow each other without overlap.
    pub fn tumbling(pane: Tumble) -> Self {
        Self { pane, panes: 1 }
    }

    /// Windows of `size` nanoseconds, one of which starts every `slide` nanoseconds since the
    /// epoch.
    ///
    /// # Errors
    /// When `size` is not a multiple of `slide`, or one of them is not positive.
    pub fn hopping(size: i64, slide: i64) -> Result<Self, WindowError> {
        let pane = Tumble::new(slide, None)?;
        match size / slide {
            _ if size <= 0 => Err(WindowError::NotPositive),
            _ if size % slide != 0 => Err(WindowError::NotMultipleOfSlide),
            panes if panes > MAX_PANES => Err(WindowError::TooManyPanes),
            panes => Ok(Self { pane, panes }),
        }
    }

    /// The pieces of time by which state is kept.
    pub fn pane(&self) -> &Tumble {
        &self.pane
    }

    /// The nominal length in nanoseconds; a local day may be an hour shorter or longer.
    pub fn size(&self) -> i64 {
        self.pane.size * self.panes
    }

    /// IANA name of the zone whose clock the windows follow; none when they are aligned to the
    /// epoch.
    pub fn zone(&self) -> Option<&'static str> {
        self.pane.zone()
    }

    /// Whether windows overlap.
    pub fn is_hopping(&self) -> bool {
        self.panes > 1
    }

    /// Start of the window that holds `time`; of the newest one, when several do.
    pub fn start(&self, time: i64) -> i64 {
        self.pane.start(time)
    }

    /// End of the window that starts at `start`, which must be a value that `start` returned.
    pub fn end(&self, start: i64) -> i64 {
        match self.panes {
            1 => self.pane.end(start),
            _ => start.saturating_add(self.size()),
        }
    }

    /// End of the last of the windows that start before `time`.
    pub fn end_of_last(&self, time: i64) -> i64 {
        self.end(self.start(time.saturating_sub(1)))
    }

    /// End of the window that ends next after the one that ends at `end`.
    pub fn end_after(&self, end: i64) -> i64 {
        // Windows end where panes do.
        self.pane.end(end)
    }

    /// End of the newest window that has ended at `time`.
    pub fn ended_by(&self, time: i64) -> i64 {
        self.pane.start(time)
    }

    /// Starts of the windows that hold the pane which starts at `pane`, oldest first.
    pub fn holding(&self, pane: i64) -> impl Iterator<Item = i64> + use<> {
        self.nth_holding(pane, 0..self.panes)
    }

    /// Those of [`Windows::holding`] that end after `after` (all, when none) and not after `until`.
    pub fn ending(&self, pane: i64, after: Option<i64>, until: i64) -> impl Iterator<Item = i64> + use<> {
        let from = after.map_or(0, |after| self.ended(pane, after));
        self.nth_holding(pane, from..self.ended(pane, until))
    }

    /// How many of the windows that hold a pane have ended at `time`. The first ends with the pane,
    /// the next a slide later.
    fn ended(&self, pane: i64, time: i64) -> i64 {
        match time.saturating_sub(self.pane.end(pane)) {
            since if since < 0 => 0,
            since => (since / self.pane.size).saturating_add(1).min(self.panes),
        }
    }

    fn nth_holding(&self, pane: i64, nth: Range<i64>) -> impl Iterator<Item = i64> + use<> {
        let (slide, last) = (self.pane.size, self.panes - 1);
        nth.map(move |index| pane.saturating_sub((last - index).saturating_mul(slide)))
    }
}

impl fmt::Display for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&length_name(self.size()))?;
        if self.is_hopping() {
            write!(f, " every {}", length_name(self.pane.size))?;
        }
        match self.zone() {
            None => Ok(()),
            Some(zone) => write!(f, " in {zone}"),
        }
    }
}

impl fmt::Display for Tumble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Windows::tumbling(*self).fmt(f)
    }
}

/// The shortest text for a length: `90s`, `5m`, `1h`, `7d`.
pub fn length_name(nanoseconds: i64) -> String {
    let units =
        [("d", DAY), ("h", HOUR), ("m", HOUR / 60), ("s", HOUR / 3_600), ("ms", 1_000_000), ("us", 1_000)];
    for (unit, length) in units {
        if nanoseconds != 0 && nanoseconds % length == 0 {
            return format!("{}{unit}", nanoseconds / length);
        }
    }
    format!("{nanoseconds}ns")
}

fn floor(time: i64, size: i64) -> i64 {
    time.saturating_sub(time.rem_euclid(size))
}

#[cfg(test)]
#[path = "window/zoned_tests.rs"]
mod zoned_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use proptest::prelude::*;

    fn at(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_nanos_opt().unwrap()
    }

    fn check(size: i64, zone: Option<&str>, time: &str, start: &str, end: &str) {
        let windows = Tumble::new(size, zone).unwrap();
        let found = windows.start(at(time));
        assert_eq!(found, at(start), "start of {time} in {windows}");
        assert_eq!(windows.end(found), at(end), "end of {time} in {windows}");
    }

    #[test]
    fn windows_and_their_ends() {
        let minute = 60_000_000_000;
        check(minute, None, "2024-01-01T00:00:59.999Z", "2024-01-01T00:00:00Z", "2024-01-01T00:01:00Z");
        check(minute, None, "1969-12-31T23:59:59Z", "1969-12-31T23:59:00Z", "1970-01-01T00:00:00Z");
        let berlin = Some("Europe/Berlin");
        check(DAY, berlin, "2024-06-01T12:00:00Z", "2024-05-31T22:00:00Z", "2024-06-01T22:00:00Z");
        // The clocks go forward: a day of 23 hours. They go back: a day of 25.
        check(DAY, berlin, "2024-03-31T12:00:00Z", "2024-03-30T23:00:00Z", "2024-03-31T22:00:00Z");
        check(DAY, berlin, "2024-10-27T12:00:00Z", "2024-10-26T22:00:00Z", "2024-10-27T23:00:00Z");
        check(6 * HOUR, berlin, "2024-03-31T01:30:00Z", "2024-03-30T23:00:00Z", "2024-03-31T04:00:00Z");
        check(HOUR, berlin, "2024-10-27T00:30:00Z", "2024-10-27T00:00:00Z", "2024-10-27T01:00:00Z");
        check(HOUR, berlin, "2024-10-27T01:30:00Z", "2024-10-27T01:00:00Z", "2024-10-27T02:00:00Z");
        check(
            HOUR,
            Some("Asia/Kolkata"),
            "2024-01-01T00:10:00Z",
            "2023-12-31T23:30:00Z",
            "2024-01-01T00:30:00Z",
        );
        // Midnight itself is skipped there: the day starts at one o'clock.
        check(
            DAY,
            Some("America/Sao_Paulo"),
            "2018-11-04T12:00:00Z",
            "2018-11-04T03:00:00Z",
            "2018-11-05T02:00:00Z",
        );
    }

    #[test]
    fn refused() {
        assert_eq!(Tumble::new(0, None), Err(WindowError::NotPositive));
        assert_eq!(Tumble::new(7 * HOUR, Some("UTC")), Err(WindowError::NotPartOfDay));
        assert!(matches!(Tumble::new(HOUR, Some("Mars/Base")), Err(WindowError::UnknownZone(_))));
        assert_eq!(Windows::hopping(HOUR, 0), Err(WindowError::NotPositive));
        assert_eq!(Windows::hopping(0, HOUR), Err(WindowError::NotPositive));
        assert_eq!(Windows::hopping(HOUR, 7), Err(WindowError::NotMultipleOfSlide));
        assert_eq!(Windows::hopping(DAY, HOUR / 120), Err(WindowError::TooManyPanes));
    }

    #[test]
    fn lengths_are_shown_in_the_largest_unit_that_fits() {
        let minute = HOUR / 60;
        for (length, name) in [
            (90_000_000_000, "90s"),
            (5 * minute, "5m"),
            (24 * HOUR, "1d"),
            (36 * HOUR, "36h"),
            (1_500_000, "1500us"),
            (7, "7ns"),
        ] {
            assert_eq!(length_name(length), name);
        }
        assert_eq!(Windows::hopping(10 * minute, 5 * minute).unwrap().to_string(), "10m every 5m");
        assert_eq!(Tumble::new(DAY, Some("Europe/Berlin")).unwrap().to_string(), "1d in Europe/Berlin");
    }

    proptest! {
        /// What makes tiers exact: a window lies in one window of every coarser tier, whatever its
        /// zone's clock does.
        #[test]
        fn a_window_lies_in_one_window_of_a_multiple_of_its_length(
            seconds in -1_000_000_000i64..4_000_000_000,
            lengths in prop::sample::select(vec![(HOUR / 60, HOUR), (HOUR / 12, DAY), (HOUR, DAY), (HOUR, 6 * HOUR), (6 * HOUR, DAY)]),
            zone in prop::sample::select(vec![None, Some("UTC"), Some("Europe/Berlin"), Some("America/New_York"), Some("America/Sao_Paulo"), Some("Asia/Kathmandu"), Some("Australia/Lord_Howe")]),
        ) {
            let (fine, coarse) = (Tumble::new(lengths.0, zone).unwrap(), Tumble::new(lengths.1, zone).unwrap());
            let time = seconds * 1_000_000_000;
            let start = fine.start(time);
            prop_assert_eq!(coarse.start(start), coarse.start(time));
            prop_assert!(fine.end(start) <= coarse.end(coarse.start(time)));
        }

        /// A hopping window holds a time exactly when it holds the time's pane.
        #[test]
        fn hopping_windows_are_made_of_whole_panes(time in -1_000_000i64..1_000_000, slide in 1i64..1_000, panes in 1i64..20) {
            let windows = Windows::hopping(slide * panes, slide).unwrap();
            let holding: Vec<i64> = windows.holding(windows.start(time)).collect();
            prop_assert_eq!(holding.len() as i64, panes);
            for start in &holding {
                prop_assert!(*start <= time && time < windows.end(*start) && start.rem_euclid(slide) == 0);
            }
            prop_assert!(holding.windows(2).all(|pair| pair[0] + slide == pair[1]));
            prop_assert!(time >= windows.end(holding[0] - slide), "an older window does not hold it");
            for (after, until) in [(None, time), (None, time + slide * panes / 2), (Some(time + slide), time + 3 * slide)] {
                let is_due = |start: &i64| {
                    let end = windows.end(*start);
                    end <= until && after.is_none_or(|after| end > after)
                };
                let due: Vec<i64> = holding.iter().copied().filter(is_due).collect();
                prop_assert_eq!(windows.ending(windows.start(time), after, until).collect::<Vec<_>>(), due);
            }
            prop_assert!(time < holding[holding.len() - 1] + slide, "a newer window starts after it");
        }

        /// Each time is in exactly one window, and windows follow each other without gap or
        /// overlap.
        #[test]
        fn every_time_has_one_window(
            seconds in -2_000_000_000i64..4_000_000_000,
            size in prop::sample::select(vec![HOUR / 60, HOUR / 4, HOUR, 6 * HOUR, DAY]),
            zone in prop::sample::select(vec![None, Some("UTC"), Some("Europe/Berlin"), Some("America/New_York"), Some("Asia/Kathmandu"), Some("Australia/Lord_Howe")]),
        ) {
            let windows = Tumble::new(size, zone).unwrap();
            let time = seconds * 1_000_000_000;
            let start = windows.start(time);
            let end = windows.end(start);
            prop_assert!(start <= time && time < end, "{start} {time} {end}");
            prop_assert_eq!(windows.start(start), start);
            prop_assert_eq!(windows.start(end - 1), start);
            prop_assert_eq!(windows.start(end), end);
        }
    }
}
