//! `/api/alerts`, `/api/silences`: the same as `tidemark alerts`, as JSON.
//!
//! Requests that change something must be JSON; the server refuses those of other sites' pages
//! before they come here.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use alerts::dispatch::Command;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::commands::{self, Wanted};
use super::evidence::{Evidence, Rules, read_commands};
use super::ledger::{self, Question};
use super::times::with_times;
use super::{show, why};
use crate::alerting::Alerting;
use crate::error::Error;
use crate::http::{JsonBody, refuse};
use crate::roles::context::Context;
use crate::time::{Time, parse_rfc3339};

/// Requests that read or write topics at once.
const AT_ONCE: usize = 2;
/// Entries of the ledger in one answer.
const MOST_ENTRIES: usize = 1_000;

#[derive(Clone)]
struct Shared {
    context: Context,
    alerting: Alerting,
    reads: Arc<Semaphore>,
    /// Apart, so that nobody who looks keeps somebody from silencing an alert.
    changes: Arc<Semaphore>,
}

pub(crate) fn routes(context: &Context, alerting: &Alerting) -> Router {
    let semaphore = || Arc::new(Semaphore::new(AT_ONCE));
    let (context, alerting) = (context.clone(), alerting.clone());
    let shared = Shared { context, alerting, reads: semaphore(), changes: semaphore() };
    Router::new()
        .route("/api/alerts", get(list))
        .route("/api/alerts/why", get(answer))
        .route("/api/alerts/log", get(newest))
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
    async fn ask(
        self,
        work: impl FnOnce(&Context, &Alerting, i64) -> Result<Value, Problem> + Send + 'static,
    ) -> Response {
        self.in_turn(false, work).await
    }

    async fn change(
        self,
        work: impl FnOnce(&Context, &Alerting, i64) -> Result<Value, Problem> + Send + 'static,
    ) -> Response {
        self.in_turn(true, work).await
    }

    /// Does what blocks, off the runtime's threads, when it is its turn.
    async fn in_turn(
        self,
        changes: bool,
        work: impl FnOnce(&Context, &Alerting, i64) -> Result<Value, Problem> + Send + 'static,
    ) -> Response {
        let turns = if changes { &self.changes } else { &self.reads };
        let Ok(turn) = Arc::clone(turns).acquire_owned().await else {
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

fn gather(
    context: &Context,
    alerting: &Alerting,
    question: &Question,
    now: i64,
) -> Result<Evidence, Problem> {
    let alerts = alerting.config();
    // Only why asks whether rules can be used.
    let catalog = matches!(question, Question::Alerts { .. }).then_some(&*context.catalog);
    let rules = Rules::of(&alerts, catalog, Vec::new());
    Ok(Evidence::gather(&context.config, &alerts, rules, question, now)?)
}

fn value(of: &impl serde::Serialize) -> Result<Value, Problem> {
    serde_json::to_value(of)
        .map(with_times)
        .map_err(|error| Problem::Asked(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

fn not_found(problem: String) -> Problem {
    Problem::Asked(StatusCode::NOT_FOUND, problem)
}

async fn list(State(shared): State<Shared>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    if query.get("state").is_some_and(|state| !["pending", "firing"].contains(&state.as_str())) {
        return refuse(StatusCode::BAD_REQUEST, "`state` is `pending` or `firing`".to_owned());
    }
    let work = move |context: &Context, alerting: &Alerting, now| {
        let evidence = gather(context, alerting, &Question::Now, now)?;
        let (rule, state) = (query.get("rule"), query.get("state"));
        value(&show::list(&evidence, rule.map(String::as_str), state.map(String::as_str)))
    };
    shared.ask(work).await
}

async fn show_one(State(shared): State<Shared>, Path(id): Path<String>) -> Response {
    let work = move |context: &Context, alerting: &Alerting, now| {
        let evidence = gather(context, alerting, &Question::Id(id.clone()), now)?;
        value(&show::show(&evidence, &id).map_err(not_found)?)
    };
    shared.ask(work).await
}

/// `?rule=cpu_high&host=a`: what is not the rule is a label.
async fn answer(State(shared): State<Shared>, Query(mut query): Query<BTreeMap<String, String>>) -> Response {
    let Some(rule) = query.remove("rule") else {
        return refuse(
            StatusCode::BAD_REQUEST,
            "`rule` is missing: ask for ?rule=cpu_high&host=a".to_owned(),
        );
    };
    let work = move |context: &Context, alerting: &Alerting, now| {
        let question = Question::Alerts { rule: rule.clone(), labels: query.clone() };
        let evidence = gather(context, alerting, &question, now)?;
        value(&why::why(&evidence, &rule, &query).map_err(not_found)?)
    };
    shared.ask(work).await
}

/// `?rule=…&since=…`: the newest entries.
async fn newest(State(shared): State<Shared>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let since = match query.get("since").map(|text| (text, parse_rfc3339(text))) {
        Some((text, None)) => {
            let problem = format!("`since` is no time such as 2026-01-01T12:00:00Z: `{text}`");
            return refuse(StatusCode::BAD_REQUEST, problem);
        }
        Some((_, since)) => since.map(|since| since.0),
        None => None,
    };
    let work = move |context: &Context, _: &Alerting, _| {
        let mut entries = VecDeque::new();
        ledger::follow(&context.config, since, false, |entry| {
            if query.get("rule").is_none_or(|rule| entry.rule == *rule) {
                if entries.len() == MOST_ENTRIES {
                    entries.pop_front();
                }
                entries.push_back(entry);
            }
            ControlFlow::Continue(())
        })?;
        value(&entries)
    };
    shared.ask(work).await
}

async fn silences(State(shared): State<Shared>) -> Response {
    let work =
        |context: &Context, _: &Alerting, now| value(&show::silences(&read_commands(&context.config)?, now));
    shared.ask(work).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedSilence {
    matchers: Vec<String>,
    /// `2h`.
    #[serde(rename = "for")]
    length: String,
    /// Now, if it is not given.
    starts: Option<Time>,
    by: String,
    comment: String,
}

async fn silence(State(shared): State<Shared>, JsonBody(asked): JsonBody<AskedSilence>) -> Response {
    let length: Duration = match humantime::parse_duration(&asked.length) {
        Ok(length) => length,
        Err(_) => return refuse(StatusCode::BAD_REQUEST, "`for` is no duration such as 2h".to_owned()),
    };
    let AskedSilence { matchers, starts, by, comment, .. } = asked;
    let work = move |context: &Context, _: &Alerting, now| {
        let wanted = Wanted { matchers, length, starts_at: starts.map(|time| time.0), by, comment };
        let silence = commands::silence(&wanted, now)
            .map_err(|problem| Problem::Asked(StatusCode::BAD_REQUEST, problem))?;
        let (key, answer) = (commands::silence_key(&silence.id), value(&silence)?);
        commands::check_number(&read_commands(&context.config)?)
            .map_err(|problem| Problem::Asked(StatusCode::CONFLICT, problem))?;
        commands::send(&context.config, &key, Some(&Command::Silence(silence)))?;
        Ok(answer)
    };
    shared.change(work).await
}

async fn unsilence(State(shared): State<Shared>, Path(id): Path<String>) -> Response {
    let work = move |context: &Context, _: &Alerting, _| {
        let id = commands::silence_id(&read_commands(&context.config)?, &id).map_err(not_found)?;
        commands::send(&context.config, &commands::silence_key(&id), None)?;
        Ok(json!({ "ended": id }))
    };
    shared.change(work).await
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
    Path(id): Path<String>,
    JsonBody(asked): JsonBody<AskedAcknowledge>,
) -> Response {
    let AskedAcknowledge { by, comment } = asked;
    let work = move |context: &Context, alerting: &Alerting, now| {
        commands::check_person(&by, &comment)
            .map_err(|problem| Problem::Asked(StatusCode::BAD_REQUEST, problem))?;
        let evidence = gather(context, alerting, &Question::Now, now)?;
        let incident = commands::incident(&evidence, &id).map_err(not_found)?;
        let key = commands::acknowledge_key(&incident);
        let acknowledge = commands::acknowledge(incident, by, comment, now);
        let answer = value(&acknowledge)?;
        commands::send(&context.config, &key, Some(&Command::Acknowledge(acknowledge)))?;
        Ok(answer)
    };
    shared.change(work).await
}
