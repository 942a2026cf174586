//! Receivers of alerts: an address by mail, or something to post to.

mod build;
mod email;
mod http;

use std::time::Duration;

use serde::Deserialize;
pub use sinks::alertmanager::AlertmanagerConfig;
pub use sinks::slack::SlackConfig;
pub use sinks::webhook::WebhookConfig;
use toml::Spanned;

pub(crate) use self::build::build;
use self::build::try_to_build;
pub use self::email::{EmailConfig, SmtpTls};
use self::email::{RawEmail, check_email};
use self::http::{RawAlertmanager, RawSlack, RawWebhook, check_alertmanager, check_slack, check_webhook};
use super::error::ConfigError;
use super::settings::Setting;
use super::settings::duration;
use super::source::{Source, suggest};
use super::values::HumanDuration;

/// One receiver, named by rules.
#[derive(Debug, Clone)]
pub struct ReceiverConfig {
    pub name: String,
    pub kind: ReceiverKind,
    /// Whether it is notified of the end of alerts.
    pub send_resolved: bool,
    /// The receiver that is notified when this one cannot be. Exists, and following it from one to
    /// the next comes to an end.
    pub fallback: Option<String>,
}

impl ReceiverConfig {
    /// A receiver that is notified everything and has no fallback.
    pub fn new(name: impl Into<String>, kind: ReceiverKind) -> Self {
        Self { name: name.into(), kind, send_resolved: true, fallback: None }
    }
}

/// How a receiver is reached.
#[derive(Debug, Clone)]
pub enum ReceiverKind {
    Email(EmailConfig),
    Webhook(WebhookConfig),
    Slack(SlackConfig),
    Alertmanager(AlertmanagerConfig),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawReceiver {
    pub(super) name: Spanned<String>,
    pub(super) fallback: Setting<String>,
    send_resolved: Option<bool>,
    email: Option<Spanned<RawEmail>>,
    webhook: Option<Spanned<RawWebhook>>,
    slack: Option<Spanned<RawSlack>>,
    alertmanager: Option<Spanned<RawAlertmanager>>,
}

/// Checks one `[[receiver]]`, but for its fallback: see [`check_fallbacks`].
pub(super) fn check_receiver(
    source: &Source<'_>,
    receiver: Spanned<RawReceiver>,
) -> Result<ReceiverConfig, ConfigError> {
    let span = receiver.get_ref().name.span();
    let raw = receiver.into_inner();
    let name = raw.name.into_inner();
    let kind = match (raw.email, raw.webhook, raw.slack, raw.alertmanager) {
        (Some(email), None, None, None) => ReceiverKind::Email(check_email(source, email)?),
        (None, Some(webhook), None, None) => ReceiverKind::Webhook(check_webhook(source, webhook)?),
        (None, None, Some(slack), None) => ReceiverKind::Slack(check_slack(source, slack)?),
        (None, None, None, Some(alertmanager)) => {
            ReceiverKind::Alertmanager(check_alertmanager(source, alertmanager)?)
        }
        (None, None, None, None) => {
            let error = source.error(&span, format!("receiver `{name}` has no address"));
            return Err(error.remedy(
                "add [receiver.email], [receiver.webhook], [receiver.slack] or [receiver.alertmanager] below it",
            ));
        }
        _ => {
            let error = source.error(&span, format!("receiver `{name}` has two addresses"));
            return Err(error.remedy("make a second [[receiver]] and name both in the rules"));
        }
    };
    if let Err(error) = try_to_build(&kind) {
        let error = source.error(&span, format!("receiver `{name}` cannot work: {error}"));
        return Err(error.remedy("correct what its section names"));
    }
    let send_resolved = raw.send_resolved.unwrap_or(true);
    Ok(ReceiverConfig { send_resolved, ..ReceiverConfig::new(name, kind) })
}

/// Gives each receiver the fallback that the file names for it. One that cannot be is reported, and
/// its receiver stays without.
///
/// `declared` are the names in the file, of receivers that cannot be used too.
pub(super) fn check_fallbacks(
    source: &Source<'_>,
    fallbacks: Vec<(String, Spanned<String>)>,
    declared: &[String],
    receivers: &mut [ReceiverConfig],
) -> Vec<ConfigError> {
    let mut problems = Vec::new();
    for (name, fallback) in fallbacks {
        let wanted = fallback.get_ref();
        if !declared.contains(wanted) {
            let names: Vec<&str> =
                declared.iter().map(String::as_str).filter(|known| *known != name).collect();
            let error = source.error(&fallback.span(), format!("unknown receiver `{wanted}`"));
            problems.push(match names.is_empty() {
                true => error.remedy("add a [[receiver]] with this name"),
                false => error.remedy(suggest(wanted, &names)),
            });
        } else if leads_to(receivers, wanted, &name) {
            let error = source.error(&fallback.span(), format!("the fallbacks of `{name}` lead back to it"));
            problems.push(error.remedy("leave one of them without a fallback"));
        } else if receivers.iter().any(|receiver| receiver.name == *wanted) {
            let receiver = receivers.iter_mut().find(|receiver| receiver.name == name);
            if let Some(receiver) = receiver {
                receiver.fallback = Some(fallback.into_inner());
            }
        }
    }
    problems
}

/// Whether following the fallbacks from one receiver comes to another; there is no circle among
/// them yet.
fn leads_to(receivers: &[ReceiverConfig], from: &str, to: &str) -> bool {
    let mut at = Some(from);
    while let Some(name) = at {
        if name == to {
            return true;
        }
        at = receivers.iter().find(|receiver| receiver.name == name).and_then(|it| it.fallback.as_deref());
    }
    false
}

fn timeout(
    source: &Source<'_>,
    setting: Setting<HumanDuration>,
    default: Duration,
) -> Result<Duration, ConfigError> {
    duration(source, "timeout", setting, default, Duration::from_secs(1)..=Duration::from_secs(600))
}
