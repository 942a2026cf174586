use std::time::Duration;

use url::Url;
use wiremock::matchers::{body_json, header, method};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;
use crate::HttpConfig;
use crate::notify::tests::{example, group};

fn sink(server: &MockServer) -> WebhookSink {
    let url = Url::parse(&format!("http://{}/hook", server.address())).unwrap();
    let http = HttpConfig { allow_private: true, ..HttpConfig::new(url, Duration::from_secs(20)) };
    WebhookSink::new(WebhookConfig { http, signing_key: Some("key-secret".to_owned().into()) }).unwrap()
}

#[tokio::test]
async fn each_attempt_has_the_same_key_and_body_and_a_signature_of_its_own() {
    let server = MockServer::start().await;
    let busy = ResponseTemplate::new(503).set_body_string("key-secret");
    Mock::given(method("POST")).respond_with(busy).up_to_n_times(1).expect(1).mount(&server).await;
    Mock::given(method("POST"))
        .and(header("idempotency-key", "group-1"))
        .and(body_json(encode(&group())))
        .respond_with(ResponseTemplate::new(200))
        .expect(1)
        .mount(&server)
        .await;
    let before = signature::now();
    let sink = sink(&server);
    let error = sink.write(Arc::new(group())).await.unwrap_err();
    assert!(error.retryable() && !error.to_string().contains("secret"), "{error}");
    sink.write(Arc::new(group())).await.unwrap();
    sink.flush().await.unwrap();
    assert!(!format!("{sink:?}").contains("secret"));

    let requests = server.received_requests().await.expect("they are recorded");
    assert_eq!((requests.len(), &requests[0].body), (2, &requests[1].body));
    let signer = Signer::new(&"key-secret".to_owned().into());
    for request in requests {
        let header = |name: &str| request.headers[name].to_str().unwrap();
        let timestamp: u64 = header("x-tidemark-timestamp").parse().unwrap();
        assert!((before..=signature::now()).contains(&timestamp));
        assert_eq!(header("x-tidemark-signature"), signer.sign(timestamp, &request.body));
    }
}

#[tokio::test]
async fn without_a_key_there_is_no_signature() {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(204)).expect(1).mount(&server).await;
    let WebhookSink { post, .. } = sink(&server);
    WebhookSink { post, signer: None }.write(Arc::new(example())).await.unwrap();
    let requests = server.received_requests().await.expect("they are recorded");
    assert!(!requests[0].headers.contains_key(SIGNATURE) && !requests[0].headers.contains_key(TIMESTAMP));
}
