//! `config/alerts.toml`: alert rules, and the receivers they go to.

use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::environment::Environment;
use super::error::ConfigError;
use super::receivers::{RawReceiver, ReceiverConfig, check_receiver};
use super::rules::{RawRule, RuleConfig, check_rule};
use super::source::Source;

/// Everything `config/alerts.toml` decides, checked.
#[derive(Debug, Clone, Default)]
pub struct AlertsConfig {
    /// Unique by name, in the order of the file.
    pub rules: Vec<RuleConfig>,
    /// Unique by name, in the order of the file.
    pub receivers: Vec<ReceiverConfig>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAlerts {
    #[serde(default)]
    rule: Vec<Spanned<RawRule>>,
    #[serde(default)]
    receiver: Vec<Spanned<RawReceiver>>,
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
        for receiver in raw.receiver {
            let name = receiver.get_ref().name.clone();
            let checked = check_name(&source, "receiver", &name, &declared)
                .and_then(|()| check_receiver(&source, receiver));
            declared.push(name.into_inner());
            match checked {
                Ok(receiver) => config.receivers.push(receiver),
                Err(error) => problems.push(error),
            }
        }
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
