//! One setting of `alerts.toml` at a time: its bounds, its default, and the error that names its
//! place.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use url::Url;

use super::error::ConfigError;
use super::parsed::{HTTP_LIKE, NOT_HTTP, http};
use super::source::Source;
use super::values::HumanDuration;
use super::within::{OUT_OF_BOUNDS, durations};

/// A key that may be left out, and where it stands if it is not.
pub(super) type Setting<T> = Option<Spanned<T>>;

/// An `http:` or `https:` URL.
pub(super) fn http_url(source: &Source<'_>, text: &Spanned<String>) -> Result<Url, ConfigError> {
    http(text.get_ref()).ok_or_else(|| source.error(&text.span(), NOT_HTTP).remedy(HTTP_LIKE))
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
    let Some(given) = setting else { return Ok(default) };
    let duration = given.get_ref().0;
    if bounds.contains(&duration) {
        return Ok(duration);
    }
    let remedy = durations(*bounds.start(), *bounds.end());
    Err(source.error(&given.span(), format!("`{key}` {OUT_OF_BOUNDS}")).remedy(remedy))
}
