//! One attempt to post a notification, the same for all sinks that do. Trying again is the caller's
//! part, as it knows what else is waiting.
//!
//! | answer | error | may have arrived |
//! |---|---|---|
//! | 2xx | none | |
//! | 408, 429, other 5xx | [`Error::Unavailable`], with `Retry-After` if there is one | no |
//! | 502, 504 | the same | yes: a gateway answers, and does not know |
//! | anything else | [`Error::Refused`] | no |
//! | none, no connection | [`Error::Unavailable`] | no |
//! | none, or cut off | [`Error::Unavailable`] | yes |
//! | none, the host is private | [`Error::Config`] | no |
//!
//! Each attempt carries the notification's id as `Idempotency-Key`, so a receiver that took an
//! attempt whose answer was lost can tell the next one is the same.

use bytes::Bytes;
use reqwest::Client;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::{HttpConfig, cut, describe, is_private, origin, retry_after};
use crate::Error;

/// Posts JSON to one URL.
#[derive(Debug)]
pub(crate) struct Post {
    client: Client,
    /// Path, query and user information may be secrets.
    url: Hidden,
    /// Secret values are marked as sensitive, so that no debug output shows them.
    headers: HeaderMap,
    /// How the receiver is called in messages.
    place: String,
    /// What an answer may repeat and no message may.
    hidden: Vec<SecretString>,
}

impl Post {
    /// Checks the configuration of a `kind` of receiver; it is contacted by the first
    /// [`Post::send`].
    pub(crate) fn new(kind: &str, config: HttpConfig) -> Result<Self, Error> {
        let place = format!("{kind} at {}", origin(&config.url));
        if !matches!(config.url.scheme(), "http" | "https") {
            return Err(Error::Config(format!(
                "cannot use the {kind}: its URL must begin with http:// or https://"
            )));
        }
        let client = config.client()?;
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let header = HeaderName::try_from(name).map_err(|_| {
                Error::Config(format!("cannot use the {place}: no valid header name=`{name}`"))
            })?;
            headers.insert(header, secret(value.expose_secret(), name, &place)?);
        }
        if let Some(token) = &config.bearer_token {
            let value = format!("Bearer {}", token.expose_secret());
            headers.insert(AUTHORIZATION, secret(&value, "Authorization", &place)?);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut hidden: Vec<SecretString> = config.headers.into_values().collect();
        hidden.extend(config.bearer_token);
        hidden.extend(config.url.password().map(SecretString::from));
        Ok(Self { client, url: Hidden(config.url), headers, place, hidden })
    }

    /// Also keeps `secret` out of messages.
    pub(crate) fn hiding(mut self, secret: &str) -> Self {
        self.hidden.push(secret.into());
        self
    }

    /// One attempt under the key `id`, with headers of this attempt.
    pub(crate) async fn send(&self, id: &str, body: Bytes, headers: HeaderMap) -> Result<(), Error> {
        let request = self
            .client
            .post(self.url.0.clone())
            .headers(self.headers.clone())
            .headers(headers)
            .header("Idempotency-Key", idempotency_key(id))
            .body(body);
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if is_private(&error) => {
                return Err(Error::Config(format!("cannot use the {}: {}", self.place, describe(error))));
            }
            Err(error) => return Err(super::unavailable(&self.place, error)),
        };
        let status = response.status().as_u16();
        if response.status().is_success() {
            return Ok(());
        }
        let retry_after = retry_after(response.headers());
        let answer = self.without_secrets(super::body(response).await);
        let (place, answer) = (self.place.clone(), cut(&answer, 200));
        match status {
            408 | 429 | 500.. => Err(Error::Unavailable {
                place,
                reason: format!("status {status} {answer}"),
                doubtful: matches!(status, 502 | 504),
                retry_after,
            }),
            _ => Err(Error::Refused { place, status, message: answer.to_owned() }),
        }
    }

    /// The receiver's answer, in one line; it may have repeated what it was sent.
    fn without_secrets(&self, body: String) -> String {
        let mut text = body;
        for secret in self.hidden.iter().map(SecretString::expose_secret).filter(|secret| !secret.is_empty())
        {
            text = text.replace(secret, "***");
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        if words.is_empty() { "no reason given".into() } else { words.join(" ") }
    }
}

/// A URL that debug output shows the origin of.
struct Hidden(Url);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&origin(&self.0))
    }
}

fn secret(value: &str, name: &str, place: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::try_from(value).map_err(|_| {
        Error::Config(format!(
            "cannot use the {place}: the value has characters that no HTTP header can hold header=`{name}`"
        ))
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// The id as a header value: what is not visible ASCII becomes `%` and two hexadecimal digits a
/// byte.
fn idempotency_key(id: &str) -> HeaderValue {
    let mut key = String::with_capacity(id.len());
    for byte in id.bytes() {
        match byte {
            b' '..=b'~' => key.push(char::from(byte)),
            _ => key.push_str(&format!("%{byte:02x}")),
        }
    }
    HeaderValue::try_from(key).expect("visible ASCII is a header value")
}

#[cfg(test)]
#[path = "post_tests.rs"]
mod tests;
