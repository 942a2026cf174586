//! Windows that follow the clock of a time zone, given by their boundaries: so they tile time
//! whatever the clock does.
//!
//! Windows of more than an hour follow the clock: a boundary is the first instant at which it shows
//! a multiple of the length, or, where it skips that, the first instant after. What it shows a
//! second time belongs to the window in which it was shown first, so a day has 23, 24 or 25 hours.
//!
//! Windows of an hour or less keep their length where they can: each instant at which the clock
//! shows a multiple of the length is a boundary, so an hour that it shows twice is two windows.
//! Where it skips a multiple, the change is one.
//!
//! The boundaries of a length are among those of each length that divides it, also when one is more
//! than an hour and the other is not: a window lies in one window of every coarser tier.

use chrono::{DateTime, LocalResult, Offset, TimeZone};
use chrono_tz::{GapInfo, Tz};

use super::{HOUR, floor};

/// Start of the window that holds `time`. All times are nanoseconds.
pub(super) fn start(zone: Tz, size: i64, time: i64) -> i64 {
    if size <= HOUR {
        return short_start(zone, size, time);
    }
    let mut shown = floor(local(zone, time), size);
    let mut start = first_shown(zone, shown);
    // Where the clock has gone back, a later boundary may be past already.
    loop {
        shown = shown.saturating_add(size);
        let next = first_shown(zone, shown);
        if next > time || next == i64::MAX {
            return start;
        }
        start = next;
    }
}

/// End of the window that starts at `start`.
pub(super) fn end(zone: Tz, size: i64, start: i64) -> i64 {
    if size <= HOUR {
        return short_end(zone, size, start);
    }
    let mut shown = floor(local(zone, start), size);
    // A gap may hold several multiples, which share a boundary.
    loop {
        shown = shown.saturating_add(size);
        let next = first_shown(zone, shown);
        if next > start || next == i64::MAX {
            return next;
        }
    }
}

fn short_start(zone: Tz, size: i64, mut time: i64) -> i64 {
    loop {
        let offset = offset_at(zone, time);
        let shown = floor(time.saturating_add(offset), size);
        let start = shown.saturating_sub(offset);
        if offset_at(zone, start) == offset {
            return start;
        }
        let change = last_change(zone, start, time);
        // The clock has skipped what the window would start with.
        if shown >= change.saturating_add(offset_at(zone, change - 1)) {
            return change;
        }
        time = change - 1;
    }
}

fn short_end(zone: Tz, size: i64, start: i64) -> i64 {
    let mut time = start;
    loop {
        let offset = offset_at(zone, time);
        let shown = floor(time.saturating_add(offset), size).saturating_add(size);
        let end = shown.saturating_sub(offset);
        if end == i64::MAX || offset_at(zone, end) == offset {
            return end;
        }
        let change = first_change(zone, time, end);
        let after = change.saturating_add(offset_at(zone, change));
        // The clock shows a multiple after the change, or has skipped one.
        let multiple = floor(after, size);
        if multiple == after || multiple >= change.saturating_add(offset) {
            return change;
        }
        time = change;
    }
}

/// The last instant in `(from, to]` at which the clock changes to the offset that it has at `to`.
fn last_change(zone: Tz, mut from: i64, mut to: i64) -> i64 {
    let offset = offset_at(zone, to);
    while to - from > 1 {
        let middle = from + (to - from) / 2;
        match offset_at(zone, middle) == offset {
            true => to = middle,
            false => from = middle,
        }
    }
    to
}

/// The first instant in `(from, to]` at which the clock changes from the offset that it has at
/// `from`.
fn first_change(zone: Tz, mut from: i64, mut to: i64) -> i64 {
    let offset = offset_at(zone, from);
    while to - from > 1 {
        let middle = from + (to - from) / 2;
        match offset_at(zone, middle) == offset {
            true => from = middle,
            false => to = middle,
        }
    }
    to
}

fn local(zone: Tz, time: i64) -> i64 {
    time.saturating_add(offset_at(zone, time))
}

pub(super) fn offset_at(zone: Tz, time: i64) -> i64 {
    let utc = DateTime::from_timestamp_nanos(time).naive_utc();
    i64::from(zone.offset_from_utc_datetime(&utc).fix().local_minus_utc()) * 1_000_000_000
}

/// The first instant at which the clock shows `local` or, where it skips that, the first after the
/// gap.
fn first_shown(zone: Tz, local: i64) -> i64 {
    let shown = DateTime::from_timestamp_nanos(local).naive_utc();
    let first = match zone.from_local_datetime(&shown) {
        LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => Some(at),
        LocalResult::None => GapInfo::new(&shown, &zone).and_then(|gap| gap.end),
    };
    // At the ends of time.
    first.and_then(|at| at.timestamp_nanos_opt()).unwrap_or(if local < 0 { i64::MIN } else { i64::MAX })
}
