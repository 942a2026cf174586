//! Times of what the topics hold, for programs that ask.
//!
//! In the topics a time is a number of nanoseconds, which programs that keep numbers as 64-bit
//! floats cannot hold: answers have RFC 3339 in its place.

use serde_json::Value;

use crate::time::Time;

/// Keys of times. Values of labels are texts, those of alerts are floats, so that neither is taken
/// for one.
const TIMES: [&str; 12] = [
    "at",
    "created_at",
    "ends_at",
    "evaluated",
    "event_time",
    "ingested",
    "sample",
    "since",
    "starts_at",
    "until",
    "window_end",
    "window_start",
];

/// The same value with its times as text.
pub(super) fn with_times(mut value: Value) -> Value {
    write_out(&mut value);
    value
}

fn write_out(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                match inner.as_i64().filter(|_| TIMES.contains(&key.as_str())) {
                    Some(nanoseconds) => *inner = Value::String(Time(nanoseconds).to_string()),
                    None => write_out(inner),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(write_out),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_text_and_nothing_else_changes() {
        let given = json!({
            "alerts": [{
                "starts_at": 1_700_000_000_000_000_001_i64, "ends_at": null, "labels": { "at": "5" },
                "values": { "since": 5.0 }, "revision": 3,
                "receivers": [{ "state": "waiting", "until": 1_700_000_000_000_000_000_i64 }],
            }],
        });
        let expected = json!({
            "alerts": [{
                "starts_at": "2023-11-14T22:13:20.000000001Z", "ends_at": null, "labels": { "at": "5" },
                "values": { "since": 5.0 }, "revision": 3,
                "receivers": [{ "state": "waiting", "until": "2023-11-14T22:13:20Z" }],
            }],
        });
        assert_eq!(with_times(given), expected);
    }
}
