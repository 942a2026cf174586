//! `/api/status` and `/api/why/<rollup>`: what this process knows, and its answer.

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
use super::{gather, question};
use crate::http::refuse;
use crate::roles::context::Context;
use crate::time::{Time, parse_rfc3339};

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
        status: Ok(context.board.status(&context.readiness, Some(&table), window)),
    };
    let evidence = gather::evidence(config, context.clock.now_ns(), vec![own]).await;
    Json(answer(&question, Picture::new(evidence))).into_response()
}

fn time_of(text: Option<&str>) -> Result<Option<Time>, String> {
    let Some(text) = text else { return Ok(None) };
    let wrong = || format!("`window` is no time such as 2026-01-01T12:00:00Z: `{text}`");
    parse_rfc3339(text).map(Some).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use std::path::Path as FilePath;

    use axum::body::to_bytes;
    use serde_json::Value;
    use tokio::runtime::Handle;

    use super::*;
    use crate::config::Config;

    fn shared() -> State<Shared> {
        let sql = "CREATE MATERIALIZED VIEW cpu AS
            SELECT tumble(time, INTERVAL '1 minute') AS w, count(*) AS n FROM points GROUP BY 1";
        let catalog = Arc::new(operators::sql::compile(&[("cpu.sql".into(), sql.into())]));
        let config = Config::local("127.0.0.1:1", FilePath::new("/tmp"));
        let context = Context::new(config, catalog, Handle::current());
        context.readiness.waiting("ingest", "no partition assigned yet");
        State(Shared { context, answers: Arc::new(Semaphore::new(ANSWERS)) })
    }

    async fn read(response: Response) -> (u16, Value) {
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        (status, serde_json::from_slice(&body).expect("JSON"))
    }

    #[tokio::test]
    async fn a_process_without_a_role_says_so() {
        let query = StatusQuery { rollup: Some("cpu".to_owned()), window: None };
        let (status, body) = read(status(shared(), Query(query)).await).await;
        assert_eq!(status, 200);
        assert!(body["ingest"].is_null() && body["rollup"].is_null(), "{body}");
        assert_eq!(body["waiting"]["ingest"], "no partition assigned yet");
    }

    #[tokio::test]
    async fn questions_that_cannot_be_answered() {
        let ask = async |rollup: &str, window: Option<&str>| {
            let query = WhyQuery { window: window.map(str::to_owned) };
            read(why(shared(), Path(rollup.to_owned()), Query(query)).await).await
        };
        let (status, body) = ask("cpus", None).await;
        assert_eq!(status, 404);
        assert_eq!(body["error"], "unknown rollup `cpus`: did you mean `cpu`?");
        let (status, body) = ask("cpu", Some("noon")).await;
        assert_eq!(status, 400);
        assert_eq!(body["error"], "`window` is no time such as 2026-01-01T12:00:00Z: `noon`");
    }
}
