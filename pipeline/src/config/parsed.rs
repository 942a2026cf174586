//! Values of options that are read from a text, for `#[serde(deserialize_with = "…")]`: topics,
//! formats, addresses, URLs.

use std::net::SocketAddr;
use std::path::Path;

use points::decode::Format;
use serde::de::{Deserialize, Deserializer, Error};
use url::Url;

use super::source::suggest;
use super::values::directory_url;
use super::within::{refused, texts};

/// At least one broker.
pub(super) fn brokers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let brokers = texts(deserializer)?;
    if brokers.iter().all(|broker| broker.trim().is_empty()) {
        return Err(refused("is empty", "name at least one broker, like [\"127.0.0.1:9092\"]"));
    }
    Ok(brokers)
}

/// The name of a topic that Kafka would accept.
pub(super) fn topic<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    legal_topic(&name)?;
    Ok(name)
}

/// At least one topic.
pub(super) fn topics<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let names = texts(deserializer)?;
    if names.is_empty() {
        return Err(refused("is empty", "name at least one topic, like [\"points\"]"));
    }
    names.iter().try_for_each(|name| legal_topic(name))?;
    Ok(names)
}

fn legal_topic<E: Error>(name: &str) -> Result<(), E> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > 249 || !name.chars().all(legal) || matches!(name, "." | "..") {
        let problem = format!("`{name}` is not the name of a topic");
        return Err(refused(problem, "use up to 249 letters, digits, dots, underscores and hyphens"));
    }
    Ok(())
}

/// How messages are read.
pub(super) fn format<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Format, D::Error> {
    let name = String::deserialize(deserializer)?;
    match name.as_str() {
        "auto" => Ok(Format::Auto),
        "json" => Ok(Format::Json),
        "line-protocol" => Ok(Format::LineProtocol),
        other => {
            let remedy = suggest(other, &["auto", "json", "line-protocol"]);
            Err(refused(format!("unknown format `{other}`"), remedy))
        }
    }
}

/// A directory, or the URL of one in object storage; ends in a slash.
pub(super) fn storage_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    let text = String::deserialize(deserializer)?;
    storage(&text).map_err(|problem| {
        let problem = format!("`{text}` {problem}");
        refused(problem, "write a directory, or a URL like \"s3://bucket/prefix\"")
    })
}

fn storage(text: &str) -> Result<Url, String> {
    if text.trim().is_empty() {
        return Err("is empty".to_owned());
    }
    if !text.contains("://") {
        return Ok(directory_url(Path::new(text)));
    }
    let mut url = Url::parse(text).map_err(|error| format!("is not a URL ({error})"))?;
    let known = ["file", "s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss"];
    if !known.contains(&url.scheme()) {
        return Err(format!("has a scheme that is not one of {}", known.join(", ")));
    }
    end_in_slash(&mut url);
    Ok(url)
}

/// An http or https URL without a user.
pub(super) fn influx_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    let text = String::deserialize(deserializer)?;
    let Some(url) = http(&text) else { return Err(refused(NOT_HTTP, HTTP_LIKE)) };
    if has_user(&url) {
        let remedy = "write it without them: the token is all that InfluxDB asks for";
        return Err(refused("the URL holds a user name or password", remedy));
    }
    Ok(url)
}

/// An http or https URL that paths can be appended to.
pub(super) fn external_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let remedy = "write what people open, like \"https://tidemark.example.com/\"";
    let Some(mut url) = http(&text) else { return Err(refused(NOT_HTTP, remedy)) };
    if has_user(&url) || url.query().or(url.fragment()).is_some() {
        return Err(refused("a link cannot start with a user, a query or a fragment", remedy));
    }
    end_in_slash(&mut url);
    Ok(Some(url))
}

fn has_user(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

fn end_in_slash(url: &mut Url) {
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
}

pub(super) const NOT_HTTP: &str = "not an http or https URL";
pub(super) const HTTP_LIKE: &str = "write it with its scheme, like \"http://127.0.0.1:8086\"";

/// An `http:` or `https:` URL.
pub(super) fn http(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
}

/// An address to listen on.
pub(super) fn listen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        let remedy = "write IP address and port, like \"127.0.0.1:7878\" or \"[::1]:7878\"";
        refused(format!("`{text}` is not an address to listen on"), remedy)
    })
}

/// Names as requests give them, in lower case. Not addresses, which are always allowed, nor
/// patterns.
pub(super) fn hosts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let names = texts(deserializer)?;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if let Some(name) = names.iter().find(|name| name.is_empty() || !name.chars().all(legal)) {
        let problem = format!("`{name}` is not the name of a host");
        return Err(refused(problem, "write it without scheme and port, like \"alerts.example.com\""));
    }
    Ok(names.iter().map(|name| name.to_lowercase()).collect())
}
