//! What each receiver has settled at and after an offset, and its text, which is committed with that offset.
//!
//! A receiver that is away holds the committed offset back while others go on. The text spares these the repetition
//! after a restart. It is JSON, for each receiver half-open ranges counted from the offset: `{"oncall":[[0,3],[5,9]]}`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of text at most. Brokers take 4,096 by default (`offset.metadata.max.bytes`).
const MAX_TEXT: usize = 3_000;

/// Ranges of offsets by receiver, in order and apart from each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Progress {
    ranges: BTreeMap<Arc<str>, Vec<Range<i64>>>,
}

impl Progress {
    pub(super) fn contains(&self, receiver: &str, offset: i64) -> bool {
        self.ranges.get(receiver).is_some_and(|ranges| ranges.iter().any(|range| range.contains(&offset)))
    }

    /// Adds a range that begins at or after the end of the receiver's last one.
    pub(super) fn push(&mut self, receiver: &Arc<str>, range: Range<i64>) {
        if range.is_empty() {
            return;
        }
        let ranges = self.ranges.entry(Arc::clone(receiver)).or_default();
        match ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => ranges.push(range),
        }
    }

    /// The ranges of a receiver, without what is below `from`; some may be empty.
    pub(super) fn after(&self, receiver: &str, from: i64) -> impl Iterator<Item = Range<i64>> {
        let ranges = self.ranges.get(receiver).map(Vec::as_slice).unwrap_or_default();
        ranges.iter().map(move |range| range.start.max(from)..range.end)
    }

    /// The text to be committed with the offset `base`, empty when there is nothing to say. Where it would be too
    /// long, the later ranges are left out: they only spare repetition.
    pub(super) fn encode(&self, base: i64) -> String {
        let mut keep = self.ranges.values().map(Vec::len).max().unwrap_or_default();
        while keep > 0 {
            let shortened: BTreeMap<&str, Vec<(i64, i64)>> = self
                .ranges
                .iter()
                .map(|(receiver, ranges)| {
                    let relative =
                        ranges.iter().take(keep).map(|range| (range.start - base, range.end - base));
                    (&**receiver, relative.collect())
                })
                .collect();
            let text = serde_json::to_string(&shortened).expect("text keys and numbers have a JSON form");
            if text.len() <= MAX_TEXT {
                return text;
            }
            keep /= 2;
        }
        String::new()
    }

    /// Reads the text that was committed with the offset `base`; `None` when it is not one of [`Self::encode`].
    pub(super) fn decode(base: i64, text: &str) -> Option<Self> {
        let mut progress = Self::default();
        if text.is_empty() {
            return Some(progress);
        }
        let relative: BTreeMap<String, Vec<(i64, i64)>> = serde_json::from_str(text).ok()?;
        for (receiver, ranges) in relative {
            let receiver: Arc<str> = receiver.into();
            let mut last_end = 0;
            for (start, end) in ranges {
                if start < last_end || end <= start {
                    return None;
                }
                last_end = end;
                progress.push(&receiver, base.checked_add(start)?..base.checked_add(end)?);
            }
        }
        Some(progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(of: &[(&str, &[(i64, i64)])]) -> Progress {
        let mut progress = Progress::default();
        for (receiver, ranges) in of {
            for &(start, end) in *ranges {
                progress.push(&Arc::from(*receiver), start..end);
            }
        }
        progress
    }

    #[test]
    fn text_and_back() {
        for (given, text) in [
            (progress(&[]), ""),
            (progress(&[("a", &[(100, 100)])]), ""),
            (progress(&[("a", &[(100, 103), (105, 107), (107, 109)])]), r#"{"a":[[0,3],[5,9]]}"#),
            (
                progress(&[("say \"b\"", &[(101, 102)]), ("a", &[(100, 101)])]),
                r#"{"a":[[0,1]],"say \"b\"":[[1,2]]}"#,
            ),
        ] {
            assert_eq!(given.encode(100), text);
            assert_eq!(Progress::decode(100, text), Some(given), "{text}");
        }
    }

    #[test]
    fn foreign_text_is_not_taken() {
        for text in [
            "node-1",
            "[]",
            r#"{"a":[[0]]}"#,
            r#"{"a":[[3,3]]}"#,
            r#"{"a":[[-1,3]]}"#,
            r#"{"a":[[0,4],[3,5]]}"#,
            r#"{"a":[[0,9223372036854775807]]}"#,
        ] {
            assert_eq!(Progress::decode(100, text), None, "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out_from_the_end() {
        let mut long = Progress::default();
        for i in 0..1_000 {
            long.push(&"a".into(), 2 * i..2 * i + 1);
        }
        long.push(&"b".into(), 0..2_000);
        let text = long.encode(0);
        assert!(text.len() <= MAX_TEXT && text.len() > MAX_TEXT / 3, "{} bytes", text.len());
        let kept = Progress::decode(0, &text).expect("own text");
        assert!(kept.contains("a", 0) && kept.contains("a", 200) && kept.contains("b", 1_999));
        assert!(!kept.contains("a", 1_998));

        let mut names = Progress::default();
        names.push(&"n".repeat(MAX_TEXT).into(), 0..1);
        assert_eq!(names.encode(0), "");
    }

    #[test]
    fn what_is_below_is_cut_off() {
        let progress = progress(&[("a", &[(10, 20), (25, 30)])]);
        for (from, expected) in
            [(0, vec![(10, 20), (25, 30)]), (15, vec![(15, 20), (25, 30)]), (27, vec![(27, 30)])]
        {
            let after: Vec<_> = progress
                .after("a", from)
                .filter(|range| !range.is_empty())
                .map(|range| (range.start, range.end))
                .collect();
            assert_eq!(after, expected, "from {from}");
        }
        assert_eq!(progress.after("b", 0).count(), 0);
    }
}
