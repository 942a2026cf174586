//! From the configuration of a receiver to what sends to it. Nothing is contacted before the first
//! delivery.

use std::sync::Arc;

use sinks::alertmanager::AlertmanagerSink;
use sinks::email::{self, EmailSink};
use sinks::slack::SlackSink;
use sinks::webhook::WebhookSink;
use sinks::{Notification, Sink};
use tokio::runtime::{Builder, Handle};

use super::{EmailConfig, ReceiverKind, SmtpTls};

/// What sends to a receiver. To be made and dropped on a thread of a runtime: connection pools
/// start tasks of their own.
///
/// # Errors
/// Files that cannot be read, addresses and headers that are none.
pub(crate) fn build(kind: ReceiverKind) -> Result<Arc<dyn Sink<Arc<Notification>>>, sinks::Error> {
    Ok(match kind {
        ReceiverKind::Email(config) => Arc::new(EmailSink::new(&email_config(config))?),
        ReceiverKind::Webhook(config) => Arc::new(WebhookSink::new(config)?),
        ReceiverKind::Slack(config) => Arc::new(SlackSink::new(config)?),
        ReceiverKind::Alertmanager(config) => Arc::new(AlertmanagerSink::new(config)?),
    })
}

/// Makes a receiver's sink and drops it again: what is wrong is known before it is needed.
pub(super) fn try_to_build(kind: &ReceiverKind) -> Result<(), sinks::Error> {
    if Handle::try_current().is_ok() {
        return build(kind.clone()).map(drop);
    }
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| sinks::Error::Config(format!("cannot start a runtime: {error}")))?;
    runtime.block_on(async { build(kind.clone()).map(drop) })
}

fn email_config(config: EmailConfig) -> email::EmailConfig {
    let (username, password) = config.credentials.unzip();
    email::EmailConfig {
        host: config.host,
        port: config.port,
        tls: match config.tls {
            SmtpTls::StartTls => email::Tls::StartTls,
            SmtpTls::Implicit => email::Tls::Implicit,
            SmtpTls::None => email::Tls::None,
        },
        username,
        password,
        from: config.from,
        to: config.to,
        timeout: config.timeout,
        ca_file: config.ca_file,
        subject_prefix: String::new(),
    }
}
