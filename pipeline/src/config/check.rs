//! From the file to [`Config`]: reads, lays the environment over it, and checks what concerns
//! several options at once. The bounds of each option stand where it is declared.

use std::path::{Path, PathBuf};

use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;
use toml::Spanned;

use super::checked::{Config, DEFAULT_PATH, InfluxConfig, KafkaConfig, TopicsConfig};
use super::environment::Environment;
use super::error::ConfigError;
use super::properties;
use super::secret::SecretKeys;
use super::source::{Source, known_keys};
use super::tiers::check_tiers;
use super::unread;

impl Config {
    /// Reads and checks the file at `path`, with the overrides of `environment`.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place and what to write instead.
    pub fn load(path: &Path, environment: &Environment) -> Result<Self, ConfigError> {
        let (config, problems) = Self::load_all(path, environment);
        first_problem(config, problems)
    }

    /// Everything that is wrong with the file, a mistake a section, and what can be used of it, so
    /// that `check` can go on: sections with a mistake are at their defaults. There is none when
    /// the file cannot be read as TOML at all.
    pub fn load_all(path: &Path, environment: &Environment) -> (Option<Self>, Vec<ConfigError>) {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse_all(text, path, environment),
            Err(error) => (None, vec![unreadable(path, &error)]),
        }
    }

    #[cfg(test)]
    pub(super) fn parse(text: String, path: &Path, environment: &Environment) -> Result<Self, ConfigError> {
        let (config, problems) = Self::parse_all(text, path, environment);
        first_problem(config, problems)
    }

    fn parse_all(text: String, path: &Path, environment: &Environment) -> (Option<Self>, Vec<ConfigError>) {
        let source = Source::new(path, text, environment).with_overrides();
        let mut problems = unread::slips(environment);
        match source.unknown_sections(&known_keys::<Self>()) {
            Ok(unknown) => {
                problems.extend(unknown);
                (Some(Self::checked(&source, &mut problems)), problems)
            }
            Err(error) => {
                problems.push(error);
                (None, problems)
            }
        }
    }

    fn checked(source: &Source<'_>, problems: &mut Vec<ConfigError>) -> Self {
        let kafka =
            source.section("kafka").and_then(|section| checked_kafka(source, section.unwrap_or_default()));
        let topics =
            source.section("topics").and_then(|section| checked_topics(source, section.unwrap_or_default()));
        let influx = source.section("influx").and_then(|section| match section {
            Some(influx) => checked_influx(source, influx).map(Some),
            None => Ok(None),
        });
        let mut config = Self {
            kafka: usable(kafka, problems),
            topics: usable(topics, problems),
            ingest: section(source, "ingest", problems),
            rollup: section(source, "rollup", problems),
            storage: section(source, "storage", problems),
            archive: section(source, "archive", problems),
            influx: usable(influx, problems),
            alerts: section(source, "alerts", problems),
            http: section(source, "http", problems),
            memory: section(source, "memory", problems),
        };
        // Where the files are is known even if something else in the section is wrong.
        if let Ok(Some(sql)) = source.option("rollup", "sql") {
            config.rollup.sql = sql;
        }
        if let Ok(Some(rules)) = source.option("alerts", "rules") {
            config.alerts.rules = Some(rules);
        }
        config
    }
}

/// A section that needs no check but those of its options.
fn section<T: DeserializeOwned + Default>(
    source: &Source<'_>,
    name: &str,
    problems: &mut Vec<ConfigError>,
) -> T {
    usable(source.section(name), problems).unwrap_or_default()
}

/// The section, or its default with its error put aside.
fn usable<T: Default>(section: Result<T, ConfigError>, problems: &mut Vec<ConfigError>) -> T {
    section.unwrap_or_else(|error| {
        problems.push(error);
        T::default()
    })
}

fn first_problem(config: Option<Config>, problems: Vec<ConfigError>) -> Result<Config, ConfigError> {
    match problems.into_iter().next() {
        Some(first) => Err(first),
        None => Ok(config.expect("a file without problems was understood")),
    }
}

/// Why a configuration file could not be read, and how to get one.
fn unreadable(path: &Path, error: &std::io::Error) -> ConfigError {
    if error.kind() != std::io::ErrorKind::NotFound {
        return ConfigError::file(path, format!("cannot read the configuration: {error}"));
    }
    let missing = ConfigError::file(path, "no such file");
    if path == Path::new(DEFAULT_PATH) {
        missing.remedy(
            "start in the project's directory, which has one, or name another with --config or TIDEMARK_CONFIG",
        )
    } else {
        missing.remedy(format!("copy the commented example, {DEFAULT_PATH}, from the project and adapt it"))
    }
}

/// Reads the secrets among the properties, and refuses those that no client knows.
fn checked_kafka(source: &Source<'_>, mut kafka: KafkaConfig) -> Result<KafkaConfig, ConfigError> {
    for (name, value) in std::mem::take(&mut kafka.written) {
        let span = value.span();
        let wrong = |(problem, remedy): (String, String)| source.error(&span, problem).remedy(remedy);
        let known = properties::check_name(&name).map_err(wrong)?;
        let value = value.into_inner().resolve(source, &span)?;
        // A secret that was not read has no value to judge.
        if source.environment().placeholder() != Some(value.expose_secret()) {
            properties::check_value(known, &value).map_err(wrong)?;
        }
        if kafka.properties.insert(known.to_owned(), value).is_some() {
            let problem =
                format!("the librdkafka property `{known}` is set twice, also by another of its names");
            return Err(source.error(&span, problem).remedy("keep one of them"));
        }
    }
    Ok(kafka)
}

/// Refuses a topic with two meanings.
fn checked_topics(source: &Source<'_>, topics: TopicsConfig) -> Result<TopicsConfig, ConfigError> {
    let points = topics.points.iter().map(|topic| ("points", topic));
    let own = [
        ("partials", &topics.partials),
        ("dead_letter", &topics.dead_letter),
        ("late", &topics.late),
        ("alerts", &topics.alerts),
    ];
    let mut seen: Vec<(&str, &String)> = Vec::new();
    for (key, topic) in points.chain(own) {
        if let Some((other, _)) = seen.iter().find(|(_, seen)| *seen == topic) {
            let places = [key, other].into_iter().find_map(|key| source.place(&["topics", key]));
            let problem = format!("topic `{topic}` is already used by `{other}`");
            return Err(source.error(&places.unwrap_or(0..0), problem).remedy("give each its own topic"));
        }
        seen.push((key, topic));
    }
    Ok(topics)
}

/// Reads the token, and refuses buckets with two meanings.
fn checked_influx(source: &Source<'_>, mut influx: InfluxConfig) -> Result<InfluxConfig, ConfigError> {
    let place = |key: &str| source.place(&["influx", key]).unwrap_or(0..0);
    let written = source.place(&["influx", "token"]).map(|place| Spanned::new(place, influx.token.clone()));
    let file = influx.token_file.take().map(|file: PathBuf| Spanned::new(place("token_file"), file));
    let env = influx.token_env.take().map(|name| Spanned::new(place("token_env"), name));
    let keys = SecretKeys { key: "token", text: written, file, env };
    influx.token = keys.resolve(source)?.ok_or_else(|| {
        source
            .error(&source.place(&["influx"]).unwrap_or(0..0), "[influx] has no token")
            .remedy("add token_file = \"path\" or token_env = \"NAME\"")
    })?;
    influx.tiers = check_tiers(source, &influx.bucket, std::mem::take(&mut influx.tiers))?;
    Ok(influx)
}
