//! Each answer of a receiver, against a server on loopback.

use std::collections::BTreeMap;

use url::Url;
use wiremock::matchers::{body_json, header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;
use crate::notify::tests::example;

fn sink(url: &str) -> WebhookSink {
    let config = WebhookConfig {
        url: Url::parse(url).unwrap(),
        headers: BTreeMap::from([("X-Key".into(), "header-secret".to_owned().into())]),
        timeout: Duration::from_secs(5),
        bearer_token: Some("token-secret".to_owned().into()),
        signing_key: Some("key-secret".to_owned().into()),
    };
    let retry = Retry {
        min: Duration::from_millis(1),
        max: Duration::from_millis(2),
        total: Duration::from_secs(30),
    };
    WebhookSink::new(config).unwrap().with_retry(retry)
}

fn hook(server: &MockServer) -> String {
    format!("http://{}/path-secret?token=query-secret", server.address())
}

fn assert_no_secret(text: &str) {
    assert!(!text.contains("secret"), "{text}");
}

#[tokio::test]
async fn a_delivery_carries_payload_token_and_key() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/path-secret"))
        .and(header("authorization", "Bearer token-secret"))
        .and(header("x-key", "header-secret"))
        .and(header("content-type", "application/json"))
        .and(header("idempotency-key", "cpu-high/eu <1>"))
        .and(body_json(encode(&example())))
        .respond_with(ResponseTemplate::new(202))
        .expect(1)
        .mount(&server)
        .await;
    let sink = sink(&hook(&server));
    sink.write(Arc::new(example())).await.unwrap();
    sink.flush().await.unwrap();
    assert_no_secret(&format!("{sink:?}"));
}

#[tokio::test]
async fn each_attempt_is_signed_over_its_time_and_body() {
    let server = MockServer::start().await;
    let busy = ResponseTemplate::new(503).insert_header("Retry-After", "0");
    Mock::given(method("POST")).respond_with(busy).up_to_n_times(1).expect(1).mount(&server).await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(200)).expect(1).mount(&server).await;
    let before = signature::now();
    sink(&hook(&server)).write(Arc::new(example())).await.unwrap();
    let requests = server.received_requests().await.expect("they are recorded");
    assert_eq!(requests.len(), 2);
    let signer = Signer::new(&"key-secret".to_owned().into());
    for request in requests {
        let header = |name: &str| request.headers[name].to_str().unwrap();
        let timestamp: u64 = header("x-tidemark-timestamp").parse().unwrap();
        assert!((before..=signature::now()).contains(&timestamp));
        assert_eq!(header("x-tidemark-signature"), signer.sign(timestamp, &request.body));
    }
}

#[tokio::test]
async fn passing_failures_are_tried_again() {
    for status in [408, 429, 500, 502, 503] {
        let server = MockServer::start().await;
        let failure = ResponseTemplate::new(status).insert_header("Retry-After", "0");
        Mock::given(method("POST")).respond_with(failure).up_to_n_times(3).expect(3).mount(&server).await;
        Mock::given(method("POST")).respond_with(ResponseTemplate::new(200)).expect(1).mount(&server).await;
        sink(&hook(&server)).write(Arc::new(example())).await.unwrap();
    }
}

#[tokio::test]
async fn refusals_are_final_and_show_no_secret() {
    for status in [302, 400, 401, 404, 422] {
        let server = MockServer::start().await;
        let echo = ResponseTemplate::new(status)
            .insert_header("Location", "/elsewhere")
            .set_body_string("bad\n token-secret header-secret");
        Mock::given(method("POST")).respond_with(echo).expect(1).mount(&server).await;
        let error = sink(&hook(&server)).write(Arc::new(example())).await.unwrap_err();
        assert!(!error.retryable());
        let expected =
            format!("webhook at http://{} refused: bad *** *** status=`{status}`", server.address());
        assert_eq!(error.to_string(), expected);
    }
}

#[tokio::test]
async fn attempts_end_when_the_time_is_up() {
    let server = MockServer::start().await;
    let endless =
        ResponseTemplate::new(503).insert_header("Retry-After", "31").set_body_string("x".repeat(1 << 20));
    Mock::given(method("POST")).respond_with(endless).expect(1).mount(&server).await;
    let error = sink(&hook(&server)).write(Arc::new(example())).await.unwrap_err();
    assert!(error.retryable());
    assert!(error.to_string().len() < 400, "{error}");

    // Nobody listens on the port of a listener that is gone.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let away = sink(&format!("http://user:user-secret@{free}/path-secret?query-secret"));
    let away = away.with_retry(Retry { total: Duration::from_millis(10), ..Retry::default() });
    let error = away.write(Arc::new(example())).await.unwrap_err();
    assert!(error.retryable());
    assert_no_secret(&error.to_string());
}

#[test]
fn configurations_that_cannot_work_are_refused() {
    let config = |url: &str, name: &str, value: &str| WebhookConfig {
        url: Url::parse(url).unwrap(),
        headers: BTreeMap::from([(name.into(), value.to_owned().into())]),
        timeout: Duration::from_secs(1),
        bearer_token: None,
        signing_key: None,
    };
    for (config, expected) in [
        (config("ftp://h/secret", "a", "b"), "http:// or https://"),
        (config("http://h/secret", "a b", "c"), "header name=`a b`"),
        (config("http://h/secret", "a", "secret\n"), "header=`a`"),
    ] {
        let error = WebhookSink::new(config).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_no_secret(&error);
    }
}

#[test]
fn any_id_is_a_header_value() {
    assert_eq!(idempotency_key("a/1 é\n"), "a/1 %c3%a9%0a");
}
