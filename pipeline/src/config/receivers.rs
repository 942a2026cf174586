//! Receivers of alerts: an address by mail, or a webhook.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use toml::Spanned;
use url::Url;

use super::error::ConfigError;
use super::raw::Setting;
use super::secret::{PropertyValue, SecretKeys};
use super::settings::{duration, http_url, required};
use super::source::{Source, suggest};
use super::values::{HumanDuration, TextList};

/// One receiver, named by rules.
#[derive(Debug, Clone)]
pub struct ReceiverConfig {
    pub name: String,
    pub kind: ReceiverKind,
}

/// How a receiver is reached.
#[derive(Debug, Clone)]
pub enum ReceiverKind {
    Email(EmailConfig),
    Webhook(WebhookConfig),
}

/// A mail server and the addresses to write to.
#[derive(Debug, Clone)]
pub struct EmailConfig {
    pub host: String,
    pub port: u16,
    pub tls: SmtpTls,
    /// User name and password; `None`: no log-in.
    pub credentials: Option<(String, SecretString)>,
    /// An address, with a name or without.
    pub from: String,
    /// At least one address.
    pub to: Vec<String>,
    /// PEM certificates of authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Time allowed for one delivery.
    pub timeout: Duration,
}

/// How the connection to a mail server is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpTls {
    /// Plain at first, then TLS; never goes on without.
    StartTls,
    /// TLS from the first byte.
    Implicit,
    /// In the clear.
    None,
}

/// An HTTP address that takes a POST for every transition.
#[derive(Clone)]
pub struct WebhookConfig {
    pub url: Url,
    /// Added to every request.
    pub headers: BTreeMap<String, SecretString>,
    pub bearer_token: Option<SecretString>,
    /// Signs every request.
    pub signing_key: Option<SecretString>,
    /// Time allowed for one request.
    pub timeout: Duration,
}

// Not derived: the path of a webhook's URL is often its password.
impl fmt::Debug for WebhookConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookConfig")
            .field("host", &self.url.host_str())
            .field("headers", &self.headers)
            .field("bearer_token", &self.bearer_token)
            .field("signing_key", &self.signing_key)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawReceiver {
    pub(super) name: Spanned<String>,
    email: Option<Spanned<RawEmail>>,
    webhook: Option<Spanned<RawWebhook>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEmail {
    host: Setting<String>,
    port: Setting<u16>,
    tls: Setting<String>,
    username: Setting<String>,
    password: Setting<SecretString>,
    password_file: Setting<PathBuf>,
    password_env: Setting<String>,
    from: Setting<String>,
    to: Setting<TextList>,
    ca_file: Option<PathBuf>,
    timeout: Setting<HumanDuration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWebhook {
    url: Setting<String>,
    #[serde(default)]
    headers: BTreeMap<String, Spanned<PropertyValue>>,
    bearer_token: Setting<SecretString>,
    bearer_token_file: Setting<PathBuf>,
    bearer_token_env: Setting<String>,
    signing_key: Setting<SecretString>,
    signing_key_file: Setting<PathBuf>,
    signing_key_env: Setting<String>,
    timeout: Setting<HumanDuration>,
}

/// Checks one `[[receiver]]`.
pub(super) fn check_receiver(
    source: &Source<'_>,
    receiver: Spanned<RawReceiver>,
) -> Result<ReceiverConfig, ConfigError> {
    let span = receiver.get_ref().name.span();
    let raw = receiver.into_inner();
    let name = raw.name.into_inner();
    let kind = match (raw.email, raw.webhook) {
        (Some(email), None) => ReceiverKind::Email(check_email(source, email)?),
        (None, Some(webhook)) => ReceiverKind::Webhook(check_webhook(source, webhook)?),
        (None, None) => {
            let error = source.error(&span, format!("receiver `{name}` has no address"));
            return Err(error.remedy("add [receiver.email] or [receiver.webhook] below it"));
        }
        (Some(_), Some(_)) => {
            let error = source.error(&span, format!("receiver `{name}` has two addresses"));
            return Err(error.remedy("make a second [[receiver]] and name both in the rules"));
        }
    };
    Ok(ReceiverConfig { name, kind })
}

fn check_email(source: &Source<'_>, email: Spanned<RawEmail>) -> Result<EmailConfig, ConfigError> {
    let section = email.span();
    let raw = email.into_inner();
    let host = required(source, &section, "host", "host = \"smtp.example.com\"", raw.host)?;
    let from = required(source, &section, "from", "from = \"Tidemark <tidemark@example.com>\"", raw.from)?;
    let to = match raw.to {
        Some(to) if !to.get_ref().0.is_empty() => to,
        _ => {
            let error = source.error(&section, "the receiver has nobody to write to");
            return Err(error.remedy("add to = [\"oncall@example.com\"]"));
        }
    };
    check_address(source, &from.span(), from.get_ref())?;
    for address in &to.get_ref().0 {
        check_address(source, &to.span(), address)?;
    }
    let tls = check_tls(source, raw.tls)?;
    let default_port = match tls {
        SmtpTls::StartTls => 587,
        SmtpTls::Implicit => 465,
        SmtpTls::None => 25,
    };
    let keys =
        SecretKeys { key: "password", text: raw.password, file: raw.password_file, env: raw.password_env };
    let credentials = match (raw.username, keys.resolve(source)?) {
        (Some(username), Some(password)) => Some((username.into_inner(), password)),
        (None, None) => None,
        (Some(username), None) => {
            let error = source.error(&username.span(), "`username` has no password");
            return Err(error.remedy("add password_file = \"path\" or password_env = \"NAME\""));
        }
        (None, Some(_)) => {
            let error = source.error(&section, "the password has no `username`");
            return Err(error.remedy("add username = \"…\""));
        }
    };
    let local = matches!(host.get_ref().as_str(), "localhost" | "127.0.0.1" | "::1");
    if credentials.is_some() && tls == SmtpTls::None && !local {
        let error = source.error(&host.span(), "the password would cross the network in the clear");
        return Err(error.remedy("write tls = \"starttls\" or tls = \"implicit\""));
    }
    Ok(EmailConfig {
        host: host.into_inner(),
        port: raw.port.map_or(default_port, Spanned::into_inner),
        tls,
        credentials,
        from: from.into_inner(),
        to: to.into_inner().0,
        ca_file: raw.ca_file,
        timeout: timeout(source, raw.timeout, Duration::from_secs(30))?,
    })
}

fn check_tls(source: &Source<'_>, raw: Setting<String>) -> Result<SmtpTls, ConfigError> {
    let Some(tls) = raw else { return Ok(SmtpTls::StartTls) };
    match tls.get_ref().as_str() {
        "starttls" => Ok(SmtpTls::StartTls),
        "implicit" => Ok(SmtpTls::Implicit),
        "none" => Ok(SmtpTls::None),
        other => Err(source
            .error(&tls.span(), format!("unknown value `{other}` of `tls`"))
            .remedy(suggest(other, &["starttls", "implicit", "none"]))),
    }
}

/// Catches slips; the mail server has the last word.
fn check_address(source: &Source<'_>, span: &Range<usize>, address: &str) -> Result<(), ConfigError> {
    let bare = match (address.rfind('<'), address.strip_suffix('>')) {
        (Some(start), Some(rest)) => &rest[start + 1..],
        _ => address,
    };
    let valid = match bare.rsplit_once('@') {
        Some((user, domain)) => {
            !user.is_empty()
                && !domain.is_empty()
                && !bare.contains(|c: char| c.is_whitespace() || c.is_control())
        }
        None => false,
    };
    if valid {
        return Ok(());
    }
    let error = source.error(span, format!("`{address}` is not a mail address"));
    Err(error.remedy("write \"user@example.com\" or \"Name <user@example.com>\""))
}

fn check_webhook(source: &Source<'_>, webhook: Spanned<RawWebhook>) -> Result<WebhookConfig, ConfigError> {
    let section = webhook.span();
    let raw = webhook.into_inner();
    let url = required(source, &section, "url", "url = \"https://alerts.example.com/hook\"", raw.url)?;
    let mut headers = BTreeMap::new();
    for (name, value) in raw.headers {
        let span = value.span();
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if name.is_empty() || !name.chars().all(legal) {
            let error = source.error(&span, format!("`{name}` is not the name of a header"));
            return Err(error.remedy("use letters, digits and hyphens"));
        }
        headers.insert(name, value.into_inner().resolve(source, &span)?);
    }
    let bearer_token = SecretKeys {
        key: "bearer_token",
        text: raw.bearer_token,
        file: raw.bearer_token_file,
        env: raw.bearer_token_env,
    };
    let signing_key = SecretKeys {
        key: "signing_key",
        text: raw.signing_key,
        file: raw.signing_key_file,
        env: raw.signing_key_env,
    };
    Ok(WebhookConfig {
        url: http_url(source, &url)?,
        headers,
        bearer_token: bearer_token.resolve(source)?,
        signing_key: signing_key.resolve(source)?,
        timeout: timeout(source, raw.timeout, Duration::from_secs(10))?,
    })
}

fn timeout(
    source: &Source<'_>,
    setting: Setting<HumanDuration>,
    default: Duration,
) -> Result<Duration, ConfigError> {
    duration(source, "timeout", setting, default, Duration::from_secs(1)..=Duration::from_secs(600))
}
