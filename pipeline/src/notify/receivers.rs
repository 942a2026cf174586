//! Receivers: from configuration to sinks. Nothing is contacted before the first delivery.

use std::sync::Arc;
use std::time::Duration;

use sinks::email::{self, EmailSink};
use sinks::webhook::{self, WebhookSink};
use sinks::{Notification, Sink};

use crate::config::{EmailConfig, ReceiverConfig, ReceiverKind, SmtpTls, WebhookConfig};
use crate::error::{Error, Result};

/// How long the webhook sink tries by itself, which is how far it honours `Retry-After`. Then it is our turn: the
/// attempt is counted, and the next begins after a pause.
const WEBHOOK_RETRY: webhook::Retry = webhook::Retry {
    min: Duration::from_millis(500),
    max: Duration::from_secs(30),
    total: Duration::from_secs(300),
};

/// A name that rules use, and where it leads.
#[derive(Debug, Clone)]
pub(super) struct Receiver {
    pub(super) name: Arc<str>,
    pub(super) sink: Arc<dyn Sink<Arc<Notification>>>,
}

/// Sinks for all receivers.
///
/// # Errors
/// [`Error::Refused`] with the name of the receiver that cannot work.
pub(super) fn connect(configs: Vec<ReceiverConfig>) -> Result<Vec<Receiver>> {
    let mut receivers = Vec::new();
    for ReceiverConfig { name, kind } in configs {
        let refused = |error: sinks::Error| Error::Refused(format!("receiver `{name}`: {error}"));
        let sink: Arc<dyn Sink<Arc<Notification>>> = match kind {
            ReceiverKind::Email(config) => Arc::new(EmailSink::new(&email_config(config)).map_err(refused)?),
            ReceiverKind::Webhook(config) => {
                let sink = WebhookSink::new(webhook_config(config)).map_err(refused)?;
                Arc::new(sink.with_retry(WEBHOOK_RETRY))
            }
        };
        receivers.push(Receiver { name: name.into(), sink });
    }
    Ok(receivers)
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

fn webhook_config(config: WebhookConfig) -> webhook::WebhookConfig {
    webhook::WebhookConfig {
        url: config.url,
        headers: config.headers,
        timeout: config.timeout,
        bearer_token: config.bearer_token,
        signing_key: config.signing_key,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::runtime::Runtime;

    use super::*;

    fn email(name: &str, ca_file: Option<&str>) -> ReceiverConfig {
        let config = EmailConfig {
            host: "127.0.0.1".to_owned(),
            port: 25,
            tls: SmtpTls::Implicit,
            credentials: Some(("tidemark".to_owned(), "very secret".into())),
            from: "Tidemark <tidemark@example.com>".to_owned(),
            to: vec!["oncall@example.com".to_owned()],
            ca_file: ca_file.map(Into::into),
            timeout: Duration::from_secs(5),
        };
        ReceiverConfig { name: name.to_owned(), kind: ReceiverKind::Email(config) }
    }

    fn webhook(name: &str, header: &str) -> ReceiverConfig {
        let config = WebhookConfig {
            url: "https://alerts.example.com/hook/very-secret".parse().expect("a URL"),
            headers: BTreeMap::from([(header.to_owned(), "very secret".into())]),
            bearer_token: Some("very secret".into()),
            signing_key: Some("very secret".into()),
            timeout: Duration::from_secs(5),
        };
        ReceiverConfig { name: name.to_owned(), kind: ReceiverKind::Webhook(config) }
    }

    #[test]
    fn configurations_become_sinks_or_name_their_receiver() {
        let runtime = Runtime::new().expect("a runtime");
        let _entered = runtime.enter();
        let receivers = connect(vec![email("mail", None), webhook("hook", "X-Key")]).expect("both can work");
        let names: Vec<&str> = receivers.iter().map(|receiver| &*receiver.name).collect();
        assert_eq!(names, ["mail", "hook"]);
        assert!(!format!("{receivers:?}").contains("secret"));

        for (config, expected) in [
            (email("mail", Some("/no/such.pem")), "receiver `mail`: "),
            (webhook("hook", "no header"), "receiver `hook`: "),
        ] {
            let error = connect(vec![config]).expect_err(expected);
            assert!(!error.retryable() && error.to_string().starts_with(expected), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
