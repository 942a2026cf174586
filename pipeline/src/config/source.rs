//! A TOML text with overrides from the environment, deserialized so that every error finds its way
//! back to a line of the file or to the name of a variable.

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::environment::{Environment, Override, PREFIX};
use super::error::ConfigError;

/// One configuration file, and what overrides it.
pub(super) struct Source<'a> {
    path: PathBuf,
    text: String,
    environment: &'a Environment,
    overrides: Vec<Override>,
}

impl<'a> Source<'a> {
    pub(super) fn new(path: &Path, text: String, environment: &'a Environment) -> Self {
        // Some editors begin a file so.
        let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
        Self { path: path.to_owned(), text, environment, overrides: Vec::new() }
    }

    /// Lets `TIDEMARK_<SECTION>__<KEY>` of the environment take precedence over the text.
    pub(super) fn with_overrides(mut self) -> Self {
        self.overrides = self.environment.overrides();
        self
    }

    /// The same with these sections alone, for their values: places are lost.
    pub(super) fn only(&self, sections: &[&str]) -> Option<Self> {
        let wanted = |section: &str| sections.contains(&section);
        let mut table: toml::Table = self.text.parse().ok()?;
        table.retain(|section, _| wanted(section));
        let text = toml::to_string(&table).ok()?;
        let mut overrides = self.overrides.clone();
        overrides.retain(|entry| entry.path.first().is_some_and(|section| wanted(section)));
        Some(Self { path: self.path.clone(), text, environment: self.environment, overrides })
    }

    pub(super) fn environment(&self) -> &Environment {
        self.environment
    }

    /// Deserializes the text with the overrides laid over it.
    ///
    /// An override is text first; where text does not fit it is read as a number or boolean.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let mut as_scalar = vec![false; self.overrides.len()];
        loop {
            let table = self.table(&as_scalar)?;
            let error = match T::deserialize(toml::Deserializer::from(table)) {
                Ok(raw) => return Ok(raw),
                Err(error) => error,
            };
            let index = error.span().and_then(|span| self.override_at(&span));
            match index {
                Some(index) if !as_scalar[index] && scalar(&self.overrides[index].value).is_some() => {
                    as_scalar[index] = true;
                }
                _ => return Err(self.explain(&error)),
            }
        }
    }

    /// Whether every override names an option, whatever that makes of its value.
    pub(super) fn knows_overrides<T: DeserializeOwned>(&self) -> bool {
        let Ok(table) = self.table(&vec![false; self.overrides.len()]) else { return false };
        match T::deserialize(toml::Deserializer::from(table)) {
            Ok(_) => true,
            // What is made of options is none itself.
            Err(error) => {
                let message = error.message();
                unknown_name(message).is_none()
                    && !message.contains("expected struct")
                    && !message.contains("expected a map")
            }
        }
    }

    /// An error at the place of a value that was read from here.
    pub(super) fn error(&self, span: &Range<usize>, problem: impl Into<String>) -> ConfigError {
        match self.override_at(span) {
            Some(index) => ConfigError::variable(&self.overrides[index].variable, problem),
            None => ConfigError::line(&self.path, &self.text, span.start, problem),
        }
    }

    /// The text of the file that a value was read from; empty when it came from the environment.
    pub(super) fn excerpt(&self, span: &Range<usize>) -> &str {
        self.text.get(span.clone()).unwrap_or_default()
    }

    fn table(&self, as_scalar: &[bool]) -> Result<Spanned<DeTable<'_>>, ConfigError> {
        let mut table = DeTable::parse(&self.text).map_err(|error| self.explain(&error))?;
        for (index, entry) in self.overrides.iter().enumerate() {
            // Places beyond the end of the text stand for overrides.
            let start = self.text.len() + 1 + index;
            let span = start..start + 1;
            let value = match scalar(&entry.value) {
                Some(value) if as_scalar[index] => value,
                _ => DeValue::String(Cow::Borrowed(&entry.value)),
            };
            insert(table.get_mut(), &entry.path, Spanned::new(span.clone(), value), &span);
        }
        Ok(table)
    }

    fn override_at(&self, span: &Range<usize>) -> Option<usize> {
        let index = span.start.checked_sub(self.text.len() + 1)?;
        (index < self.overrides.len()).then_some(index)
    }

    /// Turns an error of the TOML reader into ours: finds the nearest known key for an unknown one.
    fn explain(&self, error: &toml::de::Error) -> ConfigError {
        let span = error.span().unwrap_or(0..0);
        let message = error.message().trim_end();
        let Some((unknown, expected)) = unknown_name(message) else {
            if let Some((found, expected)) = wrong_type(message) {
                return self
                    .error(&span, format!("the {found} cannot stand here"))
                    .remedy(format!("write {expected}"));
            }
            if let Some((problem, remedy)) = message.split_once(": write ") {
                return self.error(&span, problem).remedy(format!("write {remedy}"));
            }
            return self.error(&span, message.replace('\n', ", ").replace("missing field", "missing key"));
        };
        if let Some(index) = self.override_at(&span) {
            return self.unknown_override(&self.overrides[index], unknown, &expected);
        }
        let problem = format!("unknown key `{unknown}`");
        self.error(&span, problem).remedy(suggest(unknown, &expected))
    }

    fn unknown_override(&self, entry: &Override, unknown: &str, expected: &[&str]) -> ConfigError {
        let error = ConfigError::variable(&entry.variable, "sets no known key");
        let Some(near) = nearest(unknown, expected) else {
            return error.remedy(format!("known keys here: {}", expected.join(", ")));
        };
        let mut path = entry.path.clone();
        for key in &mut path {
            if key == unknown {
                *key = near.to_owned();
            }
        }
        error.remedy(format!("did you mean {PREFIX}{}?", path.join("__").to_uppercase()))
    }
}

/// "did you mean …?", or the list of what is known.
pub(crate) fn suggest(given: &str, known: &[&str]) -> String {
    match nearest(given, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "nothing may stand here".to_owned(),
        None => format!("known: {}", known.join(", ")),
    }
}

/// The known name closest to the given one, when it is close enough to be a slip.
pub(super) fn nearest<'k>(given: &str, known: &[&'k str]) -> Option<&'k str> {
    let mut best: Option<(&'k str, f64)> = None;
    for name in known {
        let similarity = strsim::jaro_winkler(given, name);
        if similarity > best.map_or(0.75, |(_, best)| best) {
            best = Some((name, similarity));
        }
    }
    best.map(|(name, _)| name)
}

fn insert<'t>(table: &mut DeTable<'t>, path: &'t [String], value: Spanned<DeValue<'t>>, span: &Range<usize>) {
    let [key, rest @ ..] = path else { return };
    if rest.is_empty() {
        // Removed first, because the map would keep the old key and with it the old place.
        table.remove(key.as_str());
        table.insert(Spanned::new(span.clone(), Cow::Borrowed(key)), value);
        return;
    }
    if !table.get(key.as_str()).is_some_and(|child| child.get_ref().is_table()) {
        table.remove(key.as_str());
        let empty = DeValue::Table(DeTable::new());
        table.insert(Spanned::new(span.clone(), Cow::Borrowed(key)), Spanned::new(span.clone(), empty));
    }
    if let Some(DeValue::Table(child)) = table.get_mut(key.as_str()).map(Spanned::get_mut) {
        insert(child, rest, value, span);
    }
}

/// The text as a TOML number or boolean.
fn scalar(text: &str) -> Option<DeValue<'_>> {
    let value = DeValue::parse(text).ok()?.into_inner();
    (value.is_integer() || value.is_float() || value.is_bool()).then_some(value)
}

/// The kind of what was found, and what was expected, of serde's message about a type.
fn wrong_type(message: &str) -> Option<(String, String)> {
    let (found, expected) = message.strip_prefix("invalid type: ")?.split_once(", expected ")?;
    let expected = match expected {
        "a boolean" => "true or false",
        "a string" => "a text in quotes",
        "u64" | "u32" | "u16" => "a whole number",
        other => other,
    };
    // The kind alone: a value that stands in the wrong place may be a secret.
    let kind = found.split_once([' ', '`', '"']).map_or(found, |(kind, _)| kind);
    let kind = match kind {
        "floating" => "number",
        "integer" => "whole number",
        "string" => "text",
        "sequence" => "list",
        "map" => "table",
        other => other,
    };
    Some((kind.to_owned(), expected.to_owned()))
}

/// The name and the expected ones of serde's message about an unknown field or variant.
fn unknown_name(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown field ")?;
    // Every other piece between backticks is a name: the unknown one, then the known.
    let mut names = rest.split('`').skip(1).step_by(2);
    let unknown = names.next()?;
    Some((unknown, names.collect()))
}
