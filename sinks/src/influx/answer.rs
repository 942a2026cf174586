//! What an answer of InfluxDB's write API means for the lines that were sent.

use std::time::Duration;

use serde_json::Value;

use crate::http::cut;

/// The outcome of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// 204: durable.
    Done,
    /// 400: a line is malformed and nothing was written.
    Malformed(String),
    /// 413: the request is too large and nothing was written.
    TooLarge(String),
    /// 422, in some versions 500 with "partial write": some lines conflict with the type of a field
    /// or lie outside the retention period, the others were written. The number of dropped lines,
    /// if given.
    Partial { dropped: Option<usize>, message: String },
    /// 429, 503, other 5xx, no answer: try again, after this long if the server asked for it.
    Busy { wait: Option<Duration>, message: String },
    /// 401, 403, 404 and whatever else is not expected: the same for every line until a person
    /// acts.
    Refused { status: u16, message: String },
}

pub(crate) fn classify(status: u16, body: &str, retry_after: Option<Duration>) -> Answer {
    let message = message(status, body);
    match status {
        204 => Answer::Done,
        400 => Answer::Malformed(message),
        413 => Answer::TooLarge(message),
        422 => Answer::Partial { dropped: dropped(body), message },
        500 if body.contains("partial write") => Answer::Partial { dropped: dropped(body), message },
        408 | 429 | 500..=599 => Answer::Busy { wait: retry_after, message },
        _ => Answer::Refused { status, message },
    }
}

/// The `message` of InfluxDB's JSON errors, or the beginning of whatever came instead.
fn message(status: u16, body: &str) -> String {
    let json: Option<Value> = serde_json::from_str(body).ok();
    let text = json.as_ref().and_then(|json| json["message"].as_str()).unwrap_or(body).trim();
    if text.is_empty() { format!("status {status}") } else { cut(text, 300).to_owned() }
}

/// The count in `... dropped=2`.
fn dropped(body: &str) -> Option<usize> {
    let (_, after) = body.rsplit_once("dropped=")?;
    let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    after[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_meaning() {
        let conflict =
            r#"{"code":"unprocessable entity","message":"partial write: type conflict dropped=12"}"#;
        let text = || "partial write: type conflict dropped=12".to_owned();
        let wait = Some(Duration::from_secs(7));
        for (status, body, expected) in [
            (204, "", Answer::Done),
            (
                400,
                r#"{"code":"invalid","message":"unable to parse 'x'"}"#,
                Answer::Malformed("unable to parse 'x'".into()),
            ),
            (413, "", Answer::TooLarge("status 413".into())),
            (422, conflict, Answer::Partial { dropped: Some(12), message: text() }),
            (422, "no", Answer::Partial { dropped: None, message: "no".into() }),
            (500, conflict, Answer::Partial { dropped: Some(12), message: text() }),
            (500, "oops", Answer::Busy { wait, message: "oops".into() }),
            (429, "", Answer::Busy { wait, message: "status 429".into() }),
            (503, "", Answer::Busy { wait, message: "status 503".into() }),
            (502, "<html>", Answer::Busy { wait, message: "<html>".into() }),
            (401, "", Answer::Refused { status: 401, message: "status 401".into() }),
            (404, "", Answer::Refused { status: 404, message: "status 404".into() }),
            // Not InfluxDB: a page of a proxy must not pass for a durable write.
            (200, "hello", Answer::Refused { status: 200, message: "hello".into() }),
            (302, "", Answer::Refused { status: 302, message: "status 302".into() }),
        ] {
            assert_eq!(classify(status, body, wait), expected, "{status} {body}");
        }
    }
}
