//! Points in time and spans of it, in nanoseconds: as people write them, and as they are shown.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Nanoseconds since the epoch, UTC; in JSON and for people RFC 3339, with as many decimals as it
/// has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub i64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&DateTime::from_timestamp_nanos(self.0).to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_rfc3339(&text).ok_or_else(|| de::Error::custom(format!("not a time: `{text}`")))
    }
}

/// An RFC 3339 time between the years 1677 and 2262.
pub(crate) fn parse_rfc3339(text: &str) -> Option<Time> {
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    time.timestamp_nanos_opt().map(Time)
}

/// Nanoseconds as people write them: whole seconds, and below ten of them milliseconds.
pub(crate) fn span(nanoseconds: i64) -> String {
    let milliseconds = nanoseconds.max(0).unsigned_abs() / 1_000_000;
    let shown = if milliseconds < 10_000 { milliseconds } else { milliseconds / 1_000 * 1_000 };
    humantime::format_duration(Duration::from_millis(shown)).to_string()
}

/// From nanoseconds to the milliseconds of the JSON names that end in `_ms`.
pub(crate) fn milliseconds(nanoseconds: i64) -> i64 {
    nanoseconds / 1_000_000
}

/// Nanoseconds since the epoch of a time on the command line: RFC 3339, or UTC as `2026-01-31`,
/// `2026-01-31T12:30` or `2026-01-31T12:30:00`, also with a space for the T.
///
/// # Errors
/// Text with the accepted notations.
pub fn parse_time(text: &str) -> Result<i64, String> {
    let outside = || "outside of the years 1677 to 2262".to_owned();
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return time.timestamp_nanos_opt().ok_or_else(outside);
    }
    for pattern in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(text, pattern) {
            return time.and_utc().timestamp_nanos_opt().ok_or_else(outside);
        }
    }
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().and_then(|day| day.and_hms_opt(0, 0, 0));
    match day {
        Some(day) => day.and_utc().timestamp_nanos_opt().ok_or_else(outside),
        None => {
            Err("not a time, write 2026-01-31, 2026-01-31T12:30 (UTC) or 2026-01-31T12:30:00+02:00"
                .to_owned())
        }
    }
}

/// Nanoseconds since the epoch as people write them. `i64::MIN` is before everything.
pub(crate) fn shown(time: i64) -> String {
    if time == i64::MIN {
        return "the beginning".to_owned();
    }
    DateTime::from_timestamp_nanos(time).to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// 64 bits of nanoseconds last until the year 2262.
pub(crate) fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read() {
        for (nanoseconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_767_225_600_500_000_000, "2026-01-01T00:00:00.500Z"),
            (1_767_225_600_000_000_001, "2026-01-01T00:00:00.000000001Z"),
            (-1_000_000_000, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(Time(nanoseconds).to_string(), text);
            assert_eq!(parse_rfc3339(text), Some(Time(nanoseconds)));
        }
        assert_eq!(parse_rfc3339("2026-01-01T01:00:00+01:00"), Some(Time(1_767_225_600_000_000_000)));
        assert_eq!(parse_rfc3339("yesterday"), None);
    }

    #[test]
    fn spans() {
        let cases =
            [(-5, "0s"), (1_500_000_000, "1s 500ms"), (12_345_000_000, "12s"), (61_000_000_000, "1m 1s")];
        for (nanoseconds, text) in cases {
            assert_eq!(span(nanoseconds), text);
        }
    }

    #[test]
    fn times_of_the_command_line() {
        let hour = 1_767_225_600_000_000_000;
        for (text, expected) in [
            ("2026-01-01", Some(hour)),
            ("2026-01-01T00:00", Some(hour)),
            ("2026-01-01 00:00:00.5", Some(hour + 500_000_000)),
            ("2026-01-01T01:00:00+01:00", Some(hour)),
            ("2026-01-01T00:00:00Z", Some(hour)),
            ("yesterday", None),
            ("2500-01-01", None),
        ] {
            assert_eq!(parse_time(text).ok(), expected, "{text}");
        }
    }
}
