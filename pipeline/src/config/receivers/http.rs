//! `[receiver.webhook]`, `[receiver.slack]`, `[receiver.alertmanager]`: what is posted to.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sinks::alertmanager::AlertmanagerConfig;
use sinks::slack::SlackConfig;
use sinks::webhook::WebhookConfig;
use sinks::{ClientCertificate, HttpConfig, private_address};
use toml::Spanned;
use url::Url;

use super::timeout;
use crate::config::error::ConfigError;
use crate::config::parsed::{NOT_HTTP, http};
use crate::config::secret::{PropertyValue, SecretKeys};
use crate::config::settings::Setting;
use crate::config::settings::{duration, http_url, required};
use crate::config::source::Source;
use crate::config::values::HumanDuration;

/// Three times the time after which an alert that goes on is notified again, unless a route sets
/// it.
const RESOLVE_AFTER: Duration = Duration::from_secs(12 * 3_600);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWebhook {
    url: Setting<SecretString>,
    url_file: Setting<PathBuf>,
    url_env: Setting<String>,
    #[serde(default)]
    headers: BTreeMap<String, Spanned<PropertyValue>>,
    bearer_token: Setting<SecretString>,
    bearer_token_file: Setting<PathBuf>,
    bearer_token_env: Setting<String>,
    signing_key: Setting<SecretString>,
    signing_key_file: Setting<PathBuf>,
    signing_key_env: Setting<String>,
    ca_file: Option<PathBuf>,
    cert_file: Setting<PathBuf>,
    key_file: Setting<PathBuf>,
    #[serde(default)]
    allow_private: bool,
    timeout: Setting<HumanDuration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSlack {
    url: Setting<SecretString>,
    url_file: Setting<PathBuf>,
    url_env: Setting<String>,
    ca_file: Option<PathBuf>,
    cert_file: Setting<PathBuf>,
    key_file: Setting<PathBuf>,
    #[serde(default)]
    allow_private: bool,
    timeout: Setting<HumanDuration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAlertmanager {
    url: Setting<String>,
    resolve_after: Setting<HumanDuration>,
    #[serde(default)]
    headers: BTreeMap<String, Spanned<PropertyValue>>,
    bearer_token: Setting<SecretString>,
    bearer_token_file: Setting<PathBuf>,
    bearer_token_env: Setting<String>,
    ca_file: Option<PathBuf>,
    cert_file: Setting<PathBuf>,
    key_file: Setting<PathBuf>,
    #[serde(default)]
    allow_private: bool,
    timeout: Setting<HumanDuration>,
}

pub(super) fn check_webhook(
    source: &Source<'_>,
    webhook: Spanned<RawWebhook>,
) -> Result<WebhookConfig, ConfigError> {
    let section = webhook.span();
    let raw = webhook.into_inner();
    let (url, span) = secret_url(
        source,
        &section,
        (raw.url, raw.url_file, raw.url_env),
        ("[receiver.webhook]", "write it like \"https://alerts.example.com/hook\""),
    )?;
    let signing_key = SecretKeys {
        key: "signing_key",
        text: raw.signing_key,
        file: raw.signing_key_file,
        env: raw.signing_key_env,
    };
    let bearer_token = SecretKeys {
        key: "bearer_token",
        text: raw.bearer_token,
        file: raw.bearer_token_file,
        env: raw.bearer_token_env,
    };
    let http = HttpConfig {
        url: allowed(source, &span, url, raw.allow_private)?,
        headers: headers(source, raw.headers)?,
        bearer_token: bearer_token.resolve(source)?,
        timeout: timeout(source, raw.timeout, Duration::from_secs(10))?,
        ca_file: raw.ca_file,
        client_certificate: client_certificate(source, raw.cert_file, raw.key_file)?,
        allow_private: raw.allow_private,
    };
    Ok(WebhookConfig { http, signing_key: signing_key.resolve(source)? })
}

pub(super) fn check_slack(source: &Source<'_>, slack: Spanned<RawSlack>) -> Result<SlackConfig, ConfigError> {
    let section = slack.span();
    let raw = slack.into_inner();
    let (url, span) = secret_url(
        source,
        &section,
        (raw.url, raw.url_file, raw.url_env),
        (
            "[receiver.slack]",
            "copy that of the chat's incoming webhook, like \"https://hooks.slack.com/services/…\"",
        ),
    )?;
    let http = HttpConfig {
        ca_file: raw.ca_file,
        client_certificate: client_certificate(source, raw.cert_file, raw.key_file)?,
        allow_private: raw.allow_private,
        ..HttpConfig::new(
            allowed(source, &span, url, raw.allow_private)?,
            timeout(source, raw.timeout, Duration::from_secs(10))?,
        )
    };
    Ok(SlackConfig { http })
}

pub(super) fn check_alertmanager(
    source: &Source<'_>,
    alertmanager: Spanned<RawAlertmanager>,
) -> Result<AlertmanagerConfig, ConfigError> {
    let section = alertmanager.span();
    let raw = alertmanager.into_inner();
    let url = required(source, &section, "url", "url = \"https://alertmanager.example.com\"", raw.url)?;
    let bearer_token = SecretKeys {
        key: "bearer_token",
        text: raw.bearer_token,
        file: raw.bearer_token_file,
        env: raw.bearer_token_env,
    };
    let http = HttpConfig {
        url: allowed(source, &url.span(), http_url(source, &url)?, raw.allow_private)?,
        headers: headers(source, raw.headers)?,
        bearer_token: bearer_token.resolve(source)?,
        timeout: timeout(source, raw.timeout, Duration::from_secs(10))?,
        ca_file: raw.ca_file,
        client_certificate: client_certificate(source, raw.cert_file, raw.key_file)?,
        allow_private: raw.allow_private,
    };
    let bounds = Duration::from_secs(60)..=Duration::from_secs(30 * 86_400);
    let resolve_after = duration(source, "resolve_after", raw.resolve_after, RESOLVE_AFTER, bounds)?;
    Ok(AlertmanagerConfig { http, resolve_after })
}

/// A URL whose path may be a secret, and where it is named. `of`: the section, and what to write in
/// place of what is none.
fn secret_url(
    source: &Source<'_>,
    section: &Range<usize>,
    (text, file, env): (Setting<SecretString>, Setting<PathBuf>, Setting<String>),
    (of, remedy): (&str, &str),
) -> Result<(Url, Range<usize>), ConfigError> {
    let places =
        [text.as_ref().map(Spanned::span), file.as_ref().map(Spanned::span), env.as_ref().map(Spanned::span)];
    let span = places.into_iter().flatten().next().unwrap_or_else(|| section.clone());
    let keys = SecretKeys { key: "url", text, file, env };
    let Some(url) = keys.resolve(source)? else {
        let error = source.error(section, format!("{of} has no URL"));
        return Err(error.remedy("add url_file = \"path\" or url_env = \"NAME\""));
    };
    // The text is a secret.
    let url = http(url.expose_secret().trim()).ok_or_else(|| source.error(&span, NOT_HTTP).remedy(remedy))?;
    Ok((url, span))
}

/// The URL, unless its host is an address that needs `allow_private`. Names are looked at when they
/// are resolved, before each connection.
fn allowed(
    source: &Source<'_>,
    span: &Range<usize>,
    url: Url,
    allow_private: bool,
) -> Result<Url, ConfigError> {
    if !allow_private && private_address(&url).is_some() {
        let error = source.error(span, "the host is this machine or in a private network");
        return Err(error.remedy("if that is meant, add allow_private = true"));
    }
    Ok(url)
}

fn headers(
    source: &Source<'_>,
    raw: BTreeMap<String, Spanned<PropertyValue>>,
) -> Result<BTreeMap<String, SecretString>, ConfigError> {
    let mut headers = BTreeMap::new();
    for (name, value) in raw {
        let span = value.span();
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if name.is_empty() || !name.chars().all(legal) {
            let error = source.error(&span, format!("`{name}` is not the name of a header"));
            return Err(error.remedy("use letters, digits and hyphens"));
        }
        headers.insert(name, value.into_inner().resolve(source, &span)?);
    }
    Ok(headers)
}

fn client_certificate(
    source: &Source<'_>,
    cert_file: Setting<PathBuf>,
    key_file: Setting<PathBuf>,
) -> Result<Option<ClientCertificate>, ConfigError> {
    match (cert_file, key_file) {
        (Some(cert), Some(key)) => {
            Ok(Some(ClientCertificate { cert_file: cert.into_inner(), key_file: key.into_inner() }))
        }
        (None, None) => Ok(None),
        (Some(cert), None) => {
            Err(source.error(&cert.span(), "`cert_file` has no key").remedy("add key_file = \"path\""))
        }
        (None, Some(key)) => {
            Err(source.error(&key.span(), "`key_file` has no certificate").remedy("add cert_file = \"path\""))
        }
    }
}
