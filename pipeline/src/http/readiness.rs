//! `/readyz`: what has to be ready before the process takes part.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::request::AsWritten;

/// The parts that are not ready. Cheap to clone; clones share the list.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    /// Each part that is not ready, with the reason.
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

    /// The parts that are not ready, with their reasons.
    pub fn reasons(&self) -> BTreeMap<String, String> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        // No code panics while it holds the lock, and the map is valid after every step.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `ready`, or 503 with a line for each part that is not.
pub(super) async fn show(State(readiness): State<Readiness>) -> Response {
    let waiting = readiness.reasons();
    if waiting.is_empty() {
        return "ready\n".into_response();
    }
    let lines: String = waiting.iter().map(|(part, reason)| format!("{part}: {reason}\n")).collect();
    let mut response = (StatusCode::SERVICE_UNAVAILABLE, lines).into_response();
    response.extensions_mut().insert(AsWritten);
    response
}
