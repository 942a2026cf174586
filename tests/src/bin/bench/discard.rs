//! An InfluxDB that takes every write and keeps nothing.

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use tidemark_tests::serving::Serving;

/// Largest body that is taken: several times what the sink sends.
const BODY: usize = 64 << 20;

pub(crate) fn start() -> Serving {
    let take = |_: Bytes| async { StatusCode::NO_CONTENT };
    Serving::start(Router::new().fallback(take).layer(DefaultBodyLimit::max(BODY)))
}
