//! `[receiver.email]`: a mail server and whom to write to.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use toml::Spanned;

use super::timeout;
use crate::config::error::ConfigError;
use crate::config::secret::SecretKeys;
use crate::config::settings::Setting;
use crate::config::settings::required;
use crate::config::source::{Source, suggest};
use crate::config::values::{HumanDuration, TextList};

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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEmail {
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

pub(super) fn check_email(source: &Source<'_>, email: Spanned<RawEmail>) -> Result<EmailConfig, ConfigError> {
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
