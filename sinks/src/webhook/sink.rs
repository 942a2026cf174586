//! The webhook sink: one attempt a write, with the answers and errors of every HTTP sink that
//! carries notifications.
//!
//! The body is the same in each attempt. With a signing key each attempt is signed by itself.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret;

use super::WebhookConfig;
use super::encode::encode;
use super::signature::{self, SIGNATURE, Signer, TIMESTAMP};
use crate::http::Post;
use crate::{Error, Notification, Sink};

/// Posts notifications to one URL. Ok from `write` means that the receiver took it.
#[derive(Debug)]
pub struct WebhookSink {
    post: Post,
    signer: Option<Signer>,
}

impl WebhookSink {
    /// Checks the configuration; the receiver is contacted by the first write.
    pub fn new(config: WebhookConfig) -> Result<Self, Error> {
        let mut post = Post::new("webhook", config.http)?;
        if let Some(key) = &config.signing_key {
            post = post.hiding(key.expose_secret());
        }
        Ok(Self { post, signer: config.signing_key.as_ref().map(Signer::new) })
    }
}

#[async_trait]
impl Sink<Arc<Notification>> for WebhookSink {
    async fn write(&self, notification: Arc<Notification>) -> Result<(), Error> {
        let body = Bytes::from(encode(&notification).to_string());
        let mut headers = HeaderMap::new();
        if let Some(signer) = &self.signer {
            let timestamp = signature::now();
            let signature = signer.sign(timestamp, &body);
            headers.insert(HeaderName::from_static(TIMESTAMP), HeaderValue::from(timestamp));
            headers.insert(
                HeaderName::from_static(SIGNATURE),
                HeaderValue::try_from(signature).expect("hexadecimal digits are a header value"),
            );
        }
        self.post.send(&notification.id, body, headers).await
    }

    async fn flush(&self) -> Result<(), Error> {
        // Nothing is buffered: write returns once the receiver has taken the notification.
        Ok(())
    }
}

#[cfg(test)]
#[path = "sink_tests.rs"]
mod tests;
