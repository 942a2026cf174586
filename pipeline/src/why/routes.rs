//! `/api/status` and `/api/why/<rollup>`: what this process knows, and its answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::answer::answer;
use super::picture::{Asked, Picture};
use super::time::{Time, parse};
use super::{gather, question};
use crate::roles::Context;

/// Answers under way at once: each asks the brokers.
const ANSWERS: usize = 2;

#[derive(Clone)]
struct Shared {
    context: Context,
    answers: Arc<Semaphore>,
}

#[derive(Debug, Deserialize)]
struct StatusQuery {
    rollup: Option<String>,
    window: Option<String>,
}

#[derive(Debug, Deserialize)]
struct WhyQuery {
    window: Option<String>,
}

/// The routes, over what the roles of this process have pinned up.
pub(crate) fn routes(context: &Context) -> Router {
    let shared = Shared { context: context.clone(), answers: Arc::new(Semaphore::new(ANSWERS)) };
    Router::new().route("/api/status", get(status)).route("/api/why/{rollup}", get(why)).with_state(shared)
}

async fn status(State(shared): State<Shared>, Query(query): Query<StatusQuery>) -> Response {
    let window = match time_of(query.window.as_deref()) {
        Ok(window) => window,
        Err(problem) => return refuse(StatusCode::BAD_REQUEST, problem),
    };
    let context = &shared.context;
    Json(context.board.status(&context.readiness, query.rollup.as_deref(), window)).into_response()
}

async fn why(
    State(shared): State<Shared>,
    Path(table): Path<String>,
    Query(query): Query<WhyQuery>,
) -> Response {
    let Context { config, catalog, .. } = &shared.context;
    let window = match time_of(query.window.as_deref()) {
        Ok(window) => window,
        Err(problem) => return refuse(StatusCode::BAD_REQUEST, problem),
    };
    let question = match question(catalog, &table, window) {
        Ok(question) => question,
        Err(problem) => return refuse(StatusCode::NOT_FOUND, problem),
    };
    // Who waits here is cut off with the request's time.
    let Ok(_turn) = shared.answers.acquire().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let context = &shared.context;
    let window = question.window.map(|(start, _)| Time(start));
    let own = Asked {
        url: format!("http://{}", config.http.listen),
        said: Ok(context.board.status(&context.readiness, Some(&table), window)),
    };
    let evidence = gather::evidence(config, context.clock.now_ns(), vec![own]).await;
    Json(answer(&question, Picture::new(evidence))).into_response()
}

fn time_of(text: Option<&str>) -> Result<Option<Time>, String> {
    let Some(text) = text else { return Ok(None) };
    let wrong = || format!("`window` is no time such as 2026-01-01T12:00:00Z: `{text}`");
    parse(text).map(Some).ok_or_else(wrong)
}

/// An error as JSON: `{"error": "…"}`.
fn refuse(status: StatusCode, problem: String) -> Response {
    (status, Json(BTreeMap::from([("error", problem)]))).into_response()
}
