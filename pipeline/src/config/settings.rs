//! One setting at a time: its bounds, its default, and the error that names its place.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use url::Url;

use super::error::ConfigError;
use super::raw::Setting;
use super::source::Source;
use super::values::{ByteSize, HumanDuration};

/// An `http:` or `https:` URL.
pub(super) fn http_url(source: &Source<'_>, text: &Spanned<String>) -> Result<Url, ConfigError> {
    let remedy = "write it with its scheme, like \"http://127.0.0.1:8086\"";
    match Url::parse(text.get_ref()) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        _ => Err(source.error(&text.span(), "not an http or https URL").remedy(remedy)),
    }
}

/// A key that its section cannot do without.
pub(super) fn required(
    source: &Source<'_>,
    section: &Range<usize>,
    key: &str,
    example: &str,
    setting: Setting<String>,
) -> Result<Spanned<String>, ConfigError> {
    match setting {
        Some(value) if value.get_ref().trim().is_empty() => {
            Err(source.error(&value.span(), format!("`{key}` is empty")).remedy(format!("like {example}")))
        }
        Some(value) => Ok(value),
        None => Err(source.error(section, format!("`{key}` is missing")).remedy(format!("add {example}"))),
    }
}

/// A text that is not empty.
pub(super) fn text(
    source: &Source<'_>,
    key: &str,
    setting: Setting<String>,
    default: String,
) -> Result<String, ConfigError> {
    match setting {
        Some(value) if value.get_ref().trim().is_empty() => Err(source
            .error(&value.span(), format!("`{key}` is empty"))
            .remedy("give it a value or remove it")),
        Some(value) => Ok(value.into_inner()),
        None => Ok(default),
    }
}

/// A duration within bounds, both included.
pub(super) fn duration(
    source: &Source<'_>,
    key: &str,
    setting: Setting<HumanDuration>,
    default: Duration,
    bounds: RangeInclusive<Duration>,
) -> Result<Duration, ConfigError> {
    Ok(optional_duration(source, key, setting, bounds)?.unwrap_or(default))
}

/// A duration within bounds, both included, or none.
pub(super) fn optional_duration(
    source: &Source<'_>,
    key: &str,
    setting: Setting<HumanDuration>,
    bounds: RangeInclusive<Duration>,
) -> Result<Option<Duration>, ConfigError> {
    let Some(given) = setting else { return Ok(None) };
    let duration = given.get_ref().0;
    if bounds.contains(&duration) {
        return Ok(Some(duration));
    }
    let shown = |duration: &Duration| humantime::format_duration(*duration).to_string();
    Err(source.error(&given.span(), format!("`{key}` is out of bounds")).remedy(format!(
        "write {} to {}",
        shown(bounds.start()),
        shown(bounds.end())
    )))
}

/// A whole number within bounds, both included; the bounds fit 32 bits.
pub(super) fn count(
    source: &Source<'_>,
    key: &str,
    setting: Setting<u64>,
    default: usize,
    bounds: RangeInclusive<u64>,
) -> Result<usize, ConfigError> {
    let Some(given) = setting else { return Ok(default) };
    match usize::try_from(*given.get_ref()) {
        Ok(count) if bounds.contains(given.get_ref()) => Ok(count),
        _ => Err(source.error(&given.span(), format!("`{key}` is out of bounds")).remedy(format!(
            "write {} to {}",
            bounds.start(),
            bounds.end()
        ))),
    }
}

/// A number of bytes within bounds, both included.
pub(super) fn size(
    source: &Source<'_>,
    key: &str,
    setting: Setting<ByteSize>,
    default: usize,
    bounds: RangeInclusive<u64>,
) -> Result<usize, ConfigError> {
    let Some(given) = setting else { return Ok(default) };
    let bytes = given.get_ref().0;
    match usize::try_from(bytes) {
        Ok(size) if bounds.contains(&bytes) => Ok(size),
        _ => Err(source.error(&given.span(), format!("`{key}` is out of bounds")).remedy(format!(
            "write {} to {}",
            size_text(*bounds.start()),
            size_text(*bounds.end())
        ))),
    }
}

fn size_text(bytes: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}
