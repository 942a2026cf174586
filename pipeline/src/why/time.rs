//! Points in time as the status and the answers write them.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Nanoseconds since the epoch, UTC; in JSON and for people RFC 3339, with as many decimals as it has.
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
        parse(&text).ok_or_else(|| de::Error::custom(format!("not a time: `{text}`")))
    }
}

/// An RFC 3339 time between the years 1677 and 2262.
pub(crate) fn parse(text: &str) -> Option<Time> {
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    time.timestamp_nanos_opt().map(Time)
}

/// Nanoseconds as people say them: whole seconds, and below ten of them milliseconds.
pub(super) fn span(nanoseconds: i64) -> String {
    let milliseconds = nanoseconds.max(0).unsigned_abs() / 1_000_000;
    let shown = if milliseconds < 10_000 { milliseconds } else { milliseconds / 1_000 * 1_000 };
    humantime::format_duration(Duration::from_millis(shown)).to_string()
}

/// From nanoseconds to the milliseconds of the JSON names that end in `_ms`.
pub(super) fn milliseconds(nanoseconds: i64) -> i64 {
    nanoseconds / 1_000_000
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
            assert_eq!(parse(text), Some(Time(nanoseconds)));
        }
        assert_eq!(parse("2026-01-01T01:00:00+01:00"), Some(Time(1_767_225_600_000_000_000)));
        assert_eq!(parse("yesterday"), None);
    }

    #[test]
    fn spans() {
        let cases =
            [(-5, "0s"), (1_500_000_000, "1s 500ms"), (12_345_000_000, "12s"), (61_000_000_000, "1m 1s")];
        for (nanoseconds, text) in cases {
            assert_eq!(span(nanoseconds), text);
        }
    }
}
