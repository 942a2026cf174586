//! Event times: from the forms in which messages give them to nanoseconds since the epoch.
//!
//! A number is classified by the magnitude of its whole part `|t|`, negative ones alike:
//!
//! | magnitude       | unit         | as a date, positive                  |
//! |-----------------|--------------|--------------------------------------|
//! | below 10^11     | seconds      | up to the year 5138                  |
//! | below 10^14     | milliseconds | 3 March 1973 up to the year 5138     |
//! | below 10^17     | microseconds | the same                             |
//! | from 10^17      | nanoseconds  | the same, cut at 2262 by 64 bits     |
//!
//! So times before March 1973 can only be given in seconds or as RFC 3339. Fractions are exact to
//! the nanosecond, never rounded through a float: digits beyond that are cut off towards the past.

use super::rejection::{Fault, Reason, shown};
use chrono::DateTime;

const SECONDS_BELOW: u64 = 100_000_000_000;
const MILLISECONDS_BELOW: u64 = 100_000_000_000_000;
const MICROSECONDS_BELOW: u64 = 100_000_000_000_000_000;

/// The time that a JSON number, or the text of a JSON string, stands for.
pub(super) fn parse_time(text: &[u8]) -> Result<i64, Fault> {
    if let Some(time) = parse_whole(text) {
        return Ok(time);
    }
    let Some((mantissa, scale)) = parse_decimal(text) else {
        return parse_rfc3339(text);
    };
    nanoseconds(mantissa, scale).ok_or_else(|| out_of_range(text))
}

/// Nanoseconds, as line protocol gives them by its specification.
pub(super) fn parse_nanoseconds(text: &[u8]) -> Result<i64, Fault> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| {
        let detail =
            format!("the timestamp must be whole nanoseconds since the epoch, found=`{}`", shown(text));
        Fault::new(Reason::BadTimestamp, detail)
    })
}

/// The usual case: up to 18 digits.
fn parse_whole(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    let mut number = 0_u64;
    for byte in text {
        if !byte.is_ascii_digit() {
            return None;
        }
        number = number * 10 + u64::from(byte - b'0');
    }
    i64::try_from(number).ok()?.checked_mul(10_i64.pow(unit_exponent(number.into())))
}

/// Nanoseconds are this power of ten times the unit that a number of this magnitude is in.
fn unit_exponent(magnitude: u128) -> u32 {
    if magnitude < SECONDS_BELOW.into() {
        9
    } else if magnitude < MILLISECONDS_BELOW.into() {
        6
    } else if magnitude < MICROSECONDS_BELOW.into() {
        3
    } else {
        0
    }
}

/// A decimal number as `mantissa × 10^-scale`. None when it is no number or needs more than 30
/// digits.
fn parse_decimal(text: &[u8]) -> Option<(i128, i32)> {
    const MOST_DIGITS: u32 = 30;
    let (negative, digits) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        _ => (false, text),
    };
    let (mut mantissa, mut scale, mut significant, mut seen) = (0_i128, 0_i32, 0, 0);
    let mut position = 0;
    let mut fraction = false;
    while let Some(&byte) = digits.get(position) {
        match byte {
            b'0'..=b'9' => {
                mantissa = mantissa * 10 + i128::from(byte - b'0');
                significant += u32::from(mantissa != 0);
                scale += i32::from(fraction);
                seen += 1;
            }
            b'.' if !fraction && seen > 0 => fraction = true,
            _ => break,
        }
        if significant > MOST_DIGITS || scale > 100 {
            return None;
        }
        position += 1;
    }
    if seen == 0 {
        return None;
    }
    match digits[position..].split_first() {
        None => {}
        Some((b'e' | b'E', exponent)) => {
            let exponent: i32 = std::str::from_utf8(exponent).ok()?.parse().ok()?;
            if exponent.abs() > 100 {
                return None;
            }
            scale -= exponent;
        }
        Some(_) => return None,
    }
    Some((if negative { -mantissa } else { mantissa }, scale))
}

fn nanoseconds(mantissa: i128, scale: i32) -> Option<i64> {
    if mantissa == 0 {
        return Some(0);
    }
    let shift = |exponent: i32| -> Option<i128> {
        let power = 10_i128.checked_pow(exponent.unsigned_abs());
        match power {
            Some(power) if exponent >= 0 => mantissa.checked_mul(power),
            Some(power) => Some(mantissa.div_euclid(power)),
            None if exponent >= 0 => None,
            None => Some(if mantissa < 0 { -1 } else { 0 }),
        }
    };
    // The magnitude is that of the whole part cut towards zero: -1.5 is one second and a half.
    let whole = match 10_u128.checked_pow(scale.unsigned_abs()) {
        Some(power) if scale >= 0 => mantissa.unsigned_abs() / power,
        Some(power) => mantissa.unsigned_abs().checked_mul(power)?,
        None if scale >= 0 => 0,
        None => return None,
    };
    let exponent = i32::try_from(unit_exponent(whole)).ok()?;
    i64::try_from(shift(exponent - scale)?).ok()
}

fn parse_rfc3339(text: &[u8]) -> Result<i64, Fault> {
    let parsed =
        std::str::from_utf8(text).ok().and_then(|text| DateTime::parse_from_rfc3339(text.trim()).ok());
    let Some(time) = parsed else {
        let detail = format!(
            "a timestamp is a number of s, ms, us or ns since the epoch, or RFC 3339 with an offset, found=`{}`",
            shown(text)
        );
        return Err(Fault::new(Reason::BadTimestamp, detail));
    };
    time.timestamp_nanos_opt().ok_or_else(|| out_of_range(text))
}

fn out_of_range(text: &[u8]) -> Fault {
    let detail = format!("the timestamp is outside of the years 1677 to 2262, found=`{}`", shown(text));
    Fault::new(Reason::BadTimestamp, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms_of_time() {
        let cases: &[(&str, Option<i64>)] = &[
            // The same instant in every unit and form.
            ("1700000000", Some(1_700_000_000_000_000_000)),
            ("1700000000000", Some(1_700_000_000_000_000_000)),
            ("1700000000000000", Some(1_700_000_000_000_000_000)),
            ("1700000000000000000", Some(1_700_000_000_000_000_000)),
            ("1700000000.0", Some(1_700_000_000_000_000_000)),
            ("1.7e9", Some(1_700_000_000_000_000_000)),
            ("17E+8", Some(1_700_000_000_000_000_000)),
            ("2023-11-14T22:13:20Z", Some(1_700_000_000_000_000_000)),
            ("2023-11-14T23:13:20+01:00", Some(1_700_000_000_000_000_000)),
            ("2023-11-14 22:13:20Z", Some(1_700_000_000_000_000_000)),
            // Fractions are exact.
            ("1700000000.123456789", Some(1_700_000_000_123_456_789)),
            ("1700000000123.456789", Some(1_700_000_000_123_456_789)),
            ("1700000000123456.789", Some(1_700_000_000_123_456_789)),
            ("1700000000.1234567899", Some(1_700_000_000_123_456_789)),
            ("2023-11-14T22:13:20.000000001Z", Some(1_700_000_000_000_000_001)),
            // The borders between the units.
            ("99999999999", None),
            ("9223372036", Some(9_223_372_036_000_000_000)),
            ("9223372037", None),
            ("100000000000", Some(100_000_000_000_000_000)),
            ("100000000000000", Some(100_000_000_000_000_000)),
            ("100000000000000000", Some(100_000_000_000_000_000)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("-9223372036854775808", Some(i64::MIN)),
            // Before the epoch.
            ("0", Some(0)),
            ("-0.0", Some(0)),
            ("-1.5", Some(-1_500_000_000)),
            ("-100000000000", Some(-100_000_000_000_000_000)),
            ("1969-12-31T23:59:59Z", Some(-1_000_000_000)),
            // No times.
            ("", None),
            ("-", None),
            (".5", None),
            ("1.2.3", None),
            ("1e", None),
            ("1e400", None),
            ("1e-400", None),
            ("1e99999999999", None),
            ("99999999999999999999999999999999999999999", None),
            ("NaN", None),
            ("Infinity", None),
            ("0x10", None),
            ("1_000", None),
            ("now", None),
            ("2023-11-14", None),
            ("2023-11-14T22:13:20", None),
            ("2023-02-30T00:00:00Z", None),
            ("9999-01-01T00:00:00Z", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_time(text.as_bytes()).ok(), *expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "[-+0-9.eEzZ:T ]{0,50}") {
            let _ = parse_time(text.as_bytes());
        }

        #[test]
        fn whole_and_decimal_agree(number in 0_u64..1_000_000_000_000_000_000) {
            let whole = parse_time(number.to_string().as_bytes()).ok();
            prop_assert_eq!(whole, parse_time(format!("{number}.0").as_bytes()).ok());
            let negative = parse_time(format!("-{number}").as_bytes()).ok();
            prop_assert_eq!(whole.map(|time| -time), negative);
        }

        #[test]
        fn rfc3339_round_trip(time in any::<i64>()) {
            prop_assert_eq!(parse_time(crate::time::rfc3339(time).as_bytes()).ok(), Some(time));
        }
    }
}
