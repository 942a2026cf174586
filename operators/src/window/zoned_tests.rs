//! Windows over every change of every zone's clock since 1971, held against the definition of their
//! boundaries.

use std::collections::BTreeSet;

use chrono_tz::{TZ_VARIANTS, Tz};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const MINUTE: i64 = HOUR / 60;
const SECOND: i64 = MINUTE / 60;
/// Every length that windows in a zone may have is drawn from these, which divide a day.
const LENGTHS: [i64; 24] = [
    SECOND,
    50 * SECOND,
    MINUTE,
    90 * SECOND,
    5 * MINUTE,
    10 * MINUTE,
    15 * MINUTE,
    20 * MINUTE,
    24 * MINUTE,
    30 * MINUTE,
    32 * MINUTE,
    40 * MINUTE,
    45 * MINUTE,
    48 * MINUTE,
    HOUR,
    72 * MINUTE,
    80 * MINUTE,
    90 * MINUTE,
    2 * HOUR,
    3 * HOUR,
    4 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
];

/// When the clock changes, from 1971 to 2040, and its offset before and after.
fn changes(zone: Tz) -> Vec<(i64, i64, i64)> {
    let (from, to) = (31_536_000 * SECOND, 2_208_988_800 * SECOND);
    let mut changes = Vec::new();
    let (mut at, mut offset) = (from, zoned::offset_at(zone, from));
    while at < to {
        let next = at + 6 * HOUR;
        let after = zoned::offset_at(zone, next);
        if after != offset {
            let (mut low, mut high) = (at, next);
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                if zoned::offset_at(zone, middle) == offset { low = middle } else { high = middle }
            }
            changes.push((high, offset, after));
            assert_eq!(zoned::offset_at(zone, high), after, "{zone}: one change in six hours");
        }
        (at, offset) = (next, after);
    }
    changes
}

/// The boundaries in `[from, to)` by their definition, from the changes of the clock alone.
fn boundaries(zone: Tz, size: i64, from: i64, to: i64) -> BTreeSet<i64> {
    let changes: Vec<_> =
        changes(zone).into_iter().filter(|(at, ..)| (from - 3 * DAY..to + 3 * DAY).contains(at)).collect();
    // Stretches of one offset.
    let mut stretches = Vec::new();
    let mut start = from - 3 * DAY;
    let mut offset = zoned::offset_at(zone, start);
    for (at, _, after) in &changes {
        stretches.push((start, *at, offset));
        (start, offset) = (*at, *after);
    }
    stretches.push((start, to + 3 * DAY, offset));

    let mut boundaries = BTreeSet::new();
    // The latest that the clock has shown.
    let mut latest = i64::MIN;
    for (start, end, offset) in stretches {
        let multiples = |from: i64, to: i64| {
            let first = floor(from + size - 1, size);
            (0..).map(move |k| first + k * size).take_while(move |multiple| *multiple < to)
        };
        let (shows, until) = (start + offset, end + offset);
        let skipped = latest > i64::MIN && multiples(latest, shows).next().is_some();
        if skipped {
            boundaries.insert(start);
        }
        if size <= HOUR {
            // What the clock has not skipped is judged by the stretch before alone.
            boundaries.extend(multiples(shows, until).map(|shown| shown - offset));
            latest = until;
        } else {
            boundaries.extend(multiples(shows.max(latest), until).map(|shown| shown - offset));
            latest = latest.max(until);
        }
    }
    boundaries.into_iter().filter(|at| (from..to).contains(at)).collect()
}

fn check(zone: Tz, size: i64, from: i64, to: i64) {
    let windows = Tumble::new(size, Some(zone.name())).unwrap();
    let boundaries: Vec<i64> = boundaries(zone, size, from, to).into_iter().collect();
    for pair in boundaries.windows(2) {
        let (start, end) = (pair[0], pair[1]);
        for time in [start, start + 1, start + (end - start) / 2, end - 1] {
            assert_eq!(windows.start(time), start, "start of {time} in {windows}");
        }
        assert_eq!(windows.end(start), end, "end of {start} in {windows}");
    }
}

#[test]
fn ninety_minutes_over_the_change_in_new_york() {
    check(Tz::America__New_York, 90 * MINUTE, 1_730_600_000 * SECOND, 1_730_750_000 * SECOND);
    let windows = Tumble::new(90 * MINUTE, Some("America/New_York")).unwrap();
    // 2024-11-03: 00:00 EDT is 04:00Z, 01:30 is shown twice, 03:00 EST is 08:00Z.
    let midnight = 1_730_606_400 * SECOND;
    let mut at = midnight;
    let mut starts = Vec::new();
    while at < midnight + 7 * HOUR {
        starts.push((at - midnight) / MINUTE);
        at = windows.end(at);
    }
    assert_eq!(starts, [0, 90, 240, 330]);
}

#[test]
fn windows_tile_over_changes_of_many_kinds() {
    for (zone, near) in [
        // A change by half an hour.
        (Tz::Australia__Lord_Howe, 1_712_415_600),
        (Tz::Australia__Lord_Howe, 1_728_142_200),
        // A day that is skipped.
        (Tz::Pacific__Apia, 1_325_239_200),
        // Two hours.
        (Tz::Antarctica__Troll, 1_711_846_800),
        // Midnight is skipped, and shown twice.
        (Tz::America__Sao_Paulo, 1_541_300_400),
        (Tz::America__Havana, 1_730_610_000),
        // Offsets that are no whole number of minutes, and of hours.
        (Tz::Africa__Monrovia, 63_593_070),
        (Tz::Asia__Kathmandu, 504_901_800),
    ] {
        for size in LENGTHS.into_iter().filter(|size| *size >= 5 * MINUTE) {
            check(zone, size, (near - 200_000) * SECOND, (near + 200_000) * SECOND);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Around every change of every clock, windows of every length tile time, `start` is that of
    /// the window, points in order never go back, and each window lies in one of every multiple of
    /// its length.
    #[test]
    fn windows_tile_time_around_every_change_of_the_clock(
        zone in any::<Index>(),
        change in any::<Index>(),
        fine in prop::sample::select(LENGTHS.to_vec()),
        coarse in prop::sample::select(LENGTHS.to_vec()),
        offsets in prop::collection::vec(-30 * HOUR..30 * HOUR, 1..20),
    ) {
        let zone = TZ_VARIANTS[zone.index(TZ_VARIANTS.len())];
        let changes = changes(zone);
        let at = match changes.is_empty() {
            true => 1_700_000_000 * SECOND,
            false => changes[change.index(changes.len())].0,
        };
        if fine >= MINUTE {
            check(zone, fine, at - 36 * HOUR, at + 36 * HOUR);
        }
        let windows = Tumble::new(fine, Some(zone.name())).unwrap();
        let larger = Tumble::new(coarse, Some(zone.name())).unwrap();
        let mut times: Vec<i64> = offsets.iter().map(|offset| at + offset).collect();
        times.extend([at - 1, at, at + 1]);
        times.sort_unstable();
        let mut before = i64::MIN;
        for time in times {
            let start = windows.start(time);
            let end = windows.end(start);
            prop_assert!(start <= time && time < end, "{windows}: {start} {time} {end}");
            prop_assert_eq!(windows.start(start), start, "{}: of {}", windows, time);
            prop_assert_eq!(windows.start(end - 1), start, "{}: of {}", windows, time);
            prop_assert_eq!(windows.start(end), end, "{}: of {}", windows, time);
            prop_assert!(start >= before, "{windows}: {time}");
            before = start;
            if coarse % fine == 0 {
                let holds = larger.start(start);
                prop_assert_eq!(larger.start(time), holds, "{} in {}: {}", windows, larger, time);
                prop_assert!(end <= larger.end(holds), "{windows} in {larger}: {time}");
            }
        }
    }
}

/// The same for the changes of all zones, each with some lengths.
#[test]
fn every_change_of_every_clock_has_whole_windows() {
    let mut seen = std::collections::HashSet::new();
    let mut number = 0;
    for zone in TZ_VARIANTS {
        let changes = changes(zone);
        // Most names are those of another zone.
        if !seen.insert(changes.clone()) {
            continue;
        }
        for (at, ..) in changes {
            number += 1;
            let size = LENGTHS[number % LENGTHS.len()].max(5 * MINUTE);
            let windows = Tumble::new(size, Some(zone.name())).unwrap();
            let mut start = windows.start(at - 3 * HOUR);
            while start < at + 3 * HOUR {
                let end = windows.end(start);
                assert!(start < end && end - start <= 2 * DAY, "{windows}: {start} {end}");
                for time in [start, end - 1] {
                    assert_eq!(windows.start(time), start, "{windows}");
                }
                start = end;
            }
        }
    }
    assert!(number > 5_000, "{number}");
}
