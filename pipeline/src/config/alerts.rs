//! `config/alerts.toml`: alert rules, and the receivers they go to.

use std::path::Path;
use std::time::Duration;

use operators::dispatch::{Policy, ReceiverPolicy};
use serde::Deserialize;
use toml::Spanned;

use super::environment::Environment;
use super::error::ConfigError;
use super::raw::Setting;
use super::receivers::{RawReceiver, ReceiverConfig, check_fallbacks, check_receiver};
use super::routes::{
    LONGEST, REPEAT, RawInhibition, RawMute, RawRoute, check_inhibition, check_mute, check_route, route_name,
};
use super::rules::{RawRule, RuleConfig, check_receivers, check_rule};
use super::settings::{duration, text};
use super::source::Source;
use super::values::HumanDuration;
use crate::time::nanoseconds;

/// Everything `config/alerts.toml` decides, checked.
#[derive(Debug, Clone, Default)]
pub struct AlertsConfig {
    /// Unique by name, in the order of the file.
    pub rules: Vec<RuleConfig>,
    /// Unique by name, in the order of the file.
    pub receivers: Vec<ReceiverConfig>,
    /// Routes, inhibitions, mutes.
    pub policy: Policy,
    pub behind: BehindConfig,
}

/// The alert about the pipeline itself.
#[derive(Debug, Clone)]
pub struct BehindConfig {
    /// How long event time may stand still.
    pub after: Duration,
    pub severity: String,
    pub receivers: Vec<String>,
}

impl Default for BehindConfig {
    fn default() -> Self {
        Self { after: Duration::from_secs(300), severity: "critical".to_owned(), receivers: Vec::new() }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAlerts {
    #[serde(default)]
    rule: Vec<Spanned<RawRule>>,
    #[serde(default)]
    receiver: Vec<Spanned<RawReceiver>>,
    #[serde(default)]
    route: Vec<Spanned<RawRoute>>,
    #[serde(default)]
    inhibit: Vec<RawInhibition>,
    #[serde(default)]
    mute: Vec<RawMute>,
    #[serde(default)]
    behind: RawBehind,
    repeat_interval: Setting<HumanDuration>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBehind {
    after: Setting<HumanDuration>,
    severity: Setting<String>,
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
        let usable = |name: &String| config.receivers.iter().any(|known| known.name == *name);
        match check_behind(&source, raw.behind, &declared) {
            Ok(behind) => config.behind = behind,
            Err(error) => problems.push(error),
        }
        config.behind.receivers.retain(usable);
        let mut names: Vec<String> = Vec::new();
        for mute in raw.mute {
            let name = mute.name.clone();
            let checked = check_name(&source, "mute", &name, &names).and_then(|()| check_mute(&source, mute));
            names.push(name.into_inner());
            match checked {
                Ok(mute) => config.policy.mutes.push(mute),
                Err(error) => problems.push(error),
            }
        }
        let mutes = names;
        let mut names: Vec<String> = Vec::new();
        for route in raw.route {
            let name = Spanned::new(route.span(), route_name(route.get_ref()));
            let checked = check_name(&source, "route", &name, &names)
                .and_then(|()| check_route(&source, route, &declared, &mutes));
            names.push(name.into_inner());
            match checked {
                Ok(mut route) => {
                    route.receivers.retain(usable);
                    route.escalations.iter_mut().for_each(|step| step.receivers.retain(usable));
                    config.policy.routes.push(route);
                }
                Err(error) => problems.push(error),
            }
        }
        for inhibition in raw.inhibit {
            match check_inhibition(&source, inhibition) {
                Ok(inhibition) => config.policy.inhibitions.push(inhibition),
                Err(error) => problems.push(error),
            }
        }
        match duration(&source, "repeat_interval", raw.repeat_interval, REPEAT, Duration::ZERO..=LONGEST) {
            Ok(repeat) => config.policy.default_repeat = nanoseconds(repeat),
            Err(error) => problems.push(error),
        }
        let receivers = config.receivers.iter().map(|receiver| {
            (receiver.name.clone(), ReceiverPolicy { send_resolved: receiver.send_resolved })
        });
        config.policy.receivers = receivers.collect();
        (config, problems)
    }
}

fn check_behind(
    source: &Source<'_>,
    raw: RawBehind,
    receivers: &[String],
) -> Result<BehindConfig, ConfigError> {
    let defaults = BehindConfig::default();
    let least = Duration::from_secs(10);
    Ok(BehindConfig {
        after: duration(source, "after", raw.after, defaults.after, least..=LONGEST)?,
        severity: text(source, "severity", raw.severity, defaults.severity)?,
        receivers: check_receivers(source, raw.receivers, receivers)?,
    })
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

pub(super) fn check_name(
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
