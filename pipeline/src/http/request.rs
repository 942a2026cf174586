//! From a request to its answer: who may ask, whether there is room, how long it may take.
//!
//! Heads are judged before a byte of a body is read. Every error is JSON, `{"error": "…"}`, whoever
//! found it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::Service;

use super::PROBES;
use super::guard::{Hosts, Refusal};
use super::pace::Pace;
use crate::config::HttpConfig;

/// Largest body of a request, in bytes.
pub(super) const MAX_BODY_BYTES: usize = 256 << 10;

/// Kibibytes of answers that clients have not taken yet, all together. A larger one has to be
/// alone.
const MAX_ANSWERS_KIB: u32 = 32 << 10;

/// An answer goes to the connection in pieces, so that what it takes is known until the client has
/// come for the last.
const PIECE_BYTES: usize = 16 << 10;

/// Most of the text of an error that the framework wrote.
const MAX_ERROR_BYTES: usize = 4 << 10;

/// Marks an answer with the status of an error whose text stays as it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct AsWritten;

/// Routes, and the bounds of requests.
pub(super) struct Server {
    routes: Router,
    hosts: Hosts,
    timeout: Duration,
    /// Requests at once, those of probes aside.
    requests: Arc<Semaphore>,
    answers: Arc<Semaphore>,
}

/// An answer on its way to the client. What it takes is given back when the client has it, or is
/// gone.
pub(super) struct Outgoing {
    body: Body,
    /// Of the body, and not handed on yet.
    rest: Bytes,
    pace: Arc<Pace>,
    _turn: Option<OwnedSemaphorePermit>,
    _memory: Option<OwnedSemaphorePermit>,
}

impl Server {
    pub(super) fn new(routes: Router, config: &HttpConfig) -> Self {
        Self {
            routes: routes.layer(DefaultBodyLimit::max(MAX_BODY_BYTES)),
            hosts: Hosts::of(config),
            timeout: config.timeout,
            requests: Arc::new(Semaphore::new(config.max_connections)),
            answers: Arc::new(Semaphore::new(MAX_ANSWERS_KIB as usize)),
        }
    }

    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        pace: &Arc<Pace>,
    ) -> Result<Response<Outgoing>, Infallible> {
        pace.working();
        let (turn, mut response) = match self.admit(&request) {
            Ok(turn) => (turn, self.work(request.map(Body::new)).await),
            Err(refusal) => (None, *refusal),
        };
        let size = response.body().size_hint().exact().unwrap_or_default();
        let kibibytes = u32::try_from(size >> 10).unwrap_or(u32::MAX).saturating_add(1).min(MAX_ANSWERS_KIB);
        let memory = Arc::clone(&self.answers).try_acquire_many_owned(kibibytes).ok();
        if memory.is_none() {
            response = busy("too many answers are on their way to slow clients");
        }
        response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        pace.answering();
        let pace = Arc::clone(pace);
        Ok(response.map(|body| Outgoing { body, rest: Bytes::new(), pace, _turn: turn, _memory: memory }))
    }

    /// Judges a request by its head. Probes need no turn.
    fn admit<B>(&self, request: &Request<B>) -> Result<Option<OwnedSemaphorePermit>, Box<Response>> {
        if let Err(Refusal { status, problem }) = self.hosts.check(request) {
            return Err(Box::new(refuse(status, problem)));
        }
        let length = request.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > MAX_BODY_BYTES as u64) {
            return Err(Box::new(too_large()));
        }
        if PROBES.contains(&request.uri().path()) {
            return Ok(None);
        }
        let turn = Arc::clone(&self.requests).try_acquire_owned();
        turn.map(Some)
            .map_err(|_| Box::new(busy("too many requests at once: `max_connections` of [http] bounds them")))
    }

    async fn work(&self, request: Request<Body>) -> Response {
        let place = (request.method().clone(), request.uri().path().to_owned());
        let mut routes = self.routes.clone();
        match tokio::time::timeout(self.timeout, routes.call(request)).await {
            Ok(Ok(response)) => explained(&place, response).await,
            Ok(Err(never)) => match never {},
            Err(_) => {
                let limit = humantime::format_duration(self.timeout);
                refuse(StatusCode::REQUEST_TIMEOUT, format!("the request was not done within {limit}"))
            }
        }
    }
}

/// An error as JSON: `{"error": "…"}`.
pub(crate) fn refuse(status: StatusCode, problem: impl Into<String>) -> Response {
    (status, Json(BTreeMap::from([("error", problem.into())]))).into_response()
}

fn busy(problem: &str) -> Response {
    let mut response = refuse(StatusCode::SERVICE_UNAVAILABLE, problem);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn too_large() -> Response {
    let problem = format!("the body is larger than {} KiB", MAX_BODY_BYTES >> 10);
    refuse(StatusCode::PAYLOAD_TOO_LARGE, problem)
}

/// Errors of the framework, which are plain text or empty, like those of the program.
async fn explained((method, path): &(Method, String), response: Response) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_json = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !is_error || is_json || response.extensions().get::<AsWritten>().is_some() {
        return response;
    }
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        return too_large();
    }
    let (parts, body) = response.into_parts();
    let text = to_bytes(body, MAX_ERROR_BYTES).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let reason = status.canonical_reason().unwrap_or("an error").to_lowercase();
    let problem = match status {
        _ if !text.trim().is_empty() => text.trim().to_owned(),
        StatusCode::NOT_FOUND => format!("there is nothing at `{path}`"),
        StatusCode::METHOD_NOT_ALLOWED => format!("`{path}` does not take {method}"),
        _ => reason,
    };
    let mut explained = refuse(status, problem);
    // A wrong method is answered with those that are right.
    if let Some(allowed) = parts.headers.get(header::ALLOW) {
        explained.headers_mut().insert(header::ALLOW, allowed.clone());
    }
    explained
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        let size = self.rest.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(size)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.body.size_hint().exact() {
            Some(size) => SizeHint::with_exact(size + self.rest.len() as u64),
            None => SizeHint::default(),
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.pace.waiting();
    }
}
