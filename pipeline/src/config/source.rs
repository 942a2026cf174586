//! A TOML text with overrides from the environment, deserialized so that every error finds its way
//! back to a line of the file or to the name of a variable.

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::environment::{Environment, Override, PREFIX};
use super::error::ConfigError;
use super::within::REMEDY;

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

    pub(super) fn environment(&self) -> &Environment {
        self.environment
    }

    /// Deserializes the text with the overrides laid over it.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        self.deserialize(|table| T::deserialize(toml::Deserializer::from(table)))
    }

    /// Deserializes one section; none when it is not there.
    pub(super) fn section<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, ConfigError> {
        self.deserialize(|mut table| match table.get_mut().remove(name) {
            Some(section) => T::deserialize(ValueDeserializer::from(section)).map(Some),
            None => Ok(None),
        })
    }

    /// Deserializes one option of a section, whatever the others are; none when it is not there.
    pub(super) fn option<T: DeserializeOwned>(
        &self,
        section: &str,
        key: &str,
    ) -> Result<Option<T>, ConfigError> {
        self.deserialize(|mut table| match table.get_mut().get_mut(section).map(Spanned::get_mut) {
            Some(DeValue::Table(section)) => match section.remove(key) {
                Some(value) => T::deserialize(ValueDeserializer::from(value)).map(Some),
                None => Ok(None),
            },
            _ => Ok(None),
        })
    }

    /// An error for each section that is not known.
    ///
    /// # Errors
    /// A text that is not TOML.
    pub(super) fn unknown_sections(&self, known: &[String]) -> Result<Vec<ConfigError>, ConfigError> {
        let table = self.as_text()?;
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let unknown = table.get_ref().keys().filter(|key| !known.contains(&key.get_ref().as_ref()));
        Ok(unknown.map(|key| self.unknown_key(&key.span(), key.get_ref(), &known)).collect())
    }

    /// Where the value of an option or a section stands.
    pub(super) fn place(&self, path: &[&str]) -> Option<Range<usize>> {
        let table = self.as_text().ok()?;
        let (first, rest) = path.split_first()?;
        let mut value = table.get_ref().get(*first)?;
        for key in rest {
            let DeValue::Table(inner) = value.get_ref() else { return None };
            value = inner.get(*key)?;
        }
        Some(value.span())
    }

    /// An override is text first; where text does not fit it is read as a number or boolean.
    fn deserialize<T>(
        &self,
        read: impl Fn(Spanned<DeTable<'_>>) -> Result<T, toml::de::Error>,
    ) -> Result<T, ConfigError> {
        let mut as_scalar = vec![false; self.overrides.len()];
        loop {
            let error = match read(self.table(&as_scalar)?) {
                Ok(value) => return Ok(value),
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
        let Ok(table) = self.as_text() else { return false };
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

    /// The table with every override as a text: for keys and places, not for values.
    fn as_text(&self) -> Result<Spanned<DeTable<'_>>, ConfigError> {
        self.table(&vec![false; self.overrides.len()])
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
            if let Some((problem, remedy)) = message.split_once(REMEDY) {
                let problem = match self.key_at(&span).filter(|_| problem.starts_with("is ")) {
                    Some(key) => format!("`{key}` {problem}"),
                    None => problem.to_owned(),
                };
                return self.error(&span, problem).remedy(remedy);
            }
            if let Some(key) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'))
            {
                let example = format!("add {key} = \"{}\"", example(key));
                return self.error(&span, format!("`{key}` is missing")).remedy(example);
            }
            if let Some((problem, remedy)) = message.split_once(": write ") {
                return self.error(&span, problem).remedy(format!("write {remedy}"));
            }
            return self.error(&span, message.replace('\n', ", "));
        };
        self.unknown_key(&span, unknown, &expected)
    }

    fn unknown_key(&self, span: &Range<usize>, unknown: &str, expected: &[&str]) -> ConfigError {
        if let Some(index) = self.override_at(span) {
            return self.unknown_override(&self.overrides[index], unknown, expected);
        }
        let problem = format!("unknown key `{unknown}`");
        self.error(span, problem).remedy(suggest(unknown, expected))
    }

    /// The key whose value stands at a place.
    fn key_at(&self, span: &Range<usize>) -> Option<String> {
        fn within(table: &DeTable<'_>, span: &Range<usize>) -> Option<String> {
            table.iter().find_map(|(key, value)| match value.get_ref() {
                _ if value.span() == *span => Some(key.get_ref().to_string()),
                DeValue::Table(inner) => within(inner, span),
                _ => None,
            })
        }
        within(self.as_text().ok()?.get_ref(), span)
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

/// The keys that a section may have.
pub(super) fn known_keys<T: DeserializeOwned>() -> Vec<String> {
    // serde's message about a key that no section has.
    let error = toml::from_str::<T>("\"\" = 0").err();
    let message = error.as_ref().map_or("", toml::de::Error::message);
    let known = unknown_name(message).map(|(_, known)| known).unwrap_or_default();
    known.into_iter().map(str::to_owned).collect()
}

/// What a key that must not be left out may look like.
fn example(key: &str) -> &'static str {
    match key {
        "url" => "http://127.0.0.1:8086",
        _ => "tidemark",
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
        section if section.starts_with("struct ") => "a section of options",
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
