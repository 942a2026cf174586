//! The HTTP server: `/metrics`, `/healthz`, `/readyz`, and whatever routes a role adds.
//!
//! Everything a client can spend is bounded: connections, time for a request, bytes of a body. A client that sends or
//! reads slowly loses its connection and costs nobody else anything. Listens on loopback unless configured otherwise.

mod listener;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;

use crate::config::HttpConfig;
use crate::telemetry::Metrics;
use listener::BoundedListener;

/// Largest body of a request, in bytes.
pub const MAX_BODY_BYTES: usize = 4 << 20;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The server could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error(
        "cannot listen: choose another `listen` in [http] of the configuration, or set TIDEMARK_HTTP__LISTEN, address=`{address}`"
    )]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("the HTTP server failed")]
    Serve(#[source] std::io::Error),
}

/// What has to be ready before the process takes part. Cheap to clone; clones share the list.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    /// What is not ready, and why.
    waiting: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Readiness {
    pub fn new() -> Self {
        Self::default()
    }

    /// `part` is not ready, for this reason.
    pub fn waiting(&self, part: &str, reason: impl Into<String>) {
        self.lock().insert(part.to_owned(), reason.into());
    }

    /// `part` is ready.
    pub fn ready(&self, part: &str) {
        self.lock().remove(part);
    }

    /// Whether nothing is being waited for.
    pub fn is_ready(&self) -> bool {
        self.lock().is_empty()
    }

    /// What is being waited for, and why.
    pub fn reasons(&self) -> BTreeMap<String, String> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, String>> {
        // No code panics while it holds the lock, and the map is valid after every step.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A bound server that does not serve yet: its port is known, and taken.
#[derive(Debug)]
pub struct HttpServer {
    listener: BoundedListener,
    address: SocketAddr,
    config: HttpConfig,
}

impl HttpServer {
    /// Takes the configured port; port 0 takes a free one.
    ///
    /// # Errors
    /// [`HttpError::Listen`] when the port is taken or not allowed.
    pub async fn bind(config: &HttpConfig) -> Result<Self, HttpError> {
        let listener = BoundedListener::bind(config).await;
        let bound = listener.and_then(|listener| Ok((listener.address()?, listener)));
        let (address, listener) =
            bound.map_err(|source| HttpError::Listen { address: config.listen, source })?;
        Ok(Self { listener, address, config: config.clone() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` completes and the requests under way are answered.
    ///
    /// # Errors
    /// [`HttpError::Serve`] when the listening socket fails.
    pub async fn serve(
        self,
        routes: Router,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), HttpError> {
        let bounded = routes
            .layer(RequestBodyLimitLayer::new(MAX_BODY_BYTES))
            .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, self.config.timeout));
        tracing::info!(address = %self.address, "http server listens");
        axum::serve(self.listener, bounded).with_graceful_shutdown(shutdown).await.map_err(HttpError::Serve)
    }
}

/// The routes every process has, and `more`.
pub fn router(metrics: Arc<Metrics>, readiness: Readiness, more: Router) -> Router {
    let own = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(show_metrics).with_state(metrics))
        .route("/readyz", get(show_readiness).with_state(readiness));
    own.merge(more)
}

async fn show_metrics(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// `ready`, or 503 with a line for each part that is not.
async fn show_readiness(State(readiness): State<Readiness>) -> Response {
    let waiting = readiness.lock();
    if waiting.is_empty() {
        return "ready\n".into_response();
    }
    let mut lines = String::new();
    for (part, reason) in &*waiting {
        lines.push_str(part);
        lines.push_str(": ");
        lines.push_str(reason);
        lines.push('\n');
    }
    (StatusCode::SERVICE_UNAVAILABLE, lines).into_response()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;

    struct Running {
        address: SocketAddr,
        readiness: Readiness,
        stop: oneshot::Sender<()>,
        server: JoinHandle<Result<(), HttpError>>,
    }

    async fn start(max_connections: usize, timeout: Duration) -> Running {
        let listen = "127.0.0.1:0".parse().expect("an address");
        let config = HttpConfig { listen, max_connections, timeout };
        let server = HttpServer::bind(&config).await.expect("a free port");
        let address = server.address();
        let readiness = Readiness::new();
        let more = Router::new()
            .route(
                "/more",
                get(|| async { "more" }).post(|body: String| async move { body.len().to_string() }),
            )
            .route("/stuck", get(std::future::pending::<()>));
        let routes = router(Arc::new(Metrics::new()), readiness.clone(), more);
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(server.serve(routes, async {
            let _ = stopped.await;
        }));
        Running { address, readiness, stop, server }
    }

    impl Running {
        async fn send(&self, request: &str) -> String {
            let mut stream = TcpStream::connect(self.address).await.expect("the server listens");
            stream.write_all(request.as_bytes()).await.expect("the server reads");
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer).await;
            answer
        }

        async fn get(&self, path: &str) -> String {
            self.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await
        }

        async fn end(self) {
            self.stop.send(()).expect("the server runs");
            self.server.await.expect("no panic").expect("a clean end");
        }
    }

    #[tokio::test]
    async fn routes() {
        let running = start(8, Duration::from_secs(30)).await;
        assert!(running.get("/healthz").await.ends_with("\r\n\r\nok\n"));
        assert!(running.get("/more").await.ends_with("more"));
        let metrics = running.get("/metrics").await;
        assert!(metrics.contains("content-type: application/openmetrics-text; version=1.0.0"), "{metrics}");
        assert!(metrics.ends_with("# EOF\n"), "{metrics}");

        assert!(running.get("/readyz").await.starts_with("HTTP/1.1 200"));
        running.readiness.waiting("rollup", "loads its snapshot");
        running.readiness.waiting("ingest", "has no partitions");
        let answer = running.get("/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(
            answer.ends_with("\r\n\r\ningest: has no partitions\nrollup: loads its snapshot\n"),
            "{answer}"
        );
        running.readiness.ready("rollup");
        running.readiness.ready("ingest");
        assert!(running.get("/readyz").await.starts_with("HTTP/1.1 200"));
        running.end().await;
    }

    #[tokio::test]
    async fn bodies_are_bounded() {
        let running = start(8, Duration::from_secs(30)).await;
        let length = MAX_BODY_BYTES + 1;
        let head = format!(
            "POST /more HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        let answer = running.send(&head).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        running.end().await;
    }

    #[tokio::test]
    async fn slow_requests_and_slow_clients_are_cut_off() {
        let running = start(1, Duration::from_millis(100)).await;
        // A handler that never answers.
        assert!(running.get("/stuck").await.starts_with("HTTP/1.1 408"));
        // A client that never ends its request: the only connection becomes free again.
        let answer = running.send("GET /healthz HTTP/1.1\r\nHost:").await;
        assert_eq!(answer, "", "closed without an answer");
        assert!(running.get("/healthz").await.starts_with("HTTP/1.1 200"));
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
}
