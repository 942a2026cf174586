//! The Alertmanager sink: one attempt a write, with the answers and errors of every HTTP sink that
//! carries notifications. Posting the same again changes nothing there but the time until which an
//! alert holds.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::header::HeaderMap;

use super::AlertmanagerConfig;
use super::encode::encode;
use crate::http::Post;
use crate::{Error, Notification, Sink};

/// Posts alerts to one Alertmanager. Ok from `write` means that it took them.
#[derive(Debug)]
pub struct AlertmanagerSink {
    post: Post,
    resolve_after: Duration,
}

impl AlertmanagerSink {
    /// Checks the configuration; Alertmanager is contacted by the first write.
    pub fn new(config: AlertmanagerConfig) -> Result<Self, Error> {
        let mut http = config.http;
        if let Ok(mut segments) = http.url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v2", "alerts"]);
        }
        Ok(Self { post: Post::new("alertmanager", http)?, resolve_after: config.resolve_after })
    }
}

#[async_trait]
impl Sink<Arc<Notification>> for AlertmanagerSink {
    async fn write(&self, notification: Arc<Notification>) -> Result<(), Error> {
        let body = Bytes::from(encode(&notification, now(), self.resolve_after).to_string());
        self.post.send(&notification.id, body, HeaderMap::new()).await
    }

    async fn flush(&self) -> Result<(), Error> {
        // Nothing is buffered: write returns once Alertmanager has taken the alerts.
        Ok(())
    }
}

/// Nanoseconds since the epoch.
#[expect(clippy::disallowed_methods, reason = "Alertmanager compares it with a clock of its own")]
fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use url::Url;
    use wiremock::matchers::{header, method, path};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;
    use crate::HttpConfig;
    use crate::notify::tests::group;

    #[tokio::test]
    async fn alerts_go_to_the_api_below_the_url() {
        for (prefix, expected) in
            [("", "/api/v2/alerts"), ("/", "/api/v2/alerts"), ("/am/", "/am/api/v2/alerts")]
        {
            let server = MockServer::start().await;
            Mock::given(method("POST"))
                .and(path(expected))
                .and(header("authorization", "Bearer token-secret"))
                .respond_with(ResponseTemplate::new(200))
                .expect(1)
                .mount(&server)
                .await;
            let url = Url::parse(&format!("http://{}{prefix}", server.address())).unwrap();
            let http = HttpConfig {
                allow_private: true,
                bearer_token: Some("token-secret".to_owned().into()),
                ..HttpConfig::new(url, Duration::from_secs(20))
            };
            let config = AlertmanagerConfig { http, resolve_after: Duration::from_secs(3_600) };
            let sink = AlertmanagerSink::new(config).unwrap();
            sink.write(Arc::new(group())).await.unwrap();
            sink.flush().await.unwrap();
            let requests = server.received_requests().await.expect("they are recorded");
            let alerts: Vec<serde_json::Value> = serde_json::from_slice(&requests[0].body).unwrap();
            assert_eq!(alerts.len(), 3);
        }
    }
}
