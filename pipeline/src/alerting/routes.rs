//! `/api/alerts`, `/api/silences`: the same as `tidemark alerts`, as JSON.
//!
//! What changes something is refused when a web page of somebody else's asks for it: it must be JSON, and a browser that
//! says where it comes from must say that it comes from here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use operators::dispatch::Command;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::Alerting;
use super::commands::{self, Wanted};
use super::evidence::{Evidence, read_commands};
use super::{show, why};
use crate::error::Error;
use crate::roles::Context;

/// Requests that read or write topics at once.
const AT_ONCE: usize = 2;

#[derive(Clone)]
struct Shared {
    context: Context,
    alerting: Alerting,
    turns: Arc<Semaphore>,
}

pub(crate) fn routes(context: &Context, alerting: &Alerting) -> Router {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let shared = Shared { context: context.clone(), alerting: alerting.clone(), turns };
    Router::new()
        .route("/api/alerts", get(list))
        .route("/api/alerts/why", get(answer))
        .route("/api/alerts/log", get(ledger))
        .route("/api/alerts/{id}", get(show_one))
        .route("/api/alerts/{id}/ack", post(acknowledge))
        .route("/api/silences", get(silences).post(silence))
        .route("/api/silences/{id}", delete(unsilence))
        .with_state(shared)
}

/// What went wrong: a question without an answer, or no broker.
enum Problem {
    Asked(StatusCode, String),
    Kafka(Error),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Kafka(error)
    }
}

impl Shared {
    /// Does what blocks, off the runtime's threads, when it is its turn.
    async fn ask(
        self,
        work: impl FnOnce(&Context, &Alerting, i64) -> Result<Value, Problem> + Send + 'static,
    ) -> Response {
        let Ok(turn) = self.turns.clone().acquire_owned().await else {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        };
        let asked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work(&self.context, &self.alerting, self.context.clock.now_ns())
        });
        match asked.await {
            Ok(Ok(value)) => Json(value).into_response(),
            Ok(Err(Problem::Asked(status, problem))) => refuse(status, problem),
            Ok(Err(Problem::Kafka(error))) => refuse(StatusCode::BAD_GATEWAY, error.to_string()),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}

fn refuse(status: StatusCode, problem: String) -> Response {
    (status, Json(BTreeMap::from([("error", problem)]))).into_response()
}

fn gather(context: &Context, alerting: &Alerting, now: i64) -> Result<Evidence, Problem> {
    Ok(Evidence::gather(&context.config, &alerting.config(), now)?)
}

fn value(of: &impl serde::Serialize) -> Result<Value, Problem> {
    serde_json::to_value(of)
        .map_err(|error| Problem::Asked(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

fn not_found(problem: String) -> Problem {
    Problem::Asked(StatusCode::NOT_FOUND, problem)
}

async fn list(State(shared): State<Shared>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let work = move |context: &Context, alerting: &Alerting, now| {
        let evidence = gather(context, alerting, now)?;
        let (rule, state) = (query.get("rule"), query.get("state"));
        value(&show::list(&evidence, rule.map(String::as_str), state.map(String::as_str)))
    };
    shared.ask(work).await
}

async fn show_one(State(shared): State<Shared>, Path(id): Path<String>) -> Response {
    let work = move |context: &Context, alerting: &Alerting, now| {
        let evidence = gather(context, alerting, now)?;
        value(&show::show(&evidence, &id).map_err(not_found)?)
    };
    shared.ask(work).await
}

/// `?rule=cpu_high&host=a`: what is not the rule is a label.
async fn answer(State(shared): State<Shared>, Query(mut query): Query<BTreeMap<String, String>>) -> Response {
    let Some(rule) = query.remove("rule") else {
        return refuse(StatusCode::BAD_REQUEST, "`rule` is missing: ask for ?rule=…&label=value".to_owned());
    };
    let work = move |context: &Context, alerting: &Alerting, now| {
        value(&why::why(&gather(context, alerting, now)?, &rule, &query).map_err(not_found)?)
    };
    shared.ask(work).await
}

async fn ledger(State(shared): State<Shared>) -> Response {
    shared.ask(|context, alerting, now| value(&gather(context, alerting, now)?.ledger)).await
}

async fn silences(State(shared): State<Shared>) -> Response {
    shared.ask(|context, _, _| value(&read_commands(&context.config)?)).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedSilence {
    matchers: Vec<String>,
    /// `2h`.
    #[serde(rename = "for")]
    length: String,
    by: String,
    comment: String,
}

async fn silence(State(shared): State<Shared>, headers: HeaderMap, body: String) -> Response {
    let asked: AskedSilence = match changing(&headers).and_then(|()| read(&body)) {
        Ok(asked) => asked,
        Err((status, problem)) => return refuse(status, problem),
    };
    let length: Duration = match humantime::parse_duration(&asked.length) {
        Ok(length) => length,
        Err(_) => return refuse(StatusCode::BAD_REQUEST, "`for` is no duration such as 2h".to_owned()),
    };
    let AskedSilence { matchers, by, comment, .. } = asked;
    let work = move |context: &Context, _: &Alerting, now| {
        let wanted = Wanted { matchers, length, starts_at: None, by, comment };
        let silence = commands::silence(&wanted, now)
            .map_err(|problem| Problem::Asked(StatusCode::BAD_REQUEST, problem))?;
        let (key, answer) = (commands::silence_key(&silence.id), value(&silence)?);
        commands::send(&context.config, &key, Some(&Command::Silence(silence)))?;
        Ok(answer)
    };
    shared.ask(work).await
}

async fn unsilence(State(shared): State<Shared>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    if let Err((status, problem)) = from_here(&headers) {
        return refuse(status, problem);
    }
    let work = move |context: &Context, _: &Alerting, _| {
        let key = commands::silence_key(&id);
        if !read_commands(&context.config)?.contains_key(&key) {
            return Err(not_found(format!("there is no silence `{id}`")));
        }
        commands::send(&context.config, &key, None)?;
        Ok(json!({ "ended": id }))
    };
    shared.ask(work).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedAcknowledge {
    by: String,
    #[serde(default)]
    comment: String,
}

async fn acknowledge(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Path(id): Path<String>,
    body: String,
) -> Response {
    let AskedAcknowledge { by, comment } = match changing(&headers).and_then(|()| read(&body)) {
        Ok(asked) => asked,
        Err((status, problem)) => return refuse(status, problem),
    };
    let work = move |context: &Context, alerting: &Alerting, now| {
        let incident = commands::incident(&gather(context, alerting, now)?, &id).map_err(not_found)?;
        let key = commands::acknowledge_key(&incident);
        let acknowledge = commands::acknowledge(incident, by, comment, now);
        let answer = value(&acknowledge)?;
        commands::send(&context.config, &key, Some(&Command::Acknowledge(acknowledge)))?;
        Ok(answer)
    };
    shared.ask(work).await
}

fn read<T: for<'de> Deserialize<'de>>(body: &str) -> Result<T, (StatusCode, String)> {
    serde_json::from_str(body).map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))
}

fn changing(headers: &HeaderMap) -> Result<(), (StatusCode, String)> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some("application/json") {
        let problem = "the body must be JSON: set Content-Type: application/json".to_owned();
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, problem));
    }
    from_here(headers)
}

/// A browser says which page asks. Programs say nothing.
fn from_here(headers: &HeaderMap) -> Result<(), (StatusCode, String)> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(origin) = text(header::ORIGIN) else { return Ok(()) };
    let host = origin.split_once("://").map(|(_, host)| host);
    if host.is_some() && host == text(header::HOST) {
        return Ok(());
    }
    Err((StatusCode::FORBIDDEN, "another site's page may not change anything here".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_sites_pages_change_nothing() {
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            pairs
                .iter()
                .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
                .collect()
        };
        let json = ("content-type", "application/json; charset=utf-8");
        for (given, expected) in [
            (headers(&[json]), None),
            (headers(&[json, ("origin", "http://127.0.0.1:7878"), ("host", "127.0.0.1:7878")]), None),
            (headers(&[json, ("origin", "https://evil.example"), ("host", "127.0.0.1:7878")]), Some(403)),
            (headers(&[json, ("origin", "null"), ("host", "127.0.0.1:7878")]), Some(403)),
            (headers(&[("content-type", "text/plain")]), Some(415)),
            (headers(&[]), Some(415)),
        ] {
            assert_eq!(changing(&given).err().map(|(status, _)| status.as_u16()), expected, "{given:?}");
        }
    }
}
