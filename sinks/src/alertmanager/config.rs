//! Options of the Alertmanager sink.

use std::time::Duration;

use crate::HttpConfig;

/// Where to post, and how long what is posted holds.
#[derive(Debug, Clone)]
pub struct AlertmanagerConfig {
    /// Its URL is that of the server, with the prefix it may have, and without `/api/v2/alerts`.
    pub http: HttpConfig,
    /// How long Alertmanager keeps a firing alert that it hears nothing more of. Longer than the
    /// time between two notifications of an alert that goes on, or Alertmanager ends it.
    pub resolve_after: Duration,
}
