//! Secrets: written in the file, or better, kept in a file of their own or in an environment
//! variable.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use toml::Spanned;

use super::error::ConfigError;
use super::source::Source;

/// A value of a passthrough map: text, number, boolean, `{ file = "path" }` or `{ env = "NAME" }`.
#[derive(Debug, Clone)]
pub(super) enum PropertyValue {
    Text(SecretString),
    From(Elsewhere),
}

/// Where a secret is kept.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Elsewhere {
    File(PathBuf),
    Env(String),
}

impl PropertyValue {
    pub(super) fn resolve(
        self,
        source: &Source<'_>,
        span: &Range<usize>,
    ) -> Result<SecretString, ConfigError> {
        match self {
            Self::Text(text) => Ok(text),
            Self::From(Elsewhere::File(path)) => from_file(source, span, &path),
            Self::From(Elsewhere::Env(name)) => from_environment(source, span, &name),
        }
    }
}

impl<'de> Deserialize<'de> for PropertyValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PropertyVisitor;
        impl<'de> Visitor<'de> for PropertyVisitor {
            type Value = PropertyValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, a number, a boolean, { file = \"path\" } or { env = \"NAME\" }")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<PropertyValue, E> {
                Ok(PropertyValue::Text(text.into()))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<PropertyValue, E> {
                Ok(PropertyValue::Text(value.to_string().into()))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<PropertyValue, E> {
                Ok(PropertyValue::Text(value.to_string().into()))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<PropertyValue, E> {
                Ok(PropertyValue::Text(value.to_string().into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PropertyValue, A::Error> {
                let elsewhere = Elsewhere::deserialize(MapAccessDeserializer::new(map));
                elsewhere.map(PropertyValue::From).map_err(|_| {
                    A::Error::custom("a secret kept elsewhere is { file = \"path\" } or { env = \"NAME\" }")
                })
            }
        }
        deserializer.deserialize_any(PropertyVisitor)
    }
}

/// The three keys of a secret: for example `password`, `password_file`, `password_env`. At most one
/// may be set.
pub(super) struct SecretKeys {
    pub(super) key: &'static str,
    pub(super) text: Option<Spanned<SecretString>>,
    pub(super) file: Option<Spanned<PathBuf>>,
    pub(super) env: Option<Spanned<String>>,
}

impl SecretKeys {
    /// The secret, or `None` when none of its keys is set.
    pub(super) fn resolve(self, source: &Source<'_>) -> Result<Option<SecretString>, ConfigError> {
        let key = self.key;
        let mut found: Vec<(Range<usize>, Result<SecretString, ConfigError>)> = Vec::new();
        if let Some(text) = self.text {
            found.push((text.span(), Ok(text.into_inner())));
        }
        if let Some(path) = self.file {
            found.push((path.span(), from_file(source, &path.span(), path.get_ref())));
        }
        if let Some(name) = self.env {
            found.push((name.span(), from_environment(source, &name.span(), name.get_ref())));
        }
        if let [_, (second, _), ..] = found.as_slice() {
            let problem = format!("`{key}` is set twice");
            let remedy = format!("keep one of `{key}_file`, `{key}_env`, `{key}`");
            return Err(source.error(second, problem).remedy(remedy));
        }
        match found.pop() {
            Some((_, secret)) => secret.map(Some),
            None => Ok(None),
        }
    }
}

fn from_file(source: &Source<'_>, span: &Range<usize>, path: &Path) -> Result<SecretString, ConfigError> {
    if let Some(placeholder) = source.environment().placeholder() {
        return Ok(placeholder.into());
    }
    // The place is enough, here and below: a secret may have been written in place of its file's or
    // variable's name.
    let text = std::fs::read_to_string(path).map_err(|error| {
        source.error(span, format!("cannot read the file of the secret: {error}")).remedy(
            "the path is relative to the working directory, and this user must be able to read the file",
        )
    })?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(source.error(span, "the file of the secret is empty"));
    }
    Ok(secret.into())
}

fn from_environment(
    source: &Source<'_>,
    span: &Range<usize>,
    name: &str,
) -> Result<SecretString, ConfigError> {
    if let Some(placeholder) = source.environment().placeholder() {
        return Ok(placeholder.into());
    }
    match source.environment().get(name) {
        Some(value) if !value.is_empty() => Ok(value.into()),
        _ => Err(source
            .error(span, "the environment variable of the secret is not set")
            .remedy("export it before the program starts")),
    }
}
