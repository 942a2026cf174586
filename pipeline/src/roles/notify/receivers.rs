//! Receivers: from configuration to sinks. Nothing is contacted before the first delivery.

use std::sync::Arc;

use async_trait::async_trait;
use sinks::{Notification, Sink};

use crate::config::{ReceiverConfig, build};

/// A name that rules use, and where it leads.
#[derive(Debug, Clone)]
pub(super) struct Receiver {
    pub(super) name: Arc<str>,
    pub(super) sink: Arc<dyn Sink<Arc<Notification>>>,
    /// The receiver that is notified when this one cannot be.
    pub(super) fallback: Option<Arc<str>>,
}

/// Sinks for all receivers. One that cannot be made any more, as a file of its is gone since the
/// configuration was read, costs itself: what it is to be notified goes to its fallback.
pub(super) fn connect(configs: Vec<ReceiverConfig>) -> Vec<Receiver> {
    let mut receivers = Vec::new();
    for ReceiverConfig { name, kind, fallback, .. } in configs {
        let sink = build(kind).unwrap_or_else(|error| {
            tracing::error!(receiver = name, %error, "a receiver cannot work: nothing is sent to it until the configuration is read again");
            Arc::new(Unusable(error.to_string()))
        });
        receivers.push(Receiver { name: name.into(), sink, fallback: fallback.map(Into::into) });
    }
    receivers
}

/// A receiver that cannot work, and why.
#[derive(Debug)]
struct Unusable(String);

#[async_trait]
impl Sink<Arc<Notification>> for Unusable {
    async fn write(&self, _: Arc<Notification>) -> Result<(), sinks::Error> {
        Err(sinks::Error::Config(self.0.clone()))
    }

    async fn flush(&self) -> Result<(), sinks::Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use sinks::HttpConfig;
    use tokio::runtime::Runtime;

    use super::*;
    use crate::config::{AlertmanagerConfig, EmailConfig, ReceiverKind, SlackConfig, SmtpTls, WebhookConfig};

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
        let receivers = connect(configs);
        let names: Vec<&str> = receivers.iter().map(|receiver| &*receiver.name).collect();
        assert_eq!(names, ["mail", "hook", "chat", "am"]);
        assert!(!format!("{receivers:?} {shown}").contains("secret"));

        // What cannot work leaves the others as they are, and gives the reason when it is to be notified
        // something.
        let configs = vec![email("mail", Some("/no/such.pem")), webhook("hook", "no header"), slack("chat")];
        let receivers = connect(configs);
        let unusable: Vec<bool> =
            receivers.iter().map(|receiver| format!("{receiver:?}").contains("Unusable")).collect();
        assert_eq!(unusable, [true, true, false]);
        let notification = Arc::new(Notification {
            id: "1".to_owned(),
            receiver: String::new(),
            group_key: String::new(),
            group_labels: BTreeMap::new(),
            external_url: None,
            alerts: Vec::new(),
            reason: sinks::Reason::default(),
            notes: Vec::new(),
        });
        for receiver in &receivers[..2] {
            let error =
                runtime.block_on(receiver.sink.write(Arc::clone(&notification))).expect_err("it cannot");
            assert!(!error.retryable() && !error.to_string().contains("secret"), "{error}");
        }
    }
}
