//! A proxy in front of a real InfluxDB that injects faults into the requests that write.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use flate2::read::GzDecoder;
use futures::{StreamExt, stream};

use crate::background;
use crate::serving::Serving;

/// What happens to a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Refused with this status, and perhaps `Retry-After: 1`.
    Status(u16, bool),
    /// Written, but so late that the client's patience is used up more than once in a while.
    Slow,
    /// Written, and never answered.
    Deaf,
    /// Written, and the connection breaks before the answer is complete.
    Cut,
    /// Kept back until [`Proxy::release`], and never answered.
    Held,
}

/// A request as it came.
type Request = (Method, Uri, HeaderMap, Bytes);

#[derive(Debug, Default)]
struct Script {
    fault: Option<Fault>,
    injected: usize,
    held: Vec<Request>,
    /// Status by which lines with this text are refused for good.
    poison: BTreeMap<String, u16>,
}

/// Dropping it ends it.
#[derive(Debug)]
pub struct Proxy {
    serving: Serving,
    shared: Shared,
}

#[derive(Debug, Clone)]
struct Shared {
    upstream: String,
    script: Arc<Mutex<Script>>,
}

impl Proxy {
    /// In front of the server at this address; without a fault it passes everything on.
    pub fn start(upstream: &str) -> Self {
        let shared = Shared { upstream: upstream.to_owned(), script: Arc::default() };
        let router = Router::new().fallback(answer).with_state(shared.clone());
        Self { serving: Serving::start(router), shared }
    }

    /// Where it answers.
    pub fn url(&self) -> String {
        self.serving.url()
    }

    /// From now on every write meets this fault, or none.
    pub fn inject(&self, fault: Option<Fault>) {
        let mut script = self.shared.script.lock().unwrap();
        script.fault = fault;
        script.injected = 0;
    }

    /// Writes that have met the fault.
    pub fn injected(&self) -> usize {
        self.shared.script.lock().unwrap().injected
    }

    /// Passes on the requests that were kept back, in their order; says how many.
    pub fn release(&self) -> usize {
        let held = std::mem::take(&mut self.shared.script.lock().unwrap().held);
        let (count, shared) = (held.len(), self.shared.clone());
        background::wait_for(async move {
            for (method, uri, headers, body) in held {
                forward(&shared, method, &uri, &headers, body).await;
            }
        });
        count
    }

    /// Lines with this text are refused as InfluxDB refuses them: by 400 nothing of the request is
    /// written, by 422 all but those lines.
    pub fn poison(&self, text: &str, status: u16) {
        self.shared.script.lock().unwrap().poison.insert(text.to_owned(), status);
    }
}

async fn answer(
    State(shared): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if uri.path() != "/api/v2/write" {
        return forward(&shared, method, &uri, &headers, body).await;
    }
    let fault = {
        let mut script = shared.script.lock().unwrap();
        script.injected += usize::from(script.fault.is_some());
        script.fault
    };
    match fault {
        Some(Fault::Status(status, wait)) => refuse(status, wait),
        Some(Fault::Slow) => {
            tokio::time::sleep(Duration::from_secs(2)).await;
            write(&shared, method, &uri, headers, body).await
        }
        Some(Fault::Deaf) => {
            write(&shared, method, &uri, headers, body).await;
            std::future::pending().await
        }
        Some(Fault::Cut) => {
            write(&shared, method, &uri, headers, body).await;
            cut()
        }
        Some(Fault::Held) => {
            shared.script.lock().unwrap().held.push((method, uri, headers, body));
            std::future::pending().await
        }
        None => write(&shared, method, &uri, headers, body).await,
    }
}

fn refuse(status: u16, wait: bool) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    let body = r#"{"code":"drill","message":"the drill says no"}"#;
    if wait { (status, [("retry-after", "1")], body).into_response() } else { (status, body).into_response() }
}

/// An answer that ends before it is complete, and the connection with it.
pub(super) fn cut() -> Response {
    let part = stream::iter([Ok(Bytes::from_static(b"half"))]);
    let broken = part.chain(stream::once(async { Err(std::io::Error::other("cut by the drill")) }));
    Response::builder().status(200).header("content-length", "1000").body(Body::from_stream(broken)).unwrap()
}

/// Writes what is not poisoned.
async fn write(shared: &Shared, method: Method, uri: &Uri, mut headers: HeaderMap, body: Bytes) -> Response {
    let poison = shared.script.lock().unwrap().poison.clone();
    if poison.is_empty() {
        return forward(shared, method, uri, &headers, body).await;
    }
    let gzip = headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip");
    let mut text = String::new();
    if gzip {
        GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
    } else {
        text = String::from_utf8(body.to_vec()).unwrap();
    }
    let status_of = |line: &str| {
        poison.iter().find(|(poison, _)| line.contains(poison.as_str())).map(|(_, status)| *status)
    };
    if let Some(line) = text.lines().find(|line| status_of(line) == Some(400)) {
        let body = serde_json::json!({ "code": "invalid", "message": format!("unable to parse '{line}'") });
        return (StatusCode::BAD_REQUEST, body.to_string()).into_response();
    }
    let good: Vec<&str> = text.lines().filter(|line| status_of(line).is_none()).collect();
    let dropped = text.lines().count() - good.len();
    if dropped == 0 {
        return forward(shared, method, uri, &headers, body).await;
    }
    if !good.is_empty() {
        headers.remove("content-encoding");
        let answer = forward(shared, method, uri, &headers, good.join("\n").into()).await;
        if !answer.status().is_success() {
            return answer;
        }
    }
    let message = format!("failure writing points to database: partial write: the drill dropped={dropped}");
    let body = serde_json::json!({ "code": "unprocessable entity", "message": message });
    (StatusCode::UNPROCESSABLE_ENTITY, body.to_string()).into_response()
}

/// Passes a request on as it is. A server that is away is a broken connection here too.
async fn forward(
    shared: &Shared,
    method: Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = background::client().request(method, format!("{}{path}", shared.upstream)).body(body);
    for (name, value) in headers.iter().filter(|(name, _)| *name != "host" && *name != "content-length") {
        request = request.header(name, value);
    }
    let Ok(answer) = request.send().await else { return cut() };
    let status = answer.status();
    let mut response = Response::builder().status(status);
    for (name, value) in answer.headers().iter().filter(|(name, _)| *name != "transfer-encoding") {
        response = response.header(name, value);
    }
    let Ok(body) = answer.bytes().await else { return cut() };
    let body = stream::iter([Ok::<_, Infallible>(body)]);
    response.body(Body::from_stream(body)).unwrap()
}
