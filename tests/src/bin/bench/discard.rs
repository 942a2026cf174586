//! An InfluxDB that takes every write and keeps nothing.

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::json;
use tidemark_tests::serving::Serving;

/// Largest body that is taken: several times what the sink sends.
const BODY: usize = 64 << 20;

/// It is healthy, and has whatever bucket it is asked for.
pub(crate) fn start() -> Serving {
    let has_it = get(|| async { json!({ "buckets": [{ "id": "any" }] }).to_string() });
    let take = |_: Bytes| async { StatusCode::NO_CONTENT };
    let router = Router::new()
        .route("/health", has_it.clone())
        .route("/api/v2/buckets", has_it)
        .fallback(take)
        .layer(DefaultBodyLimit::max(BODY));
    Serving::start(router)
}
