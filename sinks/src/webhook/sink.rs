//! The webhook sink: posts until the receiver takes the notification, refuses it, or time is up.
//!
//! | answer | what happens |
//! |---|---|
//! | 2xx | delivered |
//! | 429, 503 and others with `Retry-After` | again after that time |
//! | 408, 429, 5xx, no answer | again after a growing pause with jitter |
//! | anything else | [`Error::Refused`] |
//!
//! Each attempt carries the notification's id as `Idempotency-Key`, so a receiver that took an attempt whose
//! answer was lost can tell the next one is the same. With a signing key it is signed anew each time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Client;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::encode::encode;
use super::signature::{self, SIGNATURE, Signer, TIMESTAMP};
use super::{Retry, WebhookConfig};
use crate::http::{self, cut, delays};
use crate::{Error, Notification, Sink};

/// Posts notifications to one URL.
#[derive(Debug)]
pub struct WebhookSink {
    client: Client,
    config: WebhookConfig,
    /// Secret values are marked as sensitive, so that no debug output shows them.
    headers: HeaderMap,
    signer: Option<Signer>,
    retry: Retry,
}

enum Attempt {
    Delivered,
    TryAgain { wait: Option<Duration>, reason: String },
    Refused { status: u16, message: String },
}

impl WebhookSink {
    /// Checks the configuration; the receiver is contacted by the first write.
    pub fn new(config: WebhookConfig) -> Result<Self, Error> {
        let place = http::origin(&config.url);
        if !matches!(config.url.scheme(), "http" | "https") {
            return Err(Error::Config(
                "cannot use the webhook: its URL must begin with http:// or https://".into(),
            ));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let header = HeaderName::try_from(name).map_err(|_| {
                Error::Config(format!("cannot use the webhook at {place}: no valid header name=`{name}`"))
            })?;
            headers.insert(header, secret(value.expose_secret(), name, &place)?);
        }
        if let Some(token) = &config.bearer_token {
            let value = format!("Bearer {}", token.expose_secret());
            headers.insert(AUTHORIZATION, secret(&value, "Authorization", &place)?);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let signer = config.signing_key.as_ref().map(Signer::new);
        Ok(Self { client: http::client(config.timeout)?, config, headers, signer, retry: Retry::default() })
    }

    /// Tries again for a longer or shorter time than the default.
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    fn place(&self) -> String {
        format!("webhook at {}", http::origin(&self.config.url))
    }

    async fn attempt(&self, key: &HeaderValue, body: Bytes) -> Attempt {
        let mut request = self
            .client
            .post(self.config.url.clone())
            .headers(self.headers.clone())
            .header("Idempotency-Key", key);
        if let Some(signer) = &self.signer {
            let timestamp = signature::now();
            request = request.header(TIMESTAMP, timestamp).header(SIGNATURE, signer.sign(timestamp, &body));
        }
        let response = match request.body(body).send().await {
            Ok(response) => response,
            Err(error) => return Attempt::TryAgain { wait: None, reason: http::describe(error) },
        };
        let status = response.status().as_u16();
        let wait = http::retry_after(response.headers());
        if response.status().is_success() {
            return Attempt::Delivered;
        }
        let body = self.without_secrets(http::body(response).await);
        match status {
            408 | 429 | 500.. => {
                Attempt::TryAgain { wait, reason: format!("status {status} {}", cut(&body, 200)) }
            }
            _ => Attempt::Refused { status, message: cut(&body, 200).to_owned() },
        }
    }

    /// What the receiver said, in one line; it may have repeated what it was sent.
    fn without_secrets(&self, body: String) -> String {
        let mut text = body;
        let keys = self.config.bearer_token.iter().chain(&self.config.signing_key);
        let secrets = self.config.headers.values().chain(keys);
        for secret in secrets.map(SecretString::expose_secret).filter(|secret| !secret.is_empty()) {
            text = text.replace(secret, "***");
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        if words.is_empty() { "no reason given".into() } else { words.join(" ") }
    }
}

#[async_trait]
impl Sink<Arc<Notification>> for WebhookSink {
    async fn write(&self, notification: Arc<Notification>) -> Result<(), Error> {
        let body = Bytes::from(encode(&notification).to_string());
        let key = idempotency_key(&notification.id);
        let started = Instant::now();
        let mut delays = delays(self.retry.min, self.retry.max);
        loop {
            let (wait, reason) = match self.attempt(&key, body.clone()).await {
                Attempt::Delivered => return Ok(()),
                Attempt::Refused { status, message } => {
                    return Err(Error::Refused { place: self.place(), status, message });
                }
                Attempt::TryAgain { wait, reason } => (wait, reason),
            };
            let wait = wait.or_else(|| delays.next()).unwrap_or(self.retry.max);
            if started.elapsed() + wait > self.retry.total {
                return Err(Error::Unavailable { place: self.place(), reason });
            }
            warn!(
                notification = notification.id,
                receiver = self.place(),
                reason,
                ?wait,
                "not delivered, trying again"
            );
            sleep(wait).await;
        }
    }

    async fn flush(&self) -> Result<(), Error> {
        // Nothing is buffered: write returns once the receiver has taken the notification.
        Ok(())
    }
}

fn secret(value: &str, name: &str, place: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::try_from(value).map_err(|_| {
        Error::Config(format!(
            "cannot use the webhook at {place}: the value has characters that no HTTP header can hold header=`{name}`"
        ))
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// The id as a header value: what is not visible ASCII becomes `%` and two hexadecimal digits a byte.
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
#[path = "sink_tests.rs"]
mod tests;
