//! Times at which a route tells nothing: nights, weekends, the last day of a month.
//!
//! Windows are written in local time. Where the clock is put forward, a time that does not exist is
//! the moment at which the clock jumps; where it is put back, a window lasts from the first of two
//! equal times to the second.

use chrono::{DateTime, Datelike, Days, Duration, LocalResult, NaiveDate, NaiveDateTime, TimeZone};
use chrono_tz::Tz;

/// How far ahead the end of a mute is looked for. A later end is found when this one is reached.
const HORIZON_DAYS: usize = 40;

const DAY_MINUTES: u16 = 24 * 60;
const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// A name for windows. It is active in any of them.
#[derive(Clone, Debug)]
pub struct Mute {
    pub name: String,
    pub zone: Tz,
    pub windows: Vec<Window>,
}

/// Times of days. All that is given must hold; what is empty always does. A time over midnight
/// belongs to the day on which it begins.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Window {
    pub times: Vec<TimeRange>,
    pub weekdays: Vec<Range>,
    pub days_of_month: Vec<Range>,
    pub months: Vec<Range>,
}

/// From minute to minute of a day. It goes over midnight when the end is not after the start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TimeRange {
    start: u16,
    end: u16,
}

/// Numbers from first to last, both included: Monday is 1, January is 1, and -1 is the last day of
/// a month.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Range {
    first: i8,
    last: i8,
}

impl TimeRange {
    /// Reads `22:00-06:00`. The error names the mistake and the remedy.
    pub fn parse(text: &str) -> Result<Self, String> {
        let minute = |text: &str| {
            let (hours, minutes) = text.trim().split_once(':')?;
            let (hours, minutes) = (number(hours)?, number(minutes)?);
            let all = u16::try_from(hours * 60 + minutes).ok()?;
            (minutes < 60 && all <= DAY_MINUTES).then_some(all)
        };
        let range = text.split_once('-').and_then(|(start, end)| Some((minute(start)?, minute(end)?)));
        match range {
            Some((start, end)) if start != end && start != DAY_MINUTES => Ok(Self { start, end }),
            _ => Err(format!(
                "`{text}` is no range of times; write two different ones from 00:00 to 24:00, as in `22:00-06:00`"
            )),
        }
    }
}

impl Range {
    /// Reads `mon`, `monday`, `mon-fri`, `sat-mon`.
    pub fn parse_weekdays(text: &str) -> Result<Self, String> {
        named(text, &WEEKDAYS)
            .ok_or_else(|| format!("`{text}` is no weekday; write one or two, as in `mon-fri`"))
    }

    /// Reads `january`, `jan`, `1`, `nov-feb`.
    pub fn parse_months(text: &str) -> Result<Self, String> {
        named(text, &MONTHS).ok_or_else(|| format!("`{text}` is no month; write one or two, as in `nov-feb`"))
    }

    /// Reads `1`, `1-7`, `1:7`, `-1`, `-3:-1`.
    pub fn parse_days_of_month(text: &str) -> Result<Self, String> {
        let day = |text: &str| {
            let digits = text.strip_prefix('-').unwrap_or(text);
            let day = i8::try_from(number(digits)?).ok()?;
            (1..=31).contains(&day).then_some(if digits == text { day } else { -day })
        };
        let trimmed = text.trim();
        let (first, last) = match trimmed.split_once(':') {
            Some(range) => range,
            None => match trimmed.get(1..).and_then(|rest| rest.find('-')) {
                Some(hyphen) => (&trimmed[..=hyphen], &trimmed[hyphen + 2..]),
                None => (trimmed, trimmed),
            },
        };
        let range = day(first.trim()).zip(day(last.trim()));
        match range {
            Some((first, last)) if (first > 0) != (last > 0) || first <= last => Ok(Self { first, last }),
            _ => Err(format!(
                "`{text}` is no day of a month; write 1 to 31, -1 to -31 from its end, or two, as in `1:7` or `-3:-1`"
            )),
        }
    }

    /// Whether the number is in the range, which goes on from the end of the cycle to its start.
    fn has(self, number: u32) -> bool {
        let number = i64::from(number);
        let (first, last) = (i64::from(self.first), i64::from(self.last));
        if first <= last { (first..=last).contains(&number) } else { number >= first || number <= last }
    }

    fn has_day(self, date: NaiveDate) -> bool {
        let length = i64::from(date.num_days_in_month());
        let day = |number: i8| match i64::from(number) {
            number if number < 0 => number + length + 1,
            number => number,
        };
        (day(self.first)..=day(self.last)).contains(&i64::from(date.day()))
    }
}

fn number(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// Names, their first three letters, or their numbers from 1.
fn named(text: &str, names: &[&str]) -> Option<Range> {
    let one = |text: &str| {
        let word = text.trim().to_lowercase();
        let known = names.iter().position(|name| *name == word || name.get(..3) == Some(&word));
        let position = known.or_else(|| usize::try_from(number(&word)?).ok()?.checked_sub(1))?;
        (position < names.len()).then(|| i8::try_from(position + 1).ok()).flatten()
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(Range { first: one(first)?, last: one(last)? })
}

impl Window {
    fn is_on(&self, date: NaiveDate) -> bool {
        let any = |ranges: &[Range], has: &dyn Fn(Range) -> bool| {
            ranges.is_empty() || ranges.iter().any(|r| has(*r))
        };
        any(&self.weekdays, &|range| range.has(date.weekday().number_from_monday()))
            && any(&self.days_of_month, &|range| range.has_day(date))
            && any(&self.months, &|range| range.has(date.month()))
    }
}

impl Mute {
    pub fn is_active(&self, at: i64) -> bool {
        self.covered_until(at).is_some()
    }

    /// When it is over, if it is active now. One that is for many weeks is reported to end earlier
    /// than it does, and is active still when asked then.
    pub fn ends(&self, at: i64) -> Option<i64> {
        let mut end = self.covered_until(at)?;
        for _ in 0..HORIZON_DAYS {
            match self.covered_until(end) {
                Some(later) => end = later,
                None => break,
            }
        }
        Some(end)
    }

    /// The latest end of the windows' times in which a moment is.
    fn covered_until(&self, at: i64) -> Option<i64> {
        const ALL_DAY: [TimeRange; 1] = [TimeRange { start: 0, end: DAY_MINUTES }];
        let today = DateTime::from_timestamp_nanos(at).with_timezone(&self.zone).date_naive();
        let mut latest = None;
        for date in [today.checked_sub_days(Days::new(1)), Some(today)].into_iter().flatten() {
            for window in self.windows.iter().filter(|window| window.is_on(date)) {
                let times = if window.times.is_empty() { &ALL_DAY[..] } else { &window.times };
                for range in times {
                    let over_midnight = if range.end <= range.start { DAY_MINUTES } else { 0 };
                    let start = self.instant(date, range.start, false);
                    let end = self.instant(date, range.end + over_midnight, true);
                    if start <= Some(at) && start.is_some() && Some(at) < end {
                        latest = latest.max(end);
                    }
                }
            }
        }
        latest
    }

    /// The moment of a local time, of two the second if `last`.
    fn instant(&self, date: NaiveDate, minute: u16, last: bool) -> Option<i64> {
        let mut local: NaiveDateTime = date.and_hms_opt(0, 0, 0)? + Duration::minutes(minute.into());
        // No clock has been put forward by more than a day.
        for _ in 0..=DAY_MINUTES {
            let found = match self.zone.from_local_datetime(&local) {
                LocalResult::Single(at) => at,
                LocalResult::Ambiguous(first, second) => {
                    if last {
                        second
                    } else {
                        first
                    }
                }
                LocalResult::None => {
                    local += Duration::minutes(1);
                    continue;
                }
            };
            return found.timestamp_nanos_opt();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_nanos_opt().unwrap()
    }

    /// A mute from `zone; times; weekdays; days; months`, each a list with commas.
    fn mute(text: &str) -> Mute {
        let parts: Vec<&str> = text.split(';').map(str::trim).collect();
        fn list<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
            text.split(',').filter(|item| !item.is_empty()).map(|item| parse(item.trim()).unwrap()).collect()
        }
        let window = Window {
            times: list(parts[1], TimeRange::parse),
            weekdays: list(parts[2], Range::parse_weekdays),
            days_of_month: list(parts[3], Range::parse_days_of_month),
            months: list(parts[4], Range::parse_months),
        };
        Mute { name: "quiet".into(), zone: parts[0].parse().unwrap(), windows: vec![window] }
    }

    #[test]
    fn windows_begin_and_end_in_local_time() {
        // The mute, a moment, the end if it is active then.
        let cases = [
            ("UTC; 22:00-06:00; ; ; ", "2026-11-25T21:59:59Z", None),
            ("UTC; 22:00-06:00; ; ; ", "2026-11-25T22:00:00Z", Some("2026-11-26T06:00:00Z")),
            ("UTC; 22:00-06:00; ; ; ", "2026-11-26T05:59:59Z", Some("2026-11-26T06:00:00Z")),
            ("UTC; 22:00-06:00; ; ; ", "2026-11-26T06:00:00Z", None),
            // Over midnight it belongs to the day on which it begins: 27 November is a Friday.
            ("UTC; 22:00-06:00; fri; ; ", "2026-11-28T03:00:00Z", Some("2026-11-28T06:00:00Z")),
            ("UTC; 22:00-06:00; fri; ; ", "2026-11-27T03:00:00Z", None),
            ("UTC; ; sat-sun; ; ", "2026-11-28T12:00:00Z", Some("2026-11-30T00:00:00Z")),
            ("UTC; ; sat-mon; ; ", "2026-11-30T12:00:00Z", Some("2026-12-01T00:00:00Z")),
            ("UTC; 08:00-12:00,12:00-13:00; ; ; ", "2026-11-28T09:00:00Z", Some("2026-11-28T13:00:00Z")),
            ("UTC; 20:00-24:00; ; ; ", "2026-11-28T21:00:00Z", Some("2026-11-29T00:00:00Z")),
            ("UTC; ; ; -1; ", "2026-11-30T12:00:00Z", Some("2026-12-01T00:00:00Z")),
            ("UTC; ; ; -1; ", "2026-12-30T12:00:00Z", None),
            ("UTC; ; ; -1; ", "2028-02-29T12:00:00Z", Some("2028-03-01T00:00:00Z")),
            ("UTC; ; ; -3:-1; ", "2026-02-26T12:00:00Z", Some("2026-03-01T00:00:00Z")),
            ("UTC; ; ; 1-7; ", "2026-02-07T12:00:00Z", Some("2026-02-08T00:00:00Z")),
            ("UTC; ; ; 31; ", "2026-11-30T12:00:00Z", None),
            ("UTC; ; ; 28:-1; nov-feb", "2026-02-28T12:00:00Z", Some("2026-03-01T00:00:00Z")),
            ("UTC; ; ; 28:-1; nov-feb", "2026-03-28T12:00:00Z", None),
            // The clock goes from 02:00 to 03:00 on 29 March 2026, and from 03:00 to 02:00 on 25
            // October.
            ("Europe/Berlin; 22:00-06:00; ; ; ", "2026-03-29T03:59:59Z", Some("2026-03-29T04:00:00Z")),
            ("Europe/Berlin; 22:00-06:00; ; ; ", "2026-03-28T20:30:00Z", None),
            ("Europe/Berlin; 22:00-06:00; ; ; ", "2026-10-24T20:00:00Z", Some("2026-10-25T05:00:00Z")),
            ("Europe/Berlin; 02:30-04:00; ; ; ", "2026-03-29T00:59:59Z", None),
            ("Europe/Berlin; 02:30-04:00; ; ; ", "2026-03-29T01:00:00Z", Some("2026-03-29T02:00:00Z")),
            ("Europe/Berlin; 01:00-02:30; ; ; ", "2026-03-29T00:59:59Z", Some("2026-03-29T01:00:00Z")),
            ("Europe/Berlin; 02:15-02:45; ; ; ", "2026-03-29T01:00:00Z", None),
            ("Europe/Berlin; 02:15-02:45; ; ; ", "2026-10-25T00:15:00Z", Some("2026-10-25T01:45:00Z")),
            ("Europe/Berlin; 02:15-02:45; ; ; ", "2026-10-25T01:45:00Z", None),
            ("Europe/Berlin; ; sun; ; ", "2026-10-25T22:59:59Z", Some("2026-10-25T23:00:00Z")),
            ("America/New_York; 00:00-24:00; mon; ; ", "2026-11-24T04:59:59Z", Some("2026-11-24T05:00:00Z")),
        ];
        for (text, moment, expected) in cases {
            let (mute, moment) = (mute(text), at(moment));
            assert_eq!(mute.ends(moment), expected.map(at), "{text} at {moment}");
            assert_eq!(mute.is_active(moment), expected.is_some(), "{text} at {moment}");
        }
    }

    #[test]
    fn a_mute_without_end_ends_later_than_now() {
        let now = at("2026-11-25T12:00:00Z");
        let end = mute("UTC; ; ; ; ").ends(now).unwrap();
        assert!(end > now + 30 * 86_400_000_000_000, "{end}");
    }

    #[test]
    fn mistakes_come_with_their_remedy() {
        let times =
            ["", "22:00", "22-06", "22:00-25:00", "22:60-23:00", "24:00-06:00", "08:00-08:00", "+1:00-02:00"];
        for text in times {
            assert!(TimeRange::parse(text).unwrap_err().contains("`22:00-06:00`"), "{text}");
        }
        for text in ["", "m", "mon-", "0", "8", "mon,tue"] {
            assert!(Range::parse_weekdays(text).unwrap_err().contains("`mon-fri`"), "{text}");
        }
        for text in ["", "foo", "13", "0"] {
            assert!(Range::parse_months(text).unwrap_err().contains("`nov-feb`"), "{text}");
        }
        for text in ["", "0", "32", "-32", "7:1", "-1:-3", "1-", "a"] {
            assert!(Range::parse_days_of_month(text).unwrap_err().contains("`1:7`"), "{text}");
        }
    }
}
