//! Each answer of a receiver, against servers on loopback.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wiremock::matchers::{body_string, header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;

fn config(url: &str) -> HttpConfig {
    HttpConfig {
        headers: BTreeMap::from([("X-Key".into(), "header-secret".to_owned().into())]),
        bearer_token: Some("token-secret".to_owned().into()),
        allow_private: true,
        ..HttpConfig::new(Url::parse(url).unwrap(), Duration::from_secs(20))
    }
}

fn post(url: &str) -> Post {
    Post::new("hook", config(url)).unwrap().hiding("path-secret")
}

async fn send(post: &Post) -> Result<(), Error> {
    post.send(
        "a/1",
        Bytes::from("{}"),
        HeaderMap::from_iter([(reqwest::header::ACCEPT, HeaderValue::from_static("b"))]),
    )
    .await
}

fn hook(server: &MockServer) -> String {
    format!("http://{}/path-secret?token=query-secret", server.address())
}

fn assert_no_secret(text: &str) {
    assert!(!text.contains("secret"), "{text}");
}

#[tokio::test]
async fn a_delivery_carries_body_token_and_key() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/path-secret"))
        .and(header("authorization", "Bearer token-secret"))
        .and(header("x-key", "header-secret"))
        .and(header("accept", "b"))
        .and(header("content-type", "application/json"))
        .and(header("idempotency-key", "a/1"))
        .and(body_string("{}"))
        .respond_with(ResponseTemplate::new(202))
        .expect(1)
        .mount(&server)
        .await;
    let post = post(&hook(&server));
    send(&post).await.unwrap();
    assert_no_secret(&format!("{post:?} {:?}", config(&hook(&server))));
}

#[tokio::test]
async fn answers_say_whether_and_when_to_try_again_and_whether_it_arrived() {
    for (status, wait, [retryable, arrived]) in [
        (302, None, [false, false]),
        (400, None, [false, false]),
        (401, None, [false, false]),
        (404, None, [false, false]),
        (422, Some("7"), [false, false]),
        (408, None, [true, false]),
        (429, Some("7"), [true, false]),
        (500, None, [true, false]),
        (502, None, [true, true]),
        (503, Some("7"), [true, false]),
        (503, Some("soon"), [true, false]),
        (504, Some("7"), [true, true]),
    ] {
        let server = MockServer::start().await;
        let mut answer = ResponseTemplate::new(status)
            .insert_header("Location", "/elsewhere")
            .set_body_string(format!("bad\n token-secret header-secret /path-secret{}", "x".repeat(1 << 20)));
        if let Some(wait) = wait {
            answer = answer.insert_header("Retry-After", wait);
        }
        // One request: nothing is tried again here, and no redirect followed.
        Mock::given(method("POST")).respond_with(answer).expect(1).mount(&server).await;
        let error = send(&post(&hook(&server))).await.unwrap_err();
        assert_eq!([error.retryable(), error.may_have_arrived()], [retryable, arrived], "{status}");
        let seconds = wait.filter(|_| retryable).and_then(|wait| wait.parse().ok());
        assert_eq!(error.retry_after(), seconds.map(Duration::from_secs), "{status}");
        let text = error.to_string();
        assert!(text.contains(&format!("hook at http://{}", server.address())), "{text}");
        assert!(text.contains("bad *** *** /***") && text.contains(&status.to_string()), "{text}");
        assert!(text.len() < 400, "{text}");
    }
}

/// What a server does with a connection.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Unread,
    Read,
    InAnswer,
}

#[tokio::test]
async fn a_message_may_have_arrived_once_there_was_a_connection() {
    for cut in [Cut::Unread, Cut::Read, Cut::InAnswer] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/path-secret", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            if !matches!(cut, Cut::Unread) {
                let mut read = Vec::new();
                while !read.ends_with(b"{}") {
                    let mut buffer = [0; 1024];
                    let count = stream.read(&mut buffer).await.unwrap();
                    read.extend_from_slice(&buffer[..count]);
                }
            }
            if matches!(cut, Cut::InAnswer) {
                stream.write_all(b"HTTP/1.1 20").await.unwrap();
            }
        });
        let error = send(&post(&url)).await.unwrap_err();
        assert!(error.retryable() && error.may_have_arrived(), "{cut:?} {error}");
        assert_no_secret(&error.to_string());
        server.await.unwrap();
    }

    // A server that reads and never answers: the time for the request is over.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut silent = config(&format!("http://{}/", listener.local_addr().unwrap()));
    silent.timeout = Duration::from_secs(1);
    let error = send(&Post::new("hook", silent).unwrap()).await.unwrap_err();
    assert!(error.retryable() && error.may_have_arrived(), "{error}");

    // Nobody listens on the port of a listener that is gone.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = send(&post(&format!("http://user:user-secret@{free}/path-secret"))).await.unwrap_err();
    assert!(error.retryable() && !error.may_have_arrived(), "{error}");
    assert_no_secret(&error.to_string());

    // A server that speaks no TLS gets no request.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/path-secret", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 no TLS\r\n\r\n").await.unwrap();
    });
    let error = send(&post(&url)).await.unwrap_err();
    assert!(error.retryable() && !error.may_have_arrived(), "{error}");
    server.await.unwrap();
}

#[tokio::test]
async fn private_hosts_are_refused_for_good_unless_allowed() {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(200)).expect(1).mount(&server).await;
    let port = server.address().port();
    let named = |allow_private| HttpConfig { allow_private, ..config(&format!("http://localhost:{port}/x")) };
    send(&Post::new("hook", named(true)).unwrap()).await.unwrap();
    let error = send(&Post::new("hook", named(false)).unwrap()).await.unwrap_err();
    assert!(!error.retryable() && !error.may_have_arrived(), "{error:?}");
    assert!(error.to_string().contains("set allow_private = true host=`localhost`"), "{error}");
    let literal = HttpConfig { allow_private: false, ..config(&hook(&server)) };
    let error = Post::new("hook", literal).unwrap_err();
    assert!(error.to_string().contains("set allow_private = true host=`127.0.0.1`"), "{error}");
    assert_no_secret(&error.to_string());
}

#[test]
fn configurations_that_cannot_work_are_refused() {
    let config = |url: &str, name: &str, value: &str| HttpConfig {
        headers: BTreeMap::from([(name.into(), value.to_owned().into())]),
        ..HttpConfig::new(Url::parse(url).unwrap(), Duration::from_secs(1))
    };
    for (config, expected) in [
        (config("ftp://h/secret", "a", "b"), "http:// or https://"),
        (config("http://h/secret", "a b", "c"), "header name=`a b`"),
        (config("http://h/secret", "a", "secret\n"), "header=`a`"),
    ] {
        let error = Post::new("hook", config).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_no_secret(&error);
    }
}

#[test]
fn any_id_is_a_header_value() {
    assert_eq!(idempotency_key("a/1 é\n"), "a/1 %c3%a9%0a");
}
