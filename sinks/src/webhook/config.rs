//! Options of the webhook sink.

use secrecy::SecretString;

use crate::HttpConfig;

/// Where and how to post.
#[derive(Debug, Clone)]
pub struct WebhookConfig {
    pub http: HttpConfig,
    /// Each request is signed with it: HMAC-SHA256 over `timestamp:body`.
    pub signing_key: Option<SecretString>,
}
