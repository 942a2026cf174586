//! Event times as text.

use chrono::{DateTime, SecondsFormat, Utc};

/// RFC 3339 in UTC with as many digits of the second as the value needs.
pub(crate) fn rfc3339(nanoseconds: i64) -> String {
    time(nanoseconds).to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// The UTC time of nanoseconds since the epoch. Every `i64` is one, from 1677 to 2262.
pub(crate) fn time(nanoseconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_nanos(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_follow_the_value() {
        for (nanoseconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_700_000_000_250_000_000, "2023-11-14T22:13:20.250Z"),
            (1, "1970-01-01T00:00:00.000000001Z"),
            (i64::MIN, "1677-09-21T00:12:43.145224192Z"),
        ] {
            assert_eq!(rfc3339(nanoseconds), expected);
        }
    }
}
