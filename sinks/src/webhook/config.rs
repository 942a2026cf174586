//! Options of the webhook sink.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use crate::http::origin;

/// Where and how to post.
#[derive(Clone)]
pub struct WebhookConfig {
    /// Path, query and user information may be secrets and are never shown.
    pub url: Url,
    /// Sent with each request.
    pub headers: BTreeMap<String, SecretString>,
    /// How long one request may take.
    pub timeout: Duration,
    pub bearer_token: Option<SecretString>,
    /// Each request is signed with it: HMAC-SHA256 over `timestamp:body`.
    pub signing_key: Option<SecretString>,
}

impl fmt::Debug for WebhookConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookConfig")
            .field("url", &origin(&self.url))
            .field("headers", &self.headers)
            .field("timeout", &self.timeout)
            .field("bearer_token", &self.bearer_token)
            .field("signing_key", &self.signing_key)
            .finish()
    }
}

/// How long a webhook that is away or busy is tried again. What remains undelivered after that is an error
/// that [`crate::Error::retryable`] calls retryable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The first pause. Default: 500 ms.
    pub min: Duration,
    /// The longest pause, unless the server asks for a longer one. Default: 60 s.
    pub max: Duration,
    /// No attempt starts later than this after the first. Default: 10 min.
    pub total: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            min: Duration::from_millis(500),
            max: Duration::from_secs(60),
            total: Duration::from_secs(600),
        }
    }
}
