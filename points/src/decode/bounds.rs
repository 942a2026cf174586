//! How long the texts of a series may be.

use super::rejection::{Fault, Reason, shown};

/// The longest texts of a series, in bytes. They become parts of keys, rows, alerts and log lines,
/// each of which has a bound of its own further on that a single label must not reach.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TextBounds {
    pub name: usize,
    pub label_key: usize,
    pub label_value: usize,
}

impl TextBounds {
    /// Texts of any length, for readers that leave the bounds to others.
    pub const NONE: Self = Self { name: usize::MAX, label_key: usize::MAX, label_value: usize::MAX };

    /// Why points of a series are refused, if one of its texts is too long.
    pub fn problem<'a>(
        &self,
        name: &str,
        mut labels: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Option<String> {
        let checked = self
            .check_name(name)
            .and_then(|()| labels.try_for_each(|(key, value)| self.check_label(key, value)));
        checked.err().map(|fault| fault.detail)
    }

    pub(super) fn check_name(&self, name: &str) -> Result<(), Fault> {
        within(self.name, "the name", "max_name_bytes", name)
    }

    pub(super) fn check_label(&self, key: &str, value: &str) -> Result<(), Fault> {
        within(self.label_key, "the key of a label", "max_label_key_bytes", key)?;
        if value.len() <= self.label_value {
            return Ok(());
        }
        let what = format!("the value of label `{}`", shown(key.as_bytes()));
        within(self.label_value, &what, "max_label_value_bytes", value)
    }
}

impl Default for TextBounds {
    fn default() -> Self {
        Self { name: 4 << 10, label_key: 1 << 10, label_value: 4 << 10 }
    }
}

fn within(limit: usize, what: &str, option: &str, text: &str) -> Result<(), Fault> {
    if text.len() <= limit {
        return Ok(());
    }
    let detail = format!(
        "{what} is longer than {option}, size={}, limit={limit}, found=`{}`",
        text.len(),
        shown(text.as_bytes())
    );
    Err(Fault::new(Reason::LabelTooLong, detail))
}

#[cfg(test)]
mod tests {
    use super::super::{DecodeOptions, Decoder, MAX_EXCERPT_BYTES, Points, Rejection};
    use super::*;

    struct Outcome {
        points: Points,
        rejected: Vec<Rejection>,
    }

    fn decode(payload: &[u8]) -> Outcome {
        let mut decoder = Decoder::new(DecodeOptions::default(), Vec::new());
        let (mut points, mut rejected) = (Points::default(), Vec::new());
        let now = 1_700_000_000_000_000_000;
        decoder.decode(payload, Some(now), now, &mut points, &mut rejected);
        Outcome { points, rejected }
    }

    #[test]
    fn texts_of_a_series_are_bounded() {
        let text = |bytes: usize| "x".repeat(bytes);
        // Name, key and value, and which option refuses them.
        let cases = [
            (4_096, 1_024, 4_096, None),
            (4_097, 1, 1, Some("the name is longer than max_name_bytes, size=4097, limit=4096")),
            (
                1,
                1_025,
                1,
                Some("the key of a label is longer than max_label_key_bytes, size=1025, limit=1024"),
            ),
            (1, 1, 900_000, Some("the value of label `x` is longer than max_label_value_bytes, size=900000")),
        ];
        for (name, key, value, refused) in cases {
            let (name, key, value) = (text(name), text(key), text(value));
            let json = serde_json::json!({"name": name, "labels": {&key: value}, "value": 1}).to_string();
            let line = format!("{name},{key}={value} value=1");
            for payload in [json, line] {
                let good = if payload.starts_with('{') { r#"{"name":"b","value":2}"# } else { "b value=2" };
                let result = decode(format!("{payload}\n{good}").as_bytes());
                let Some(refused) = refused else {
                    assert_eq!((result.points.len(), result.rejected.len()), (2, 0));
                    continue;
                };
                assert_eq!(result.points.len(), 1, "{refused}");
                let rejection = &result.rejected[0];
                assert_eq!(rejection.reason, Reason::LabelTooLong);
                assert!(rejection.detail.starts_with(refused), "{}", rejection.detail);
                assert!(rejection.detail.len() < 400 && rejection.excerpt.len() <= MAX_EXCERPT_BYTES);
            }
        }
        // Line protocol: the name is the measurement with the field.
        let long = format!("m {}=1", text(4_095));
        assert_eq!(decode(long.as_bytes()).rejected[0].reason, Reason::LabelTooLong);
        // Bytes count, not characters; and escapes count for what they stand for.
        let umlauts = serde_json::json!({"name": "ä".repeat(2_049), "value": 1}).to_string();
        assert_eq!(decode(umlauts.as_bytes()).rejected[0].reason, Reason::LabelTooLong);
        let escaped = format!(r#"{{"name":"{}","value":1}}"#, r"\u0061".repeat(4_096));
        assert_eq!(decode(escaped.as_bytes()).points.len(), 1);
    }
}
