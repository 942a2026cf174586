//! Event times of CSV cells.

use chrono::{DateTime, NaiveDate, NaiveDateTime};

/// Nanoseconds since the epoch of a cell, UTC where it names no zone. With a `pattern`, by strftime; without, RFC 3339,
/// `YYYY-MM-DD HH:MM:SS` with or without a fraction, `YYYY-MM-DD`, or a number since the epoch, in seconds,
/// milliseconds, microseconds or nanoseconds by its size (up to 11, 14, 17, more digits).
pub(super) fn parse_time(text: &str, pattern: Option<&str>) -> Option<i64> {
    let text = text.trim();
    if let Some(pattern) = pattern {
        return parse_pattern(text, pattern);
    }
    if let Some(time) = parse_number(text) {
        return Some(time);
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return time.timestamp_nanos_opt();
    }
    for pattern in ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(text, pattern) {
            return time.and_utc().timestamp_nanos_opt();
        }
    }
    parse_date(text, "%Y-%m-%d")
}

fn parse_pattern(text: &str, pattern: &str) -> Option<i64> {
    if let Ok(time) = DateTime::parse_from_str(text, pattern) {
        return time.timestamp_nanos_opt();
    }
    match NaiveDateTime::parse_from_str(text, pattern) {
        Ok(time) => time.and_utc().timestamp_nanos_opt(),
        Err(_) => parse_date(text, pattern),
    }
}

fn parse_date(text: &str, pattern: &str) -> Option<i64> {
    let date = NaiveDate::parse_from_str(text, pattern).ok()?;
    date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_nanos_opt()
}

fn parse_number(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let digits_only = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits_only(whole) || !digits_only(fraction) {
        return None;
    }
    let whole: i64 = whole.parse().ok()?;
    // A power of ten: nanoseconds in the unit that a number of this size is in.
    let exponent: u32 = match whole {
        0..100_000_000_000 => 9,
        100_000_000_000..100_000_000_000_000 => 6,
        100_000_000_000_000..100_000_000_000_000_000 => 3,
        _ => 0,
    };
    let mut time = whole.checked_mul(10_i64.pow(exponent))?;
    for (digit, place) in fraction.bytes().zip((0..exponent).rev()) {
        time = time.checked_add(i64::from(digit - b'0') * 10_i64.pow(place))?;
    }
    Some(if negative { -time } else { time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let second = 1_000_000_000;
        let cases = [
            ("2014-02-14 14:30:00", None, Some(1_392_388_200 * second)),
            ("2014-02-14T14:30:00", None, Some(1_392_388_200 * second)),
            ("2014-02-14 14:30:00.25", None, Some(1_392_388_200 * second + 250_000_000)),
            ("2014-02-14T15:30:00+01:00", None, Some(1_392_388_200 * second)),
            ("2014-02-14 14:30", None, Some(1_392_388_200 * second)),
            ("2014-02-14", None, Some(1_392_336_000 * second)),
            (" 1392388200 ", None, Some(1_392_388_200 * second)),
            ("1392388200.5", None, Some(1_392_388_200 * second + 500_000_000)),
            ("1392388200123", None, Some(1_392_388_200_123 * 1_000_000)),
            ("1392388200123456", None, Some(1_392_388_200_123_456 * 1_000)),
            ("1392388200123456789", None, Some(1_392_388_200_123_456_789)),
            ("-1.5", None, Some(-1_500_000_000)),
            ("14/02/2014 14:30", Some("%d/%m/%Y %H:%M"), Some(1_392_388_200 * second)),
            ("14.02.2014", Some("%d.%m.%Y"), Some(1_392_336_000 * second)),
            ("2014-02-14 15:30 +0100", Some("%Y-%m-%d %H:%M %z"), Some(1_392_388_200 * second)),
            ("yesterday", None, None),
            ("", None, None),
            ("-", None, None),
            ("2014-02-30 00:00:00", None, None),
            ("9999-01-01T00:00:00Z", None, None),
            ("99999999999999999999", None, None),
        ];
        for (text, pattern, expected) in cases {
            assert_eq!(parse_time(text, pattern), expected, "{text} by {pattern:?}");
        }
    }
}
