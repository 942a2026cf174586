//! `config/alerts.toml`: alert rules, and the receivers they go to.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::environment::Environment;
use super::error::ConfigError;
use super::raw::Setting;
use super::receivers::{RawReceiver, ReceiverConfig, check_fallbacks, check_receiver};
use super::settings::{duration, text};
use super::source::{Source, suggest};
use super::values::HumanDuration;

/// Everything `config/alerts.toml` decides, checked.
#[derive(Debug, Clone, Default)]
pub struct AlertsConfig {
    /// Unique by name, in the order of the file.
    pub rules: Vec<RuleConfig>,
    /// Unique by name, in the order of the file.
    pub receivers: Vec<ReceiverConfig>,
}

/// One threshold over the rows of one rollup.
#[derive(Debug, Clone)]
pub struct RuleConfig {
    pub name: String,
    /// The rollup whose rows are looked at, `cpu_by_host`.
    pub rollup: Located,
    /// The tier of the rollup, `1h`; `None`: its finest.
    pub tier: Option<Located>,
    /// SQL over the columns of one row; the alert is on while it is true.
    pub condition: Located,
    /// SQL that ends a firing alert; `None`: as soon as `condition` is no longer true.
    pub recovery: Option<Located>,
    /// Event time for which the condition must hold before the alert fires (`for` in the file).
    pub hold_for: Duration,
    pub severity: String,
    /// Sent along with the group columns of the row.
    pub labels: BTreeMap<String, String>,
    /// A minijinja template of one line.
    pub summary: Located,
    /// A minijinja template.
    pub description: Located,
    /// Names of receivers, each known and named once.
    pub receivers: Vec<String>,
}

impl RuleConfig {
    /// The text of a key, for an error of a later check; the condition's when that key has none in the file.
    pub fn located(&self, key: &str) -> &Located {
        match (key, &self.recovery) {
            ("rollup", _) => &self.rollup,
            ("recovery", Some(recovery)) => recovery,
            ("summary", _) => &self.summary,
            ("description", _) => &self.description,
            _ => &self.condition,
        }
    }
}

/// A text and where it stands, so that whoever compiles it later can point at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    pub text: String,
    place: ConfigError,
    /// The text as it is in the file, with its quotes and escapes.
    written: String,
}

impl Located {
    /// An error at the place of this text.
    pub fn error(&self, problem: impl Into<String>, remedy: impl Into<String>) -> ConfigError {
        self.place.clone().problem(problem).remedy(remedy)
    }

    /// An error at the first `word` of this text, or at its start when that does not stand in it as a word.
    pub fn error_at(&self, word: &str, problem: impl Into<String>, remedy: impl Into<String>) -> ConfigError {
        let passed = &self.written[..find_word(&self.written, word).unwrap_or(0)];
        self.place.clone().moved(passed).problem(problem).remedy(remedy)
    }

    /// An error at a line and column of this text, counted from 1, as a parser of it counts them. Right as long as the
    /// text starts in the line of its quotes and has no escapes before the place; else at the start.
    pub fn error_in(
        &self,
        line: usize,
        column: usize,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> ConfigError {
        let quoted = self.written.strip_prefix('"').filter(|rest| line == 1 && !rest.starts_with('"'));
        let passed = match quoted.and_then(|rest| rest.char_indices().nth(column.saturating_sub(1))) {
            Some((at, _)) => &self.written[..=at],
            None => "",
        };
        self.place.clone().moved(passed).problem(problem).remedy(remedy)
    }

    fn new(source: &Source<'_>, text: Spanned<String>) -> Self {
        let place = source.error(&text.span(), "");
        let written = source.excerpt(&text.span()).to_owned();
        Self { text: text.into_inner(), place, written }
    }
}

/// Where `word` stands in `text` and is not a part of a longer word.
fn find_word(text: &str, word: &str) -> Option<usize> {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    let bounded = |at: &usize| {
        let before = text[..*at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(in_word) && !after.is_some_and(in_word)
    };
    match word.chars().all(in_word) {
        true => text.match_indices(word).map(|(at, _)| at).find(bounded),
        false => None,
    }
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAlerts {
    #[serde(default)]
    rule: Vec<Spanned<RawRule>>,
    #[serde(default)]
    receiver: Vec<Spanned<RawReceiver>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    name: Spanned<String>,
    rollup: Spanned<String>,
    tier: Setting<String>,
    condition: Spanned<String>,
    recovery: Setting<String>,
    #[serde(rename = "for")]
    hold_for: Setting<HumanDuration>,
    severity: Setting<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    summary: Setting<String>,
    description: Setting<String>,
    #[serde(default)]
    receivers: Vec<Spanned<String>>,
}

impl AlertsConfig {
    /// Reads and checks the file at `path`; secrets may come from `environment`.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place and what to write instead. Conditions and templates are not
    /// compiled here: see [`Located::error`].
    pub fn load(path: &Path, environment: &Environment) -> Result<Self, ConfigError> {
        let (config, problems) = Self::load_all(path, environment);
        first_problem(config, problems)
    }

    /// The rules and receivers that can be used, and everything that is wrong with the others: one bad rule or
    /// receiver does not stop its neighbours. A rule loses the receivers that are left out.
    pub fn load_all(path: &Path, environment: &Environment) -> (Self, Vec<ConfigError>) {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse_all(text, path, environment),
            Err(error) => (Self::default(), vec![missing_rules(path, &error)]),
        }
    }

    #[cfg(test)]
    pub(super) fn parse(text: String, path: &Path, environment: &Environment) -> Result<Self, ConfigError> {
        let (config, problems) = Self::parse_all(text, path, environment);
        first_problem(config, problems)
    }

    fn parse_all(text: String, path: &Path, environment: &Environment) -> (Self, Vec<ConfigError>) {
        let source = Source::new(path, text, environment);
        let raw: RawAlerts = match source.read() {
            Ok(raw) => raw,
            Err(error) => return (Self::default(), vec![error]),
        };
        let (mut config, mut problems) = (Self::default(), Vec::new());
        let mut declared: Vec<String> = Vec::new();
        let mut fallbacks: Vec<(String, Spanned<String>)> = Vec::new();
        for receiver in raw.receiver {
            let name = receiver.get_ref().name.clone();
            let fallback = receiver.get_ref().fallback.clone();
            let checked = check_name(&source, "receiver", &name, &declared)
                .and_then(|()| check_receiver(&source, receiver));
            declared.push(name.into_inner());
            match checked {
                Ok(receiver) => {
                    fallbacks.extend(fallback.map(|fallback| (receiver.name.clone(), fallback)));
                    config.receivers.push(receiver);
                }
                Err(error) => problems.push(error),
            }
        }
        problems.extend(check_fallbacks(&source, fallbacks, &declared, &mut config.receivers));
        let mut names: Vec<String> = Vec::new();
        for rule in raw.rule {
            let name = rule.get_ref().name.clone();
            let checked = check_name(&source, "rule", &name, &names)
                .and_then(|()| check_rule(&source, rule.into_inner(), &declared));
            names.push(name.into_inner());
            match checked {
                Ok(mut rule) => {
                    rule.receivers.retain(|name| config.receivers.iter().any(|known| known.name == *name));
                    config.rules.push(rule);
                }
                Err(error) => problems.push(error),
            }
        }
        (config, problems)
    }
}

fn first_problem<T>(config: T, problems: Vec<ConfigError>) -> Result<T, ConfigError> {
    match problems.into_iter().next() {
        Some(first) => Err(first),
        None => Ok(config),
    }
}

fn missing_rules(path: &Path, error: &std::io::Error) -> ConfigError {
    if error.kind() != std::io::ErrorKind::NotFound {
        return ConfigError::file(path, format!("cannot read the alert rules: {error}"));
    }
    ConfigError::file(path, "no such file").remedy(
        "correct `rules` in [alerts], or remove it to run without alerts; config/alerts.toml of the project is a commented example",
    )
}

fn check_name(
    source: &Source<'_>,
    what: &str,
    name: &Spanned<String>,
    earlier: &[String],
) -> Result<(), ConfigError> {
    if name.get_ref().trim().is_empty() {
        return Err(source.error(&name.span(), format!("the {what} has an empty name")).remedy("name it"));
    }
    if earlier.contains(name.get_ref()) {
        let problem = format!("there is already a {what} `{}`", name.get_ref());
        return Err(source.error(&name.span(), problem).remedy("give each its own name"));
    }
    Ok(())
}

fn check_rule(source: &Source<'_>, raw: RawRule, known: &[String]) -> Result<RuleConfig, ConfigError> {
    for (key, required) in [("rollup", &raw.rollup), ("condition", &raw.condition)] {
        if required.get_ref().trim().is_empty() {
            let error = source.error(&required.span(), format!("`{key}` is empty"));
            return Err(
                error.remedy("write the rollup's name and a condition over its columns, like avg > 90")
            );
        }
    }
    let mut receivers: Vec<String> = Vec::new();
    for receiver in raw.receivers {
        let name = receiver.get_ref();
        if !known.contains(name) {
            let names: Vec<&str> = known.iter().map(String::as_str).collect();
            let error = source.error(&receiver.span(), format!("unknown receiver `{name}`"));
            return Err(match names.is_empty() {
                true => error.remedy("add a [[receiver]] with this name"),
                false => error.remedy(suggest(name, &names)),
            });
        }
        if !receivers.contains(name) {
            receivers.push(receiver.into_inner());
        }
    }
    let name = raw.name.into_inner();
    // A template that is left out stands where the rule's condition stands.
    let place = source.error(&raw.condition.span(), "");
    let template = |template: Setting<String>, default: &str| match template {
        Some(template) => Located::new(source, template),
        None => Located { text: default.to_owned(), place: place.clone(), written: String::new() },
    };
    Ok(RuleConfig {
        rollup: Located::new(source, raw.rollup),
        tier: raw.tier.map(|tier| Located::new(source, tier)),
        recovery: raw.recovery.map(|recovery| Located::new(source, recovery)),
        hold_for: duration(
            source,
            "for",
            raw.hold_for,
            Duration::ZERO,
            Duration::ZERO..=Duration::from_secs(30 * 86_400),
        )?,
        severity: text(source, "severity", raw.severity, "warning".to_owned())?,
        labels: raw.labels,
        summary: template(raw.summary, &name),
        description: template(raw.description, ""),
        condition: Located::new(source, raw.condition),
        receivers,
        name,
    })
}
