//! The Slack sink: one attempt a write, with the answers and errors of every HTTP sink that carries
//! notifications. Slack and Mattermost answer 200 and `ok`, Rocket.Chat 200 and JSON.
//!
//! These receivers know no `Idempotency-Key`: an attempt whose answer was lost may show up twice.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::header::HeaderMap;

use super::SlackConfig;
use super::encode::encode;
use crate::http::Post;
use crate::{Error, Notification, Sink};

/// Posts notifications to one channel. Ok from `write` means that the chat took it.
#[derive(Debug)]
pub struct SlackSink {
    post: Post,
}

impl SlackSink {
    /// Checks the configuration; the receiver is contacted by the first write.
    pub fn new(config: SlackConfig) -> Result<Self, Error> {
        // A server may name the path that it does not know.
        let path = config.http.url.path().trim_matches('/').to_owned();
        Ok(Self { post: Post::new("slack", config.http)?.hiding(&path) })
    }
}

#[async_trait]
impl Sink<Arc<Notification>> for SlackSink {
    async fn write(&self, notification: Arc<Notification>) -> Result<(), Error> {
        let body = Bytes::from(encode(&notification).to_string());
        self.post.send(&notification.id, body, HeaderMap::new()).await
    }

    async fn flush(&self) -> Result<(), Error> {
        // Nothing is buffered: write returns once the receiver has taken the notification.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use url::Url;
    use wiremock::matchers::{body_json, method, path};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;
    use crate::HttpConfig;
    use crate::notify::tests::group;

    #[tokio::test]
    async fn the_channel_gets_the_payload_and_messages_do_not_show_the_path() {
        let server = MockServer::start().await;
        let gone = ResponseTemplate::new(404).set_body_string("no_service /services/T0/secret");
        Mock::given(method("POST")).respond_with(gone).up_to_n_times(1).expect(1).mount(&server).await;
        Mock::given(method("POST"))
            .and(path("/services/T0/secret"))
            .and(body_json(encode(&group())))
            .respond_with(ResponseTemplate::new(200).set_body_string("ok"))
            .expect(1)
            .mount(&server)
            .await;
        let url = Url::parse(&format!("http://{}/services/T0/secret", server.address())).unwrap();
        let http = HttpConfig { allow_private: true, ..HttpConfig::new(url, Duration::from_secs(20)) };
        let sink = SlackSink::new(SlackConfig { http }).unwrap();
        let error = sink.write(Arc::new(group())).await.unwrap_err();
        let expected = format!("slack at http://{} refused: no_service /*** status=`404`", server.address());
        assert_eq!(error.to_string(), expected);
        sink.write(Arc::new(group())).await.unwrap();
        sink.flush().await.unwrap();
        assert!(!format!("{sink:?}").contains("secret"));
    }
}
