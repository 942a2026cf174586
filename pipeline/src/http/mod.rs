//! The HTTP server: `/metrics`, `/healthz`, `/readyz`, and whatever routes a role adds.
//!
//! Everything that a client can spend is bounded: connections, the time of each part of a
//! conversation, the size of heads and bodies, the memory of answers. A client that sends or reads
//! slowly loses its connection and costs nobody else anything. Listens on loopback unless
//! configured otherwise, and speaks HTTP/1 only.
//!
//! - `connections`: accepting, and who gives way when places run out; `pace`: what a connection
//!   waits for, and until when
//! - `request`: the steps from a request to its answer; `guard`: which requests other sites' pages
//!   may not make
//! - `body`: bodies of requests as JSON; `readiness`: what a process waits for

mod body;
mod connections;
mod guard;
mod pace;
mod readiness;
mod request;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::config::HttpConfig;
use crate::telemetry::Metrics;
pub(crate) use body::JsonBody;
use connections::Connections;
pub use readiness::Readiness;
pub(crate) use request::refuse;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Paths of probes and scrapers: they are answered when all other places are taken.
const PROBES: [&str; 3] = ["/healthz", "/metrics", "/readyz"];

/// The server could not start.
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
}

/// A bound server that does not serve yet: its port is known, and taken.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    address: SocketAddr,
    config: HttpConfig,
}

impl HttpServer {
    /// Takes the configured port; port 0 takes a free one.
    ///
    /// # Errors
    /// [`HttpError::Listen`] when the port is taken or not allowed.
    pub async fn bind(config: &HttpConfig) -> Result<Self, HttpError> {
        let listener = TcpListener::bind(config.listen).await;
        let bound = listener.and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, listener) =
            bound.map_err(|source| HttpError::Listen { address: config.listen, source })?;
        Ok(Self { listener, address, config: config.clone() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` completes and the requests under way are answered.
    pub async fn serve(self, routes: Router, shutdown: impl Future<Output = ()> + Send + 'static) {
        tracing::info!(address = %self.address, "http server listens");
        Connections::new(routes, &self.config).serve(self.listener, shutdown).await;
    }
}

/// The routes every process has, and `more`.
pub fn router(metrics: Arc<Metrics>, readiness: Readiness, more: Router) -> Router {
    let own = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(show_metrics).with_state(metrics))
        .route("/readyz", get(readiness::show).with_state(readiness));
    own.merge(more)
}

async fn show_metrics(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests;
