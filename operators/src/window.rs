//! Tumbling windows: which window a time falls into, and where that window ends.
//!
//! A window is half open, `[start, end)`. Without a time zone, windows are aligned to the Unix epoch. With
//! one, they are aligned to local midnight, so that a day is a local day and lasts 23 or 25 hours when the
//! clocks change. Windows of an hour or less keep their length in every case: an hour that the clock shows
//! twice is two windows.

use std::fmt;

use chrono::{DateTime, Duration, LocalResult, NaiveDateTime, Offset, TimeZone};
use chrono_tz::Tz;

const HOUR: i64 = 3_600_000_000_000;
const DAY: i64 = 24 * HOUR;

/// The windows of a rollup: their length, and the zone whose clock they follow.
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

    /// IANA name of the zone whose clock the windows follow; none when they are aligned to the epoch.
    pub fn zone(&self) -> Option<&'static str> {
        self.zone.map(Tz::name)
    }

    /// Start of the window that holds `time`. All times are nanoseconds since the epoch, UTC.
    pub fn start(&self, time: i64) -> i64 {
        let Some(zone) = self.zone else {
            return floor(time, self.size);
        };
        let offset = offset_at(zone, time);
        let local = time.saturating_add(offset);
        if self.size <= HOUR {
            return floor(local, self.size).saturating_sub(offset);
        }
        instant_of(zone, floor(local, self.size)).min(time)
    }

    /// End of the window that starts at `start`, which must be a value that `start` returned.
    pub fn end(&self, start: i64) -> i64 {
        let Some(zone) = self.zone else {
            return start.saturating_add(self.size);
        };
        if self.size <= HOUR {
            return start.saturating_add(self.size);
        }
        let local = start.saturating_add(offset_at(zone, start));
        instant_of(zone, floor(local, self.size).saturating_add(self.size))
    }
}

impl fmt::Display for Tumble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = std::time::Duration::from_nanos(self.size.unsigned_abs());
        write!(f, "{size:?}")?;
        match self.zone {
            None => Ok(()),
            Some(zone) => write!(f, " in {zone}"),
        }
    }
}

fn floor(time: i64, size: i64) -> i64 {
    time.saturating_sub(time.rem_euclid(size))
}

fn offset_at(zone: Tz, time: i64) -> i64 {
    let utc = DateTime::from_timestamp_nanos(time).naive_utc();
    i64::from(zone.offset_from_utc_datetime(&utc).fix().local_minus_utc()) * 1_000_000_000
}

/// The first instant at which the clock of `zone` shows `local` or, where that time is skipped, the first
/// instant after the gap.
fn instant_of(zone: Tz, local: i64) -> i64 {
    let mut shown: NaiveDateTime = DateTime::from_timestamp_nanos(local).naive_utc();
    // Gaps are at most a few hours (a whole day once, in Samoa), so a quarter hour's step ends soon.
    for _ in 0..200 {
        match zone.from_local_datetime(&shown) {
            LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => {
                return at.timestamp_nanos_opt().unwrap_or(i64::MAX);
            }
            LocalResult::None => shown += Duration::minutes(15),
        }
    }
    local
}

#[cfg(test)]
mod tests {
    use super::*;
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
    }

    proptest! {
        /// Each time is in exactly one window, and windows follow each other without gap or overlap.
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
