//! A web server that keeps the requests it gets, and answers them by a script: the receiver of webhooks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::{IntoResponse, Response};
use reqwest::StatusCode;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::ports::free_port;
use crate::wait::wait_until;

/// A request as it came in.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub path: String,
    /// By lower-case name.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// The status that it was answered with.
    pub answered: u16,
}

impl Request {
    /// The body.
    ///
    /// # Panics
    /// When it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", String::from_utf8_lossy(&self.body)))
    }
}

/// One answer of a script.
#[derive(Debug, Clone)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

#[derive(Debug, Default)]
struct Record {
    script: VecDeque<Answer>,
    requests: Vec<Request>,
}

type Shared = Arc<Mutex<Record>>;

/// The server. It answers 200 with an empty body, but for what is scripted. Dropping it closes its port.
#[derive(Debug)]
pub struct Http {
    port: u16,
    record: Shared,
    /// Its own runtime, because ending that ends its connections, each of which is a task. None while it is down.
    serving: Mutex<Option<Runtime>>,
}

impl Http {
    /// A server on a free port.
    pub fn start() -> Self {
        let server = Self { port: free_port(), record: Shared::default(), serving: Mutex::new(None) };
        server.up();
        server
    }

    /// `http://host:port`, without a path.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Answers one more request with `status` and these headers (`("retry-after", "1")`), after those scripted before.
    pub fn answer(&self, status: u16, headers: &[(&str, &str)]) {
        self.answer_with(status, headers, "");
    }

    /// As [`Http::answer`], with a body.
    pub fn answer_with(&self, status: u16, headers: &[(&str, &str)], body: &str) {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.record.lock().unwrap().script.push_back(Answer { status, headers, body: body.to_owned() });
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.record.lock().unwrap().requests.clone()
    }

    /// Waits for the requests to be at least so many, and gives all of them.
    #[track_caller]
    pub fn wait_for(&self, count: usize, timeout: Duration) -> Vec<Request> {
        wait_until(timeout, &format!("{count} requests"), || {
            let requests = self.requests();
            if requests.len() >= count { Ok(requests) } else { Err(format!("{requests:#?}")) }
        })
    }

    /// Refuses connections until [`Http::up`], and closes those that are open.
    pub fn down(&self) {
        let Some(serving) = self.serving.lock().unwrap().take() else { return };
        // On a thread of its own: a runtime must not wait within another.
        thread::spawn(move || serving.shutdown_timeout(Duration::from_secs(5))).join().unwrap();
    }

    /// Listens again, on the same port.
    pub fn up(&self) {
        self.down();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let router = Router::new().fallback(take).with_state(Arc::clone(&self.record));
        let listener = std::net::TcpListener::bind(("127.0.0.1", self.port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await.expect("serving has no end and no error");
        });
        *self.serving.lock().unwrap() = Some(runtime);
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.down();
    }
}

async fn take(
    State(record): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let text = |value: &axum::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut record = record.lock().unwrap();
    let answer =
        record.script.pop_front().unwrap_or(Answer { status: 200, headers: Vec::new(), body: String::new() });
    record.requests.push(Request {
        method: method.to_string(),
        path: uri.to_string(),
        headers: headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        body: body.to_vec(),
        answered: answer.status,
    });
    let mut response = (StatusCode::from_u16(answer.status).unwrap(), answer.body).into_response();
    for (name, value) in answer.headers {
        response
            .headers_mut()
            .insert(axum::http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
    }
    response
}
