//! From the file to [`Config`]: reads, lays the environment over it, checks every value against its
//! bounds.

use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::time::Duration;

use points::decode::TextBounds;
use secrecy::ExposeSecret;
use toml::Spanned;
use url::Url;

use super::checked::{
    AlertsFile, ArchiveConfig, Config, DEFAULT_PATH, HttpConfig, InfluxConfig, IngestConfig, KafkaConfig,
    LEAST_BUDGET, MemoryConfig, PayloadFormat, RollupConfig, StorageConfig, TopicsConfig,
};
use super::environment::Environment;
use super::error::ConfigError;
use super::properties;
use super::raw::{
    RawAlertsFile, RawArchive, RawConfig, RawHttp, RawInflux, RawIngest, RawKafka, RawMemory, RawRollup,
    RawStorage, RawTopics, Setting,
};
use super::secret::SecretKeys;
use super::settings::{count, duration, http_url, optional_duration, required, size, text};
use super::source::{Source, suggest};
use super::tiers::check_tiers;
use super::unread;
use super::values::{TextList, directory_url};

const DAY: Duration = Duration::from_secs(86_400);

impl Config {
    /// Reads and checks the file at `path`, with the overrides of `environment`.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place and what to write instead.
    pub fn load(path: &Path, environment: &Environment) -> Result<Self, ConfigError> {
        let (config, problems) = Self::load_all(path, environment);
        first_problem(config, problems)
    }

    /// Everything that is wrong with the file, and what can be used of it, so that `check` can go
    /// on: sections with a mistake are at their defaults. There is none when the file cannot be
    /// read as TOML at all.
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
        let (config, problems) = match source.read() {
            Ok(raw) => {
                let (config, problems) = Self::checked(&source, raw);
                (Some(config), problems)
            }
            Err(error) => (Self::naming_files(&source), vec![error]),
        };
        (config, unread::slips(environment).into_iter().chain(problems).collect())
    }

    fn checked(source: &Source<'_>, raw: RawConfig) -> (Self, Vec<ConfigError>) {
        // Where the files are is known even if something else in the section is wrong.
        let sql = raw.rollup.sql.as_ref().map(|path| path.get_ref().clone());
        let mut problems = Vec::new();
        let mut config = Self {
            kafka: usable(check_kafka(source, raw.kafka), &mut problems),
            topics: usable(check_topics(source, raw.topics), &mut problems),
            ingest: usable(check_ingest(source, raw.ingest), &mut problems),
            rollup: usable(check_rollup(source, raw.rollup), &mut problems),
            storage: usable(check_storage(source, raw.storage), &mut problems),
            archive: usable(check_archive(source, raw.archive), &mut problems),
            influx: raw
                .influx
                .and_then(|influx| usable(check_influx(source, influx).map(Some), &mut problems)),
            alerts: usable(check_alerts(source, raw.alerts), &mut problems),
            http: usable(check_http(source, raw.http), &mut problems),
            memory: usable(check_memory(source, raw.memory), &mut problems),
        };
        if let Some(sql) = sql {
            config.rollup.sql = sql;
        }
        (config, problems)
    }

    /// The defaults with the two sections that name other files, of a file with an unknown key or a
    /// wrong type.
    fn naming_files(source: &Source<'_>) -> Option<Self> {
        let source = source.only(&["rollup", "alerts"])?;
        let raw = source.read().ok()?;
        Some(Self::checked(&source, raw).0)
    }
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

fn check_kafka(source: &Source<'_>, raw: RawKafka) -> Result<KafkaConfig, ConfigError> {
    let defaults = KafkaConfig::default();
    let brokers = match raw.brokers {
        Some(brokers) if brokers.get_ref().0.iter().all(|broker| broker.trim().is_empty()) => {
            return Err(source
                .error(&brokers.span(), "`brokers` is empty")
                .remedy("name at least one broker, like [\"127.0.0.1:9092\"]"));
        }
        Some(brokers) => brokers.into_inner().0,
        None => defaults.brokers,
    };
    let mut properties = defaults.properties;
    for (name, value) in raw.properties {
        let span = value.span();
        let wrong = |(problem, remedy): (String, String)| source.error(&span, problem).remedy(remedy);
        let known = properties::check_name(&name).map_err(wrong)?;
        let value = value.into_inner().resolve(source, &span)?;
        // A secret that was not read has no value to judge.
        if source.environment().placeholder() != Some(value.expose_secret()) {
            properties::check_value(known, &value).map_err(wrong)?;
        }
        if properties.insert(known.to_owned(), value).is_some() {
            let problem =
                format!("the librdkafka property `{known}` is set twice, also by another of its names");
            return Err(source.error(&span, problem).remedy("keep one of them"));
        }
    }
    Ok(KafkaConfig { brokers, properties })
}

fn check_topics(source: &Source<'_>, raw: RawTopics) -> Result<TopicsConfig, ConfigError> {
    let defaults = TopicsConfig::default();
    let mut seen: Vec<(String, &str)> = Vec::new();
    let points = match raw.points {
        Some(points) => {
            let span = points.span();
            if points.get_ref().0.is_empty() {
                let error = source.error(&span, "`points` is empty");
                return Err(error.remedy("name at least one topic, like [\"points\"]"));
            }
            for topic in &points.get_ref().0 {
                check_topic(source, &span, topic, "points", &mut seen)?;
            }
            points.into_inner().0
        }
        None => {
            seen.extend(defaults.points.iter().map(|topic| (topic.clone(), "points")));
            defaults.points
        }
    };
    let mut topic = |key: &'static str, setting: Setting<String>, default: String| {
        let Some(name) = setting else {
            seen.push((default.clone(), key));
            return Ok(default);
        };
        check_topic(source, &name.span(), name.get_ref(), key, &mut seen)?;
        Ok(name.into_inner())
    };
    let partials = topic("partials", raw.partials, defaults.partials)?;
    let dead_letter = topic("dead_letter", raw.dead_letter, defaults.dead_letter)?;
    let late = topic("late", raw.late, defaults.late)?;
    let alerts = topic("alerts", raw.alerts, defaults.alerts)?;
    let partitions = count(source, "partials_partitions", raw.partials_partitions, 8, 1..=1_000)?;
    let replication = count(source, "replication", raw.replication, 1, 1..=100)?;
    Ok(TopicsConfig {
        points,
        partials,
        partials_partitions: i32::try_from(partitions).expect("at most 1,000"),
        dead_letter,
        late,
        alerts,
        replication: i32::try_from(replication).expect("at most 100"),
    })
}

/// Refuses what Kafka would refuse, and a topic with two meanings.
fn check_topic(
    source: &Source<'_>,
    span: &Range<usize>,
    name: &str,
    key: &'static str,
    seen: &mut Vec<(String, &'static str)>,
) -> Result<(), ConfigError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > 249 || !name.chars().all(legal) || matches!(name, "." | "..") {
        return Err(source
            .error(span, format!("`{name}` is not the name of a topic"))
            .remedy("use up to 249 letters, digits, dots, underscores and hyphens"));
    }
    if let Some((_, other)) = seen.iter().find(|(topic, _)| topic == name) {
        let problem = format!("topic `{name}` is already used by `{other}`");
        return Err(source.error(span, problem).remedy("give each its own topic"));
    }
    seen.push((name.to_owned(), key));
    Ok(())
}

/// A text of a series: enough for a word, and far below what a message of an own topic may have.
const TEXTS: RangeInclusive<u64> = 16..=64 << 10;

fn check_ingest(source: &Source<'_>, raw: RawIngest) -> Result<IngestConfig, ConfigError> {
    let defaults = IngestConfig::default();
    let max_message_bytes = size(
        source,
        "max_message_bytes",
        raw.max_message_bytes,
        defaults.max_message_bytes,
        1 << 10..=1 << 30,
    )?;
    let TextBounds { name, label_key, label_value } = defaults.texts;
    let texts = TextBounds {
        name: size(source, "max_name_bytes", raw.max_name_bytes, name, TEXTS)?,
        label_key: size(source, "max_label_key_bytes", raw.max_label_key_bytes, label_key, TEXTS)?,
        label_value: size(source, "max_label_value_bytes", raw.max_label_value_bytes, label_value, TEXTS)?,
    };
    let epoch_points =
        count(source, "epoch_points", raw.epoch_points, defaults.epoch_points, 1_000..=100_000_000)?;
    let millis = Duration::from_millis;
    Ok(IngestConfig {
        group: text(source, "group", raw.group, defaults.group)?,
        format: check_format(source, raw.format)?,
        epoch: duration(source, "epoch", raw.epoch, defaults.epoch, millis(10)..=Duration::from_secs(60))?,
        epoch_points,
        max_message_bytes,
        texts,
        max_out_of_orderness: duration(
            source,
            "max_out_of_orderness",
            raw.max_out_of_orderness,
            defaults.max_out_of_orderness,
            Duration::ZERO..=7 * DAY,
        )?,
        max_future_skew: duration(
            source,
            "max_future_skew",
            raw.max_future_skew,
            defaults.max_future_skew,
            Duration::ZERO..=36_500 * DAY,
        )?,
        idle_timeout: duration(
            source,
            "idle_timeout",
            raw.idle_timeout,
            defaults.idle_timeout,
            millis(100)..=7 * DAY,
        )?,
        max_drift: duration(
            source,
            "max_drift",
            raw.max_drift,
            defaults.max_drift,
            Duration::from_secs(1)..=36_500 * DAY,
        )?,
        oldest: optional_duration(source, "oldest", raw.oldest, Duration::from_secs(60)..=36_500 * DAY)?,
    })
}

fn check_format(source: &Source<'_>, raw: Setting<String>) -> Result<PayloadFormat, ConfigError> {
    let Some(format) = raw else { return Ok(PayloadFormat::default()) };
    match format.get_ref().as_str() {
        "auto" => Ok(PayloadFormat::Auto),
        "json" => Ok(PayloadFormat::Json),
        "line-protocol" => Ok(PayloadFormat::LineProtocol),
        other => Err(source
            .error(&format.span(), format!("unknown format `{other}`"))
            .remedy(suggest(other, &["auto", "json", "line-protocol"]))),
    }
}

fn check_alerts(source: &Source<'_>, raw: RawAlertsFile) -> Result<AlertsFile, ConfigError> {
    let defaults = AlertsFile::default();
    let group = text(source, "group", raw.group, defaults.group)?;
    Ok(AlertsFile { rules: raw.rules.map(Spanned::into_inner), group })
}

fn check_rollup(source: &Source<'_>, raw: RawRollup) -> Result<RollupConfig, ConfigError> {
    let defaults = RollupConfig::default();
    Ok(RollupConfig {
        sql: raw.sql.map_or(defaults.sql, Spanned::into_inner),
        group: text(source, "group", raw.group, defaults.group)?,
        checkpoint_interval: duration(
            source,
            "checkpoint_interval",
            raw.checkpoint_interval,
            defaults.checkpoint_interval,
            Duration::from_millis(100)..=Duration::from_secs(3_600),
        )?,
        series_limit: count(
            source,
            "series_limit",
            raw.series_limit,
            defaults.series_limit,
            1..=u64::from(u32::MAX),
        )?,
    })
}

fn check_memory(source: &Source<'_>, raw: RawMemory) -> Result<MemoryConfig, ConfigError> {
    let defaults = MemoryConfig::default();
    let bounds = LEAST_BUDGET as u64..=1 << 40;
    Ok(MemoryConfig { budget: size(source, "budget", raw.budget, defaults.budget, bounds)? })
}

fn check_storage(source: &Source<'_>, raw: RawStorage) -> Result<StorageConfig, ConfigError> {
    let Some(given) = raw.url else { return Ok(StorageConfig::default()) };
    let text = given.get_ref();
    let url = storage_url(text).map_err(|problem| {
        source
            .error(&given.span(), format!("`{text}` {problem}"))
            .remedy("write a directory, or a URL like \"s3://bucket/prefix\"")
    })?;
    Ok(StorageConfig { url })
}

fn storage_url(text: &str) -> Result<Url, String> {
    if text.trim().is_empty() {
        return Err("is empty".to_owned());
    }
    if !text.contains("://") {
        return Ok(directory_url(Path::new(text)));
    }
    let mut url = Url::parse(text).map_err(|error| format!("is not a URL ({error})"))?;
    let known = ["file", "s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss"];
    if !known.contains(&url.scheme()) {
        return Err(format!("has a scheme that is not one of {}", known.join(", ")));
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

fn check_archive(source: &Source<'_>, raw: RawArchive) -> Result<ArchiveConfig, ConfigError> {
    let defaults = ArchiveConfig::default();
    let ages = Duration::from_secs(1)..=DAY;
    Ok(ArchiveConfig {
        enabled: raw.enabled.map_or(defaults.enabled, Spanned::into_inner),
        roll_size: size(source, "roll_size", raw.roll_size, defaults.roll_size, 1 << 20..=4 << 30)?,
        roll_age: duration(source, "roll_age", raw.roll_age, defaults.roll_age, ages)?,
        compact_interval: optional_duration(
            source,
            "compact_interval",
            raw.compact_interval,
            Duration::from_secs(1)..=7 * DAY,
        )?,
        compact_after: duration(
            source,
            "compact_after",
            raw.compact_after,
            defaults.compact_after,
            Duration::ZERO..=3_650 * DAY,
        )?,
    })
}

fn check_influx(source: &Source<'_>, raw: Spanned<RawInflux>) -> Result<InfluxConfig, ConfigError> {
    let section = raw.span();
    let raw = raw.into_inner();
    let url = required(source, &section, "url", "url = \"http://127.0.0.1:8086\"", raw.url)?;
    let org = required(source, &section, "org", "org = \"tidemark\"", raw.org)?;
    let bucket = required(source, &section, "bucket", "bucket = \"tidemark\"", raw.bucket)?;
    let address = http_url(source, &url)?;
    if !address.username().is_empty() || address.password().is_some() {
        let error = source.error(&url.span(), "the URL holds a user name or password");
        return Err(error.remedy("write it without them: the token is all that InfluxDB asks for"));
    }
    let keys = SecretKeys { key: "token", text: raw.token, file: raw.token_file, env: raw.token_env };
    let token = keys.resolve(source)?.ok_or_else(|| {
        source
            .error(&section, "[influx] has no token")
            .remedy("add token_file = \"path\" or token_env = \"NAME\"")
    })?;
    let seconds = Duration::from_secs;
    Ok(InfluxConfig {
        url: address,
        org: org.into_inner(),
        tiers: check_tiers(source, bucket.get_ref(), raw.tiers)?,
        bucket: bucket.into_inner(),
        token,
        create_bucket: raw.create_bucket.is_some_and(Spanned::into_inner),
        retention: optional_duration(source, "retention", raw.retention, seconds(3_600)..=36_500 * DAY)?,
        batch_lines: count(source, "batch_lines", raw.batch_lines, 5_000, 1..=100_000)?,
        in_flight: count(source, "in_flight", raw.in_flight, 4, 1..=64)?,
        timeout: duration(source, "timeout", raw.timeout, seconds(30), seconds(1)..=seconds(600))?,
    })
}

fn check_http(source: &Source<'_>, raw: RawHttp) -> Result<HttpConfig, ConfigError> {
    let defaults = HttpConfig::default();
    let listen = match raw.listen {
        Some(listen) => listen.get_ref().parse::<SocketAddr>().map_err(|_| {
            source
                .error(&listen.span(), format!("`{}` is not an address to listen on", listen.get_ref()))
                .remedy("write IP address and port, like \"127.0.0.1:7878\" or \"[::1]:7878\"")
        })?,
        None => defaults.listen,
    };
    let timeouts = Duration::from_millis(100)..=Duration::from_secs(600);
    Ok(HttpConfig {
        listen,
        allowed_hosts: check_hosts(source, raw.allowed_hosts)?,
        max_connections: count(
            source,
            "max_connections",
            raw.max_connections,
            defaults.max_connections,
            1..=65_536,
        )?,
        timeout: duration(source, "timeout", raw.timeout, defaults.timeout, timeouts)?,
    })
}

/// Names as requests give them. Not addresses, which are always allowed, nor patterns.
fn check_hosts(source: &Source<'_>, raw: Setting<TextList>) -> Result<Vec<String>, ConfigError> {
    let Some(names) = raw else { return Ok(Vec::new()) };
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if let Some(name) = names.get_ref().0.iter().find(|name| name.is_empty() || !name.chars().all(legal)) {
        return Err(source
            .error(&names.span(), format!("`{name}` is not the name of a host"))
            .remedy("write it without scheme and port, like \"alerts.example.com\""));
    }
    Ok(names.into_inner().0.iter().map(|name| name.to_lowercase()).collect())
}
