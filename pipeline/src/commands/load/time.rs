//! Event times of CSV cells.

use chrono::format::{Fixed, Item, Parsed, StrftimeItems};
use chrono::{DateTime, FixedOffset, LocalResult, NaiveDateTime, Offset, TimeZone, Utc};
use chrono_tz::Tz;

/// Patterns of a cell without an offset, when no pattern is given.
const USUAL: [&str; 4] = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d"];

/// Where a time without an offset was written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zone {
    Fixed(FixedOffset),
    Named(Tz),
}

impl Zone {
    pub(super) const UTC: Self = Self::Named(Tz::UTC);

    /// The instant of a local time. There may be none, or two.
    fn instant(self, local: NaiveDateTime) -> Result<DateTime<Utc>, String> {
        let found = match self {
            Self::Fixed(offset) => offset.from_local_datetime(&local).map(|time| time.to_utc()),
            Self::Named(zone) => zone.from_local_datetime(&local).map(|time| time.to_utc()),
        };
        match found {
            LocalResult::Single(time) => Ok(time),
            LocalResult::None => Err(format!("{local} is no time in {self}: the clock skips it")),
            LocalResult::Ambiguous(..) => Err(format!(
                "{local} is there twice in {self}: only a time with its offset says which is meant"
            )),
        }
    }
}

impl std::fmt::Display for Zone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(offset) => write!(f, "{offset}"),
            Self::Named(zone) => f.write_str(zone.name()),
        }
    }
}

/// `Europe/Berlin`, `UTC` or `+01:00`.
pub(super) fn parse_zone(text: &str) -> Result<Zone, String> {
    let offset = || DateTime::parse_from_str(&format!("2000-01-01 00:00 {text}"), "%Y-%m-%d %H:%M %:z").ok();
    match text.parse::<Tz>() {
        Ok(zone) => Ok(Zone::Named(zone)),
        Err(_) => offset().map(|time| Zone::Fixed(time.offset().fix())).ok_or_else(|| {
            "write the name of a zone, like Europe/Berlin, or an offset, like +01:00".to_owned()
        }),
    }
}

/// How the cells of a file tell the time.
#[derive(Debug, Clone)]
pub(super) struct Times {
    /// `None` takes the usual forms.
    pattern: Option<Pattern>,
    usual: Vec<Pattern>,
    zone: Zone,
}

impl Times {
    /// # Errors
    /// What is wrong with the pattern, and what to write instead.
    pub(super) fn new(pattern: Option<&str>, zone: Zone) -> Result<Self, String> {
        let pattern = pattern.map(Pattern::new).transpose()?;
        let usual = USUAL.iter().map(|usual| Pattern::new(usual)).collect::<Result<_, _>>()?;
        Ok(Self { pattern, usual, zone })
    }

    /// Nanoseconds since the epoch of a cell, in the zone where it names no offset. With a pattern,
    /// by that; without, RFC 3339, `YYYY-MM-DD HH:MM:SS` with or without a fraction, `YYYY-MM-DD`,
    /// or a number since the epoch, in seconds, milliseconds, microseconds or nanoseconds by its
    /// size (up to 11, 14, 17, more digits).
    pub(super) fn parse(&self, text: &str) -> Result<i64, String> {
        let text = text.trim();
        let unknown = || format!("`{text}` is not a time (see --time-format)");
        let beyond = || format!("`{text}` is outside of the years 1677 to 2262");
        let time = if let Some(pattern) = &self.pattern {
            pattern.parse(text, self.zone)?.ok_or_else(unknown)?
        } else if let Some(time) = parse_number(text) {
            return Ok(time);
        } else if let Ok(time) = DateTime::parse_from_rfc3339(text) {
            time.to_utc()
        } else {
            let mut found = None;
            for usual in &self.usual {
                found = usual.parse(text, self.zone)?;
                if found.is_some() {
                    break;
                }
            }
            found.ok_or_else(unknown)?
        };
        time.timestamp_nanos_opt().ok_or_else(beyond)
    }
}

/// A strftime pattern that determines an instant, in a zone if it has no offset.
#[derive(Debug, Clone)]
struct Pattern {
    items: Vec<Item<'static>>,
}

impl Pattern {
    /// Refuses a pattern under which two instants may be written alike, other than by what is finer
    /// than its finest field.
    ///
    /// Instants are written by the pattern and read again: what comes back has to be the instant,
    /// cut to some unit, the same for all. So it is no matter which fields there are, and how they
    /// come together.
    fn new(pattern: &str) -> Result<Self, String> {
        let items: Vec<Item<'static>> = StrftimeItems::new(pattern).map(Item::to_owned).collect();
        if items.iter().any(|item| matches!(item, Item::Error)) {
            return Err(format!("`{pattern}` is not a strftime pattern: like \"%Y-%m-%d %H:%M:%S\""));
        }
        // Read over by the parser: EST and EDT would be the same.
        if items.contains(&Item::Fixed(Fixed::TimezoneName)) {
            return Err(format!(
                "`{pattern}` has names of zones (%Z), which do not determine an offset: write %z for offsets, or remove the names and add --time-zone, like --time-zone Europe/Berlin"
            ));
        }
        let read = Self { items };
        if read.determines_an_instant() {
            return Ok(read);
        }
        Err(format!(
            "`{pattern}` does not determine a time: it needs a whole date, minutes with their hours and seconds with their minutes (%p with %I), or %s"
        ))
    }

    /// The instant that a text stands for; none when it is not written by the pattern.
    fn parse(&self, text: &str, zone: Zone) -> Result<Option<DateTime<Utc>>, String> {
        let mut parsed = Parsed::new();
        if chrono::format::parse(&mut parsed, text, self.items.iter()).is_err() {
            return Ok(None);
        }
        self.resolve(parsed, zone)
    }

    fn resolve(&self, mut parsed: Parsed, zone: Zone) -> Result<Option<DateTime<Utc>>, String> {
        if let Some(seconds) = parsed.timestamp() {
            // Since the epoch, wherever that was written. Of a fraction before it nobody can know
            // which way it counts.
            let nanosecond = parsed.nanosecond().unwrap_or(0);
            let is_clear = seconds >= 0 || nanosecond == 0;
            return Ok(DateTime::from_timestamp(seconds, nanosecond).filter(|_| is_clear));
        }
        // What is finer than the pattern is zero.
        let has_hour = parsed.hour_div_12().is_some() || parsed.hour_mod_12().is_some();
        let is_finer =
            parsed.minute().is_some() || parsed.second().is_some() || parsed.nanosecond().is_some();
        if !is_finer {
            let set = if has_hour { Ok(()) } else { parsed.set_hour(0).map(drop) };
            if set.and_then(|()| parsed.set_minute(0).map(drop)).is_err() {
                return Ok(None);
            }
        }
        if parsed.offset().is_some() {
            return Ok(parsed.to_datetime().ok().map(|time| time.to_utc()));
        }
        match parsed.to_naive_datetime_with_offset(0) {
            Ok(local) => zone.instant(local).map(Some),
            Err(_) => Ok(None),
        }
    }

    fn determines_an_instant(&self) -> bool {
        const UNITS: [i64; 7] =
            [1, 1_000, 1_000_000, 1_000_000_000, 60_000_000_000, 3_600_000_000_000, 86_400_000_000_000];
        let mut units = UNITS.to_vec();
        for (seconds, minutes_east) in PROBES {
            // Nothing about it is round.
            let nanoseconds = 123_456_789;
            let Some(offset) = FixedOffset::east_opt(minutes_east * 60) else { return false };
            let Some(time) = DateTime::from_timestamp(seconds, nanoseconds) else { return false };
            let local = time.with_timezone(&offset);
            let mut written = String::new();
            let shown = local.format_with_items(self.items.iter());
            if std::fmt::Write::write_fmt(&mut written, format_args!("{shown}")).is_err() {
                return false;
            }
            let Ok(Some(read)) = self.parse(&written, Zone::Fixed(offset)) else { return false };
            // Local time is what is cut: a date begins at its own midnight.
            let since = |time: DateTime<Utc>| {
                time.with_timezone(&offset).naive_local().and_utc().timestamp_nanos_opt().unwrap_or(i64::MIN)
            };
            let (read, exact) = (since(read), since(time));
            units.retain(|unit| exact.div_euclid(*unit) * unit == read);
        }
        !units.is_empty()
    }
}

/// Instants that differ in every field: century, month, day, weekday, week of the year, half of the
/// day, minute; and minutes that local time is ahead. Two digits of a year stand for 1970 to 2068.
const PROBES: [(i64, i32); 8] = [
    (1_139_925_787, 0),
    (97_445_901, 330),
    (951_782_399, -210),
    (1_709_251_200 + 45_296, 60),
    (3_086_413_509, 0),
    (2_524_607_999, -720),
    (1_388_534_399, 845),
    (662_688_001, 0),
];

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
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn times(pattern: Option<&str>, zone: &str) -> Times {
        Times::new(pattern, parse_zone(zone).expect(zone)).unwrap_or_else(|problem| panic!("{problem}"))
    }

    #[test]
    fn usual_times() {
        let cases = [
            ("2014-02-14 14:30:00", Some(1_392_388_200 * SECOND)),
            ("2014-02-14T14:30:00", Some(1_392_388_200 * SECOND)),
            ("2014-02-14 14:30:00.25", Some(1_392_388_200 * SECOND + 250_000_000)),
            ("2014-02-14T15:30:00+01:00", Some(1_392_388_200 * SECOND)),
            ("2014-02-14 14:30", Some(1_392_388_200 * SECOND)),
            ("2014-02-14", Some(1_392_336_000 * SECOND)),
            (" 1392388200 ", Some(1_392_388_200 * SECOND)),
            ("1392388200.5", Some(1_392_388_200 * SECOND + 500_000_000)),
            ("1392388200123", Some(1_392_388_200_123 * 1_000_000)),
            ("1392388200123456", Some(1_392_388_200_123_456 * 1_000)),
            ("1392388200123456789", Some(1_392_388_200_123_456_789)),
            ("-1.5", Some(-1_500_000_000)),
            ("yesterday", None),
            ("", None),
            ("-", None),
            ("2014-02-30 00:00:00", None),
            ("2010-01-02 13", None),
            ("2010-01-02 13,159", None),
            ("2014-02-14 14:30:00 CET", None),
            ("9999-01-01T00:00:00Z", None),
            ("99999999999999999999", None),
        ];
        for (text, expected) in cases {
            assert_eq!(times(None, "UTC").parse(text).ok(), expected, "{text}");
        }
        // What has an offset, or is a number, is the same anywhere.
        let berlin = times(None, "Europe/Berlin");
        for (text, expected) in cases.iter().take(10) {
            let is_local =
                ["14:30", "02-14 "].iter().any(|part| text.contains(part)) || *text == "2014-02-14";
            let expected = expected.map(|time| if is_local { time - 3_600 * SECOND } else { time });
            assert_eq!(berlin.parse(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn patterns() {
        let noon = 1_392_379_200 * SECOND;
        let cases = [
            ("%d/%m/%Y %H:%M", "UTC", "14/02/2014 12:00", Some(noon)),
            ("%d.%m.%Y", "UTC", "14.02.2014", Some(noon - 12 * 3_600 * SECOND)),
            ("%d.%m.%y", "+01:00", "14.02.14", Some(noon - 13 * 3_600 * SECOND)),
            ("%Y-%m-%d %H:%M %z", "UTC", "2014-02-14 13:00 +0100", Some(noon)),
            ("%Y-%m-%d %H:%M %z", "Asia/Tokyo", "2014-02-14 13:00 +0100", Some(noon)),
            ("%Y-%m-%d %I:%M %p", "UTC", "2014-02-14 12:00 PM", Some(noon)),
            ("%Y-%m-%d %H", "UTC", "2014-02-14 12", Some(noon)),
            ("%Y%m%d%H", "UTC", "2014021412", Some(noon)),
            ("%Y-%j %H:%M:%S%.f", "UTC", "2014-045 12:00:00.5", Some(noon + SECOND / 2)),
            ("%s", "Asia/Tokyo", "1392379200", Some(noon)),
            ("%H:%M %a %d %b %Y", "Europe/Berlin", "13:00 Fri 14 Feb 2014", Some(noon)),
            // Not written by the pattern: a rest, another weekday, less than there should be.
            ("%Y-%m-%d %H", "UTC", "2010-01-02 13,159", None),
            ("%Y-%m-%d %H", "UTC", "2010-01-02 13:30", None),
            ("%Y-%m-%d", "UTC", "2010-01-02 13:30", None),
            ("%Y-%m-%d %H:%M", "UTC", "2010-01-02 13", None),
            ("%H:%M %a %d %b %Y", "UTC", "12:00 Mon 14 Feb 2014", None),
            ("%Y-%m-%d %H:%M %z", "UTC", "2014-02-14 13:00 EST", None),
        ];
        for (pattern, zone, text, expected) in cases {
            assert_eq!(
                times(Some(pattern), zone).parse(text).ok(),
                expected,
                "{text} by {pattern} in {zone}"
            );
        }
    }

    #[test]
    fn patterns_that_determine_no_instant_are_refused() {
        let cases = [
            "%Y-%m-%d %H:%M:%S %Z",
            "%d/%b/%Y:%H:%M:%S %Z",
            "%H:%M:%S",
            "%Y-%m",
            "%Y",
            "%m-%d %H:%M",
            "%Y-%d %H:%M",
            "%Y-%m-%d %I:%M",
            "%Y-%m-%d %M:%S",
            "%Y-%m-%d %H:%S",
            "%Y-%m-%d %S",
            "%G-W%V %H:%M",
            "%a %H:%M",
            "%Y-%m-%d %p",
            "%z",
            "",
            "timestamp",
            "%Q",
            "%Y-%m-%d %",
        ];
        for pattern in cases {
            let refused = Times::new(Some(pattern), Zone::UTC);
            assert!(refused.is_err(), "{pattern}: {refused:?}");
        }
        let refused = Times::new(Some("%Y-%m-%d %H:%M:%S %Z"), Zone::UTC).expect_err("names of zones");
        assert!(refused.contains("--time-zone"), "{refused}");
    }

    #[test]
    fn local_times_that_are_skipped_or_there_twice_are_refused() {
        let berlin = times(None, "Europe/Berlin");
        let utc = |text: &str| times(None, "UTC").parse(text).expect(text);
        assert_eq!(berlin.parse("2024-03-31 01:59:59"), Ok(utc("2024-03-31 00:59:59")));
        assert_eq!(
            berlin.parse("2024-03-31 02:30:00"),
            Err("2024-03-31 02:30:00 is no time in Europe/Berlin: the clock skips it".to_owned())
        );
        assert_eq!(berlin.parse("2024-03-31 03:00:00"), Ok(utc("2024-03-31 01:00:00")));
        assert_eq!(
            berlin.parse("2024-10-27 02:30:00"),
            Err("2024-10-27 02:30:00 is there twice in Europe/Berlin: only a time with its offset says which is meant"
                .to_owned())
        );
        assert_eq!(berlin.parse("2024-10-27T02:30:00+01:00"), Ok(utc("2024-10-27 01:30:00")));
        assert_eq!(times(None, "+05:30").parse("2024-10-27 02:30:00"), Ok(utc("2024-10-26 21:00:00")));
        for wrong in ["", "CEST", "Berlin", "01:00", "+25:00"] {
            assert!(parse_zone(wrong).is_err(), "{wrong}");
        }
    }

    /// Pieces of patterns; some of them determine a time together, most do not.
    fn pattern() -> impl Strategy<Value = String> {
        let pieces = [
            "%Y", "%y", "%C", "%m", "%b", "%d", "%e", "%j", "%a", "%u", "%U", "%W", "%G", "%g", "%V", "%H",
            "%I", "%l", "%k", "%p", "%M", "%S", "%f", "%.f", "%3f", "%.3f", "%z", "%:z", "%#z", "%Z", "%s",
            "%D", "%F", "%T", "%R", "%r", "%c", "%+", "%v", "%%", "%n", "T",
        ];
        let piece = proptest::sample::select(pieces.to_vec());
        proptest::collection::vec((piece, "[ :/.-]"), 1..9).prop_map(|pieces| {
            pieces.into_iter().map(|(piece, between)| format!("{piece}{between}")).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Whatever a pattern that is taken leaves out is finer than what it has: two times that
        /// are written alike lie in one unit, and what is read is that unit's beginning.
        #[test]
        fn what_a_pattern_reads_is_what_was_written(
            pattern in pattern(),
            // Two digits of a year stand for 1970 to 2068.
            seconds in 0_i64..3_092_000_000,
            nanosecond in 0_u32..1_000_000_000,
        ) {
            let Ok(read) = Times::new(Some(&pattern), Zone::UTC) else { return Ok(()) };
            let time = DateTime::from_timestamp(seconds, nanosecond).expect("in range");
            let written = time.format(&pattern).to_string();
            let found = read.parse(&written).unwrap_or_else(|problem| panic!("{pattern}: {written}: {problem}"));
            let exact = time.timestamp_nanos_opt().expect("in range");
            let units = [1, 1_000, 1_000_000, SECOND, 60 * SECOND, 3_600 * SECOND, 86_400 * SECOND];
            let is_cut = units.iter().any(|unit| exact.div_euclid(*unit) * unit == found);
            prop_assert!(is_cut, "{}: {} was read as {} and not {}", pattern, written, found, exact);
        }
    }
}
