//! `config/alerts.toml`: alert rules, and the receivers they go to.

use std::path::Path;
use std::time::Duration;

use alerts::dispatch::{Policy, ReceiverPolicy};
use serde::Deserialize;
use toml::Spanned;

use super::environment::Environment;
use super::error::ConfigError;
use super::receivers::{RawReceiver, ReceiverConfig, check_fallbacks, check_receiver};
use super::routes::{
    LONGEST, REPEAT, RawInhibition, RawMute, RawRoute, check_inhibition, check_mute, check_route, route_name,
};
use super::rules::{RawRule, RuleConfig, check_receivers, check_rule};
use super::settings::Setting;
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
    /// The first thing that is wrong, with its place and what to write instead. Conditions and
    /// templates are not compiled here: see [`Located::error`].
    pub fn load(path: &Path, environment: &Environment) -> Result<Self, ConfigError> {
        let (config, problems) = Self::load_all(path, environment);
        first_problem(config, problems)
    }

    /// The rules and receivers that can be used, and everything that is wrong with the others: one
    /// bad rule or receiver does not stop its neighbours. A rule loses the receivers that are left
    /// out.
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
        let mut fallbacks: Vec<(String, Spanned<String>)> = Vec::new();
        let receivers = raw.receiver.into_iter().map(|raw| (raw.get_ref().name.clone(), raw));
        let declared = each_named(&source, "receiver", receivers, &mut problems, |raw| {
            let fallback = raw.get_ref().fallback.clone();
            let receiver = check_receiver(&source, raw)?;
            fallbacks.extend(fallback.map(|fallback| (receiver.name.clone(), fallback)));
            config.receivers.push(receiver);
            Ok(())
        });
        problems.extend(check_fallbacks(&source, fallbacks, &declared, &mut config.receivers));
        let usable: Vec<String> = config.receivers.iter().map(|receiver| receiver.name.clone()).collect();
        let is_usable = |name: &String| usable.contains(name);
        let rules = raw.rule.into_iter().map(|raw| (raw.get_ref().name.clone(), raw));
        each_named(&source, "rule", rules, &mut problems, |raw| {
            let mut rule = check_rule(&source, raw.into_inner(), &declared)?;
            rule.spec.receivers.retain(is_usable);
            config.rules.push(rule);
            Ok(())
        });
        match check_behind(&source, raw.behind, &declared) {
            Ok(behind) => config.behind = behind,
            Err(error) => problems.push(error),
        }
        config.behind.receivers.retain(is_usable);
        let mutes = raw.mute.into_iter().map(|raw| (raw.name.clone(), raw));
        let mutes = each_named(&source, "mute", mutes, &mut problems, |raw| {
            config.policy.mutes.push(check_mute(&source, raw)?);
            Ok(())
        });
        let routes =
            raw.route.into_iter().map(|raw| (Spanned::new(raw.span(), route_name(raw.get_ref())), raw));
        each_named(&source, "route", routes, &mut problems, |raw| {
            let mut route = check_route(&source, raw, &declared, &mutes)?;
            route.receivers.retain(is_usable);
            route.escalations.iter_mut().for_each(|step| step.receivers.retain(is_usable));
            config.policy.routes.push(route);
            Ok(())
        });
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

/// Hands each item to `take` whose name is its own, and puts aside what is wrong with the others.
/// Returns all names.
fn each_named<T>(
    source: &Source<'_>,
    kind: &str,
    items: impl Iterator<Item = (Spanned<String>, T)>,
    problems: &mut Vec<ConfigError>,
    mut take: impl FnMut(T) -> Result<(), ConfigError>,
) -> Vec<String> {
    let mut names = Vec::new();
    for (name, item) in items {
        let taken = check_name(source, kind, &name, &names).and_then(|()| take(item));
        problems.extend(taken.err());
        names.push(name.into_inner());
    }
    names
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
