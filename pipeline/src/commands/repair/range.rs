//! Ranges of event time: as they are given, widened to whole windows, and in chunks of bounded
//! size.

use std::collections::BTreeMap;

use operators::window::Windows;
use sinks::parquet::live::{HOUR, Hours};

/// Bytes of Parquet that go into one chunk: some ten million points.
pub(crate) const CHUNK_BYTES: u64 = 32 << 20;
/// Windows of a chunk where there are few points: what bounds the rows that a store gives.
const CHUNK_WINDOWS: i64 = 20_000;

/// The starts of all windows that hold a time of `[from, to)`, as a range.
pub(super) fn whole_windows(windows: &Windows, from: i64, to: i64) -> (i64, i64) {
    (first_window(windows, from), next_start(windows, to))
}

/// Start of the oldest window that holds `time`.
pub(crate) fn first_window(windows: &Windows, time: i64) -> i64 {
    let start = windows.start(time);
    windows.holding(start).next().unwrap_or(start)
}

/// The first start of a window at or after `time`.
pub(crate) fn next_start(windows: &Windows, time: i64) -> i64 {
    let start = windows.start(time);
    if start == time { time } else { windows.pane().end(start) }
}

/// A range of starts in consecutive parts, each an hour or a window at least, and with little to
/// read.
pub(super) fn chunks(windows: &Windows, from: i64, to: i64, hours: &Hours) -> Vec<(i64, i64)> {
    let bytes: BTreeMap<i64, u64> =
        hours.iter().map(|(hour, files)| (*hour, files.iter().map(|file| file.size).sum())).collect();
    let longest = windows.size().saturating_mul(CHUNK_WINDOWS).max(HOUR);
    let mut chunks = Vec::new();
    let mut start = from;
    while start < to {
        let mut end = start;
        let mut read = 0;
        while end < to {
            let next = next_start(windows, end.saturating_add(HOUR)).min(to);
            // An hour that two chunks share is counted by both, as both read it.
            let first_hour = end.div_euclid(HOUR).saturating_mul(HOUR);
            read += bytes.range(first_hour..next).map(|(_, bytes)| bytes).sum::<u64>();
            let is_enough = read > CHUNK_BYTES || next.saturating_sub(start) > longest;
            if is_enough && end > start {
                break;
            }
            end = next;
        }
        chunks.push((start, end));
        start = end;
    }
    chunks
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use object_store::ObjectMeta;
    use object_store::path::Path;
    use operators::window::Tumble;

    use super::*;
    use crate::time::{parse_time, shown};

    fn tumbling(size: i64, zone: Option<&str>) -> Windows {
        Windows::tumbling(Tumble::new(size, zone).unwrap())
    }

    #[test]
    fn a_range_is_widened_to_whole_windows() {
        let windows = tumbling(HOUR, None);
        assert_eq!(whole_windows(&windows, HOUR, 2 * HOUR), (HOUR, 2 * HOUR));
        assert_eq!(whole_windows(&windows, HOUR + 1, 2 * HOUR + 1), (HOUR, 3 * HOUR));
        assert_eq!(whole_windows(&windows, -1, 1), (-HOUR, HOUR));
        let hops = Windows::hopping(3 * HOUR, HOUR).unwrap();
        assert_eq!(whole_windows(&hops, 10 * HOUR + 1, 11 * HOUR), (8 * HOUR, 11 * HOUR));
        assert_eq!(hops.end_of_last(11 * HOUR), 13 * HOUR);
        let day = tumbling(24 * HOUR, Some("Europe/Berlin"));
        let (from, to) =
            whole_windows(&day, parse_time("2024-03-31").unwrap(), parse_time("2024-03-31T12:00").unwrap());
        assert_eq!(
            (shown(from).as_str(), shown(to).as_str()),
            ("2024-03-30T23:00:00Z", "2024-03-31T22:00:00Z")
        );
    }

    #[test]
    fn chunks_follow_each_other_and_are_cut_by_what_they_read() {
        let file = |size| ObjectMeta {
            location: Path::from("x"),
            last_modified: DateTime::UNIX_EPOCH,
            size,
            e_tag: None,
            version: None,
        };
        let dense: Hours = (0..100).map(|hour| (hour * HOUR, vec![file(20 << 20)])).collect();
        for (size, zone) in [(60_000_000_000, None), (7 * HOUR, None), (24 * HOUR, Some("America/New_York"))]
        {
            let windows = tumbling(size, zone);
            let (from, to) = whole_windows(&windows, 3 * HOUR, 90 * HOUR);
            for hours in [&dense, &Hours::new()] {
                let chunks = chunks(&windows, from, to, hours);
                assert_eq!((chunks[0].0, chunks[chunks.len() - 1].1), (from, to));
                for pair in chunks.windows(2) {
                    assert_eq!(pair[0].1, pair[1].0);
                    assert_eq!(windows.start(pair[1].0), pair[1].0);
                }
                if hours.is_empty() {
                    assert_eq!(chunks.len(), 1);
                } else {
                    assert!(chunks.len() > 3, "{chunks:?}");
                }
            }
        }
    }
}
