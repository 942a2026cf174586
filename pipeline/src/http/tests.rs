//! A server on a free port, and clients that behave or do not.

use std::time::Duration;

use axum::extract::Query;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::request::MAX_BODY_BYTES;
use super::*;

/// Longer than a test waits for anything that comes.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(500);

struct Running {
    address: SocketAddr,
    readiness: Readiness,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

#[derive(Deserialize)]
struct Asked {
    number: u32,
}

async fn start(max_connections: usize, timeout: Duration) -> Running {
    let config = HttpConfig {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        max_connections,
        timeout,
        ..HttpConfig::default()
    };
    let server = HttpServer::bind(&config).await.expect("a free port");
    let address = server.address();
    let readiness = Readiness::new();
    let number = |JsonBody(asked): JsonBody<Value>| async move { asked.to_string().len().to_string() };
    let more = Router::new()
        .route("/more", get(|| async { "more" }).post(number))
        .route("/asked", get(|Query(asked): Query<Asked>| async move { asked.number.to_string() }))
        .route("/large", get(|| async { "x".repeat(24 << 20) }))
        .route("/stuck", get(std::future::pending::<()>));
    let routes = router(Arc::new(Metrics::new()), readiness.clone(), more);
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(server.serve(routes, async {
        let _ = stopped.await;
    }));
    Running { address, readiness, stop, server }
}

impl Running {
    /// Sends this and leaves the connection open.
    async fn open(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.expect("the server listens");
        stream.write_all(request.as_bytes()).await.expect("the server reads");
        stream
    }

    /// Everything that comes back until the server closes the connection.
    async fn send(&self, request: &str) -> String {
        let mut stream = self.open(request).await;
        rest(&mut stream).await
    }

    async fn get(&self, path: &str) -> String {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await
    }

    async fn post(&self, headers: &str, body: &str) -> String {
        let length = body.len();
        let head = format!("POST /more HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{headers}");
        self.send(&format!("{head}Connection: close\r\n\r\n{body}")).await
    }

    async fn end(self) {
        self.stop.send(()).expect("the server runs");
        self.server.await.expect("no panic");
    }
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset is an end, too.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Status and error of an answer, which must be JSON that no browser takes for something else.
fn problem(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    assert!(head.contains("content-type: application/json"), "{head}");
    assert!(head.contains("x-content-type-options: nosniff"), "{head}");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
    (status, body["error"].as_str().expect("an error").to_owned())
}

#[tokio::test]
async fn routes() {
    let running = start(8, LONG).await;
    assert!(running.get("/healthz").await.ends_with("\r\n\r\nok\n"));
    assert!(running.get("/more").await.ends_with("more"));
    let metrics = running.get("/metrics").await;
    assert!(metrics.contains("content-type: application/openmetrics-text; version=1.0.0"), "{metrics}");
    assert!(metrics.contains("x-content-type-options: nosniff"), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");

    assert!(running.get("/readyz").await.starts_with("HTTP/1.1 200"));
    running.readiness.waiting("rollup", "loads its snapshot");
    running.readiness.waiting("ingest", "has no partitions");
    let answer = running.get("/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.ends_with("\r\n\r\ningest: has no partitions\nrollup: loads its snapshot\n"), "{answer}");
    running.readiness.ready("rollup");
    running.readiness.ready("ingest");
    assert!(running.get("/readyz").await.starts_with("HTTP/1.1 200"));
    running.end().await;
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let running = start(8, LONG).await;
    let request = "GET /more HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let last = "GET /more HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = running.send(&format!("{request}{request}{last}")).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 3, "{answer}");
    running.end().await;
}

#[tokio::test]
async fn every_error_is_json() {
    let running = start(8, LONG).await;
    let (status, error) = problem(&running.get("/nowhere").await);
    assert_eq!((status, error.as_str()), (404, "there is nothing at `/nowhere`"));
    let answer = running.get("/more").await.replace("GET", "");
    assert!(answer.starts_with("HTTP/1.1 200"));
    let answer = running.send("DELETE /more HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(answer.contains("allow: GET,HEAD,POST"), "{answer}");
    assert_eq!(problem(&answer), (405, "`/more` does not take DELETE".to_owned()));
    let (status, error) = problem(&running.get("/asked?number=x").await);
    assert_eq!(status, 400);
    assert!(error.starts_with("Failed to deserialize query string"), "{error}");
    let (status, error) = problem(&running.post("Content-Type: text/plain\r\n", "{}").await);
    assert_eq!((status, error.as_str()), (415, "the body must be JSON: set Content-Type: application/json"));
    let (status, _) = problem(&running.post("Content-Type: application/json\r\n", "{").await);
    assert_eq!(status, 400);
    let evil = running.get("/metrics").await;
    assert!(evil.starts_with("HTTP/1.1 200"), "{evil}");
    let evil = "GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(problem(&running.send(evil).await).0, 421);
    let site = "Content-Type: application/json\r\nSec-Fetch-Site: cross-site\r\n";
    assert_eq!(problem(&running.post(site, "{}").await).0, 403);
    running.end().await;
}

#[tokio::test]
async fn bodies_are_bounded_and_unread_until_the_head_was_judged() {
    let running = start(8, LONG).await;
    let json = "Content-Type: application/json\r\n";
    let head = |headers: &str, length: usize| {
        format!("POST /more HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n")
    };
    // Not a byte of the body is sent.
    let (status, error) = problem(&running.send(&head(json, MAX_BODY_BYTES + 1)).await);
    assert_eq!((status, error.as_str()), (413, "the body is larger than 256 KiB"));
    assert_eq!(problem(&running.send(&head("Content-Type: text/plain\r\n", 1_000)).await).0, 415);
    let other = format!("{json}Origin: https://evil.example\r\n");
    assert_eq!(problem(&running.send(&head(&other, 1_000)).await).0, 403);
    // A body without a length is counted.
    let piece = format!("{:x}\r\n{}\r\n", 60 << 10, " ".repeat(60 << 10));
    let pieces = piece.repeat(5);
    let chunked =
        format!("POST /more HTTP/1.1\r\nHost: localhost\r\n{json}Transfer-Encoding: chunked\r\n\r\n{pieces}");
    assert_eq!(problem(&running.send(&chunked).await).0, 413);
    let fits = format!("\"{}\"", "x".repeat(MAX_BODY_BYTES - 2));
    assert!(running.post(json, &fits).await.ends_with(&MAX_BODY_BYTES.to_string()));
    running.end().await;
}

#[tokio::test]
async fn heads_are_bounded() {
    let running = start(8, LONG).await;
    let long = format!("GET /more HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n", "x".repeat(40 << 10));
    assert!(running.send(&long).await.starts_with("HTTP/1.1 431"));
    let many = format!("GET /more HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(101));
    assert!(running.send(&many).await.starts_with("HTTP/1.1 431"));
    assert!(running.get(&format!("/{}", "x".repeat(40 << 10))).await.starts_with("HTTP/1.1 4"));
    running.end().await;
}

#[tokio::test]
async fn clients_that_are_slow_in_any_part_lose_their_connection() {
    let running = start(8, SHORT).await;
    // A handler that never answers.
    let (status, error) = problem(&running.get("/stuck").await);
    assert_eq!((status, error.as_str()), (408, "the request was not done within 500ms"));
    // Nothing sent, half a head, half a body, nothing after an answer: each ends without the
    // client's doing.
    assert_eq!(running.send("").await, "");
    assert_eq!(running.send("GET /healthz HTTP/1.1\r\nHost:").await, "");
    assert_eq!(running.send("PR").await, "");
    let head = "POST /more HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{";
    assert_eq!(problem(&running.send(head).await).0, 408);
    let answer = running.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(answer.ends_with("ok\n"), "{answer}");
    // A byte now and then does not make it longer.
    let mut dripping = running.open("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ").await;
    let mut closed = false;
    for _ in 0..10_000 {
        let mut byte = [0];
        let read = tokio::time::timeout(SHORT / 20, dripping.read(&mut byte)).await;
        closed = matches!(read, Ok(Ok(0) | Err(_))) || dripping.write_all(b"x").await.is_err();
        if closed {
            break;
        }
    }
    assert!(closed, "a head that never ends is cut off");
    running.end().await;
}

#[tokio::test]
async fn probes_are_answered_while_all_other_places_are_taken() {
    let running = start(4, LONG).await;
    let stuck = "GET /stuck HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut held = Vec::new();
    // Requests at work, then connections in every other part of a conversation, many times more
    // than there are places.
    for _ in 0..4 {
        held.push(running.open(stuck).await);
    }
    // The fifth is turned away as soon as four are at work.
    let (status, error) = loop {
        let answer = tokio::time::timeout(SHORT, running.get("/more")).await.unwrap_or_default();
        if answer.starts_with("HTTP/1.1 503") {
            break problem(&answer);
        }
    };
    assert_eq!(status, 503);
    assert!(error.starts_with("too many requests at once"), "{error}");
    for _ in 0..50 {
        for begin in
            ["", "GET /healthz HTTP/1.1\r\nHost:", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"]
        {
            held.push(running.open(begin).await);
        }
    }
    for path in PROBES {
        assert!(running.get(path).await.starts_with("HTTP/1.1 200"), "{path}");
    }
    // Who was at work has kept its place.
    assert_eq!(problem(&running.get("/more").await).0, 503);
    drop(held);
    running.server.abort();
}

#[tokio::test]
async fn answers_that_nobody_takes_are_bounded_in_memory() {
    let running = start(8, Duration::from_secs(3)).await;
    let _slow = running.open("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let (status, error) = loop {
        let answer = running.get("/large").await;
        if answer.starts_with("HTTP/1.1 503") {
            break problem(&answer);
        }
    };
    assert_eq!((status, error.as_str()), (503, "too many answers are on their way to slow clients"));
    assert!(running.get("/healthz").await.ends_with("ok\n"));
    // The client that takes nothing is cut off, and then there is room again.
    while !running.get("/large").await.ends_with(&"x".repeat(24 << 20)) {}
    running.end().await;
}

#[tokio::test]
async fn http2_is_refused_in_its_own_words() {
    let running = start(8, LONG).await;
    let mut stream = running.open("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let mut frames = [0; 26];
    stream.read_exact(&mut frames).await.expect("an answer");
    // An empty frame of settings, then GOAWAY with HTTP_1_1_REQUIRED.
    assert_eq!(frames[..9], [0, 0, 0, 4, 0, 0, 0, 0, 0]);
    assert_eq!((frames[12], frames[25]), (7, 13));
    drop(stream);
    running.end().await;
}

#[tokio::test]
async fn connections_without_a_request_do_not_hold_up_the_end() {
    let running = start(8, LONG).await;
    let _silent = running.open("").await;
    let _half = running.open("GET /healthz HT").await;
    let mut idle = running.open("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut first = [0; 8];
    idle.read_exact(&mut first).await.expect("an answer");
    running.end().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listen = taken.local_addr().expect("bound");
    let config = HttpConfig { listen, ..HttpConfig::default() };
    let error = HttpServer::bind(&config).await.expect_err("the port is taken");
    assert_eq!(
        error.to_string(),
        format!(
            "cannot listen: choose another `listen` in [http] of the configuration, or set TIDEMARK_HTTP__LISTEN, address=`{listen}`"
        )
    );
}
