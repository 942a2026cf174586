//! What the HTTP sinks share: a client, reading answers in bounded memory, and how long to wait;
//! for those that carry notifications also their options, which hosts they may lead to, and one
//! attempt to post. Nothing here puts a path, a query or user information of a URL into text: these
//! may hold secrets.

mod address;
mod config;
mod post;

use std::error::Error as _;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use chrono::DateTime;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response};
use url::Url;

pub use address::private_address;
pub use config::{ClientCertificate, HttpConfig};
pub(crate) use post::Post;

use crate::Error;

/// The longest that a server's `Retry-After` is believed.
pub(crate) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// How much of an answer is read. Error messages are shorter; the rest of a longer answer is not
/// needed.
const BODY_LIMIT: usize = 16 * 1024;

/// A client whose requests fail after `timeout`.
pub(crate) fn client(timeout: Duration) -> Result<Client, Error> {
    let client = builder(timeout).build();
    client.map_err(|error| Error::Config(format!("cannot set up an HTTP client: {}", describe(error))))
}

/// Redirects are not followed: they would turn a POST into a GET, or carry a token elsewhere.
fn builder(timeout: Duration) -> ClientBuilder {
    Client::builder()
        .timeout(timeout)
        .redirect(Policy::none())
        .user_agent(concat!("tidemark/", env!("CARGO_PKG_VERSION")))
}

/// Scheme, host and port: as much of a URL as may be shown.
pub(crate) fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// The beginning of the body as text. A broken connection ends it early.
pub(crate) async fn body(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < BODY_LIMIT {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    bytes.truncate(BODY_LIMIT);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The error and its causes in one line, without the URL.
pub(crate) fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The error of a request to `place` that got no answer.
pub(crate) fn unavailable(place: &str, error: reqwest::Error) -> Error {
    // Without a connection, TLS included, no part of the request was sent.
    let doubtful = !error.is_connect() && !error.is_builder();
    Error::Unavailable { place: place.to_owned(), reason: describe(error), doubtful, retry_after: None }
}

/// Whether the request was not sent because its host is private.
fn is_private(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<address::PrivateAddress>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// How long the server asks to wait (RFC 9110, 10.2.3): seconds, or a date. A date is compared with
/// the server's own `Date`, so neither a clock here nor a wrong one there matters.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match value.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = DateTime::parse_from_rfc2822(value).ok()?;
            let now = DateTime::parse_from_rfc2822(headers.get(DATE)?.to_str().ok()?).ok()?;
            (until - now).to_std().unwrap_or(Duration::ZERO)
        }
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

/// Delays that double from `min` to `max`, each with a random part, without end.
pub(crate) fn delays(min: Duration, max: Duration) -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(min)
        .with_max_delay(max)
        .without_max_times()
        .with_jitter()
        .build()
}

/// At most `limit` bytes of `text`, cut between characters.
pub(crate) fn cut(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (value, expected) in [
            ("0", Some(0)),
            ("120", Some(120)),
            ("99999999999", Some(3600)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("soon", None),
            ("-5", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(DATE, date.parse().unwrap());
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            assert_eq!(retry_after(&headers), expected.map(Duration::from_secs), "{value}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    #[test]
    fn origin_hides_what_may_be_secret() {
        let url = Url::parse("https://user:pass@hooks.example:8443/T000/secret?token=x").unwrap();
        assert_eq!(origin(&url), "https://hooks.example:8443");
    }

    #[test]
    fn delays_grow_to_the_maximum_and_never_end() {
        let delays: Vec<_> = delays(Duration::from_millis(10), Duration::from_millis(80)).take(50).collect();
        assert_eq!(delays.len(), 50);
        assert!(delays.iter().all(|delay| *delay <= Duration::from_millis(160)), "{delays:?}");
        assert!(delays[49] >= Duration::from_millis(80));
    }

    #[test]
    fn cut_keeps_characters_whole() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 9), "aé");
    }
}
