//! Receivers: from configuration to sinks. Nothing is contacted before the first delivery.

use std::sync::Arc;

use sinks::alertmanager::AlertmanagerSink;
use sinks::email::{self, EmailSink};
use sinks::slack::SlackSink;
use sinks::webhook::WebhookSink;
use sinks::{Notification, Sink};

use crate::config::{EmailConfig, ReceiverConfig, ReceiverKind, SmtpTls};
use crate::error::{Error, Result};

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
    for ReceiverConfig { name, kind, .. } in configs {
        let refused = |error: sinks::Error| Error::Refused(format!("receiver `{name}`: {error}"));
        let sink: Arc<dyn Sink<Arc<Notification>>> = match kind {
            ReceiverKind::Email(config) => Arc::new(EmailSink::new(&email_config(config)).map_err(refused)?),
            ReceiverKind::Webhook(config) => Arc::new(WebhookSink::new(config).map_err(refused)?),
            ReceiverKind::Slack(config) => Arc::new(SlackSink::new(config).map_err(refused)?),
            ReceiverKind::Alertmanager(config) => Arc::new(AlertmanagerSink::new(config).map_err(refused)?),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use sinks::HttpConfig;
    use tokio::runtime::Runtime;

    use super::*;
    use crate::config::{AlertmanagerConfig, SlackConfig, WebhookConfig};

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
        ReceiverConfig::new(name, ReceiverKind::Email(config))
    }

    fn http(header: &str) -> HttpConfig {
        let url = "https://alerts.example.com/hook/very-secret".parse().expect("a URL");
        HttpConfig {
            headers: BTreeMap::from([(header.to_owned(), "very secret".into())]),
            bearer_token: Some("very secret".into()),
            ..HttpConfig::new(url, Duration::from_secs(5))
        }
    }

    fn webhook(name: &str, header: &str) -> ReceiverConfig {
        let config = WebhookConfig { http: http(header), signing_key: Some("very secret".into()) };
        ReceiverConfig::new(name, ReceiverKind::Webhook(config))
    }

    fn slack(name: &str) -> ReceiverConfig {
        ReceiverConfig::new(name, ReceiverKind::Slack(SlackConfig { http: http("X-Key") }))
    }

    fn alertmanager(name: &str) -> ReceiverConfig {
        let config = AlertmanagerConfig { http: http("X-Key"), resolve_after: Duration::from_secs(3_600) };
        ReceiverConfig::new(name, ReceiverKind::Alertmanager(config))
    }

    #[test]
    fn configurations_become_sinks_or_name_their_receiver() {
        let runtime = Runtime::new().expect("a runtime");
        let _entered = runtime.enter();
        let configs = vec![email("mail", None), webhook("hook", "X-Key"), slack("chat"), alertmanager("am")];
        let shown = format!("{configs:?}");
        let receivers = connect(configs).expect("all can work");
        let names: Vec<&str> = receivers.iter().map(|receiver| &*receiver.name).collect();
        assert_eq!(names, ["mail", "hook", "chat", "am"]);
        assert!(!format!("{receivers:?} {shown}").contains("secret"));

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
