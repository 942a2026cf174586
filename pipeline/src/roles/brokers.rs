//! Looks now and then whether a broker answers, for `/readyz`.

use std::time::Duration;

use crate::kafka::{Asked, Reporting, asker, cause, metadata};
use crate::roles::context::Context;
use crate::time::shown;

/// The part that `/readyz` names.
const PART: &str = "kafka";
const INTERVAL: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs until shutdown. While no broker answers the process is not ready, and reports since when
/// and probably why.
pub(crate) fn watch(context: &Context) {
    let kafka = &context.config.kafka;
    let client = match asker(kafka) {
        Ok(client) => client,
        Err(error) => return context.readiness.waiting(PART, error.to_string()),
    };
    let topic = context.config.topics.points.first().map(String::as_str);
    let mut away_since = None;
    while !context.shutdown.is_triggered() {
        // What the client reports would pile up.
        client.hear();
        let now = context.clock.now_ns();
        match metadata(kafka, &client, topic, PATIENCE) {
            // A missing topic is reported by the roles.
            Ok(_) => {
                client.client().context().reports().well();
                if let Some(since) = away_since.take() {
                    tracing::info!(since = shown(since), "kafka answers again");
                }
                context.readiness.ready(PART);
            }
            Err(_) => {
                let since = *away_since.get_or_insert(now);
                let cause = cause(&client);
                context.readiness.waiting(PART, format!("away since {}: {cause}", shown(since)));
            }
        }
        // Over when the time is, or at shutdown.
        let pause = async { tokio::time::timeout(INTERVAL, context.shutdown.triggered()).await };
        let _ = context.runtime.block_on(pause);
    }
}
