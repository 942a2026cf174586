//! The configuration of the pipeline: what `config/pipeline.toml` may hold, and what the rest of
//! the program sees.
//!
//! An option is a field with its bounds, a doc comment, and its default in `Default`. Sections are
//! deserialized as they stand here; `check` has what concerns several options at once.
//! `config/pipeline.toml` documents every option, and tests hold the two together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use operators::watermark::WatermarkOptions;
pub use points::decode::Format as PayloadFormat;
use points::decode::TextBounds;
use secrecy::SecretString;
use serde::Deserialize;
use toml::Spanned;
use url::Url;

use super::parsed;
use super::secret::PropertyValue;
use super::tiers::TierConfig;
use super::within::{self, DAY, GIB, HOUR, KIB, MIB, SECOND};
use crate::time::nanoseconds;

/// Where the program looks for its configuration when no path is given, relative to the working
/// directory.
pub const DEFAULT_PATH: &str = "config/pipeline.toml";

/// Everything `config/pipeline.toml` decides, checked.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub kafka: KafkaConfig,
    pub topics: TopicsConfig,
    pub ingest: IngestConfig,
    pub rollup: RollupConfig,
    pub storage: StorageConfig,
    pub archive: ArchiveConfig,
    /// Without it, rollups are written as Parquet below `storage.url`.
    pub influx: Option<InfluxConfig>,
    pub alerts: AlertsFile,
    pub http: HttpConfig,
    pub memory: MemoryConfig,
}

/// Bytes; less than this leaves the parts of a process too little to work with.
pub const LEAST_BUDGET: usize = 256 << 20;

/// Memory of the process.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemoryConfig {
    /// Bytes that the roles of a process keep within, together.
    #[serde(deserialize_with = "within::size::<{ LEAST_BUDGET as u64 }, { 1 << 40 }, _>")]
    pub budget: usize,
}

/// How to reach the brokers.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// `host:port` of at least one broker.
    #[serde(deserialize_with = "parsed::brokers")]
    pub brokers: Vec<String>,
    /// As they are written: a secret may be kept elsewhere.
    #[serde(rename = "properties")]
    pub(super) written: BTreeMap<String, Spanned<PropertyValue>>,
    /// Passed to every librdkafka client as they are. Secret, because `sasl.password` is one of
    /// them.
    #[serde(skip)]
    pub properties: BTreeMap<String, SecretString>,
}

/// Names and shapes of the topics.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopicsConfig {
    /// Source topics of raw points, at least one.
    #[serde(deserialize_with = "parsed::topics")]
    pub points: Vec<String>,
    #[serde(deserialize_with = "parsed::topic")]
    pub partials: String,
    /// Partitions of `partials`. Fixed at creation: group keys are hashed over it.
    #[serde(deserialize_with = "within::count::<1, 1_000, _, _>")]
    pub partials_partitions: i32,
    #[serde(deserialize_with = "parsed::topic")]
    pub dead_letter: String,
    #[serde(deserialize_with = "parsed::topic")]
    pub late: String,
    #[serde(deserialize_with = "parsed::topic")]
    pub alerts: String,
    /// Replicas of the topics that `tidemark topics create` makes.
    #[serde(deserialize_with = "within::count::<1, 100, _, _>")]
    pub replication: i32,
}

/// Reading, decoding, partial aggregation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngestConfig {
    /// Consumer group of the source topics.
    #[serde(deserialize_with = "within::text")]
    pub group: String,
    #[serde(deserialize_with = "parsed::format")]
    pub format: PayloadFormat,
    /// How long points are aggregated before their partial states are sent in one transaction.
    #[serde(deserialize_with = "within::duration::<10, { 60 * SECOND }, _>")]
    pub epoch: Duration,
    /// Points after which an epoch ends early, if the memory budget has not ended it before.
    #[serde(deserialize_with = "within::count::<1_000, 100_000_000, _, _>")]
    pub epoch_points: usize,
    /// Messages above this many bytes are dead-lettered unread.
    #[serde(deserialize_with = "within::size::<KIB, GIB, _>")]
    pub max_message_bytes: usize,
    /// Bytes of the longest name of a point; with a longer one it is dead-lettered.
    #[serde(deserialize_with = "within::size::<16, { 64 * KIB }, _>")]
    pub max_name_bytes: usize,
    /// The same of the key of a label.
    #[serde(deserialize_with = "within::size::<16, { 64 * KIB }, _>")]
    pub max_label_key_bytes: usize,
    /// The same of the value of a label.
    #[serde(deserialize_with = "within::size::<16, { 64 * KIB }, _>")]
    pub max_label_value_bytes: usize,
    /// How far behind the highest event time of its partition a point may arrive and still be on
    /// time.
    #[serde(deserialize_with = "within::duration::<0, { 7 * DAY }, _>")]
    pub max_out_of_orderness: Duration,
    /// How far ahead of the wall clock an event time may be before the point is quarantined.
    #[serde(deserialize_with = "within::duration::<0, { 36_500 * DAY }, _>")]
    pub max_future_skew: Duration,
    /// Silence, at the end of the log, after which a partition no longer holds the watermark back.
    #[serde(deserialize_with = "within::duration::<100, { 7 * DAY }, _>")]
    pub idle_timeout: Duration,
    /// How far a partition's event time may be ahead of the slowest one with unread messages before
    /// it is paused.
    #[serde(deserialize_with = "within::duration::<SECOND, { 36_500 * DAY }, _>")]
    pub max_drift: Duration,
    /// Age of event time beyond which points are dead-lettered; `None` accepts any age.
    #[serde(deserialize_with = "within::some_duration::<{ 60 * SECOND }, { 36_500 * DAY }, _>")]
    pub oldest: Option<Duration>,
}

/// Facts of `ingest` older than this, in epochs, do not count for idleness any more.
const OWNER_EPOCHS: u32 = 10;
const LEAST_OWNER_TIMEOUT: Duration = Duration::from_secs(10);

impl IngestConfig {
    /// The longest texts of a point's series.
    pub fn texts(&self) -> TextBounds {
        TextBounds {
            name: self.max_name_bytes,
            label_key: self.max_label_key_bytes,
            label_value: self.max_label_value_bytes,
        }
    }

    /// How the watermark follows the facts in the log.
    pub fn watermark(&self) -> WatermarkOptions {
        let owner = (self.epoch * OWNER_EPOCHS).max(LEAST_OWNER_TIMEOUT);
        WatermarkOptions {
            max_out_of_orderness: nanoseconds(self.max_out_of_orderness),
            idle_timeout: nanoseconds(self.idle_timeout),
            owner_timeout: nanoseconds(owner),
        }
    }
}

/// Merging partial states, closing windows.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RollupConfig {
    /// Directory of the rollups, one `.sql` file each.
    pub sql: PathBuf,
    /// Consumer group of the partials topic.
    #[serde(deserialize_with = "within::text")]
    pub group: String,
    /// Time between snapshots of the state.
    #[serde(deserialize_with = "within::duration::<100, HOUR, _>")]
    pub checkpoint_interval: Duration,
    /// Groups of a rollup in one window, beyond which points go to its overflow group.
    #[serde(deserialize_with = "within::count::<1, { u32::MAX as u64 }, _, _>")]
    pub series_limit: usize,
}

/// Root of `raw/`, `rollups/`, `state/` and `alerts/`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageConfig {
    /// `file:`, `s3:`, `gs:` or `az:`, always ending in a slash. A directory in the file becomes an
    /// absolute `file:` URL.
    #[serde(deserialize_with = "parsed::storage_url")]
    pub url: Url,
}

/// The cold Parquet copy of the raw points.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ArchiveConfig {
    pub enabled: bool,
    /// Bytes of buffered points after which a file is written.
    #[serde(deserialize_with = "within::size::<MIB, { 4 * GIB }, _>")]
    pub roll_size: usize,
    /// Time after which a file is written, however small.
    #[serde(deserialize_with = "within::duration::<SECOND, DAY, _>")]
    pub roll_age: Duration,
    /// Time between passes of compaction in `ingest`; `None` leaves it to `tidemark compact`.
    #[serde(deserialize_with = "within::some_duration::<SECOND, { 7 * DAY }, _>")]
    pub compact_interval: Option<Duration>,
    /// How long an hour of event time must be over before its files are compacted.
    #[serde(deserialize_with = "within::duration::<0, { 3_650 * DAY }, _>")]
    pub compact_after: Duration,
}

/// The InfluxDB 2 server that takes the rollups.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InfluxConfig {
    #[serde(deserialize_with = "parsed::influx_url")]
    pub url: Url,
    #[serde(deserialize_with = "within::text")]
    pub org: String,
    /// Takes the finest tier of each rollup.
    #[serde(deserialize_with = "within::text")]
    pub bucket: String,
    #[serde(default)]
    pub token: SecretString,
    /// The file or the variable that the token is read from, in place of `token`.
    #[serde(default)]
    pub(super) token_file: Option<PathBuf>,
    #[serde(default)]
    pub(super) token_env: Option<String>,
    /// Create the buckets at start when they are missing.
    #[serde(default)]
    pub create_bucket: bool,
    /// Retention of a bucket created here; `None` keeps for ever.
    #[serde(default, deserialize_with = "within::some_duration::<HOUR, { 36_500 * DAY }, _>")]
    pub retention: Option<Duration>,
    /// By tier, those that the file has; see [`InfluxConfig::bucket_of`] for all.
    #[serde(default)]
    pub tiers: BTreeMap<String, TierConfig>,
    /// Lines of line protocol in one request.
    #[serde(default = "batch_lines", deserialize_with = "within::count::<1, 100_000, _, _>")]
    pub batch_lines: usize,
    /// Requests under way at once.
    #[serde(default = "in_flight", deserialize_with = "within::count::<1, 64, _, _>")]
    pub in_flight: usize,
    /// Time allowed for one request.
    #[serde(
        default = "influx_timeout",
        deserialize_with = "within::duration::<SECOND, { 600 * SECOND }, _>"
    )]
    pub timeout: Duration,
}

/// Where the alert rules are.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlertsFile {
    /// `None` runs without alerts.
    pub rules: Option<PathBuf>,
    /// Consumer group of the alerts topic.
    #[serde(deserialize_with = "within::text")]
    pub group: String,
}

/// The HTTP server for metrics, health and whatever a role adds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    #[serde(deserialize_with = "parsed::listen")]
    pub listen: SocketAddr,
    /// Names, in lower case, under which the server may be asked besides addresses and the
    /// machine's own names.
    #[serde(deserialize_with = "parsed::hosts")]
    pub allowed_hosts: Vec<String>,
    /// Where people reach the server, such as a proxy: links in notifications start with it, and its
    /// host is one of `allowed_hosts`. Ends in a slash.
    #[serde(deserialize_with = "parsed::external_url")]
    pub external_url: Option<Url>,
    /// Requests worked on at once; those beyond are refused, except those of probes.
    #[serde(deserialize_with = "within::count::<1, 65_536, _, _>")]
    pub max_connections: usize,
    /// Time allowed for each part of a request: its head, the work with its body, taking the
    /// answer.
    #[serde(deserialize_with = "within::duration::<100, { 600 * SECOND }, _>")]
    pub timeout: Duration,
}

impl Config {
    /// Every default, with the given brokers (`host:port,…`) and a local directory for the data:
    /// what the demo and tests run with.
    ///
    /// Creates nothing. A relative `storage` is taken from the working directory.
    pub fn local(brokers: &str, storage: &Path) -> Self {
        let mut config = Self::default();
        config.kafka.brokers = brokers.split(',').map(|broker| broker.trim().to_owned()).collect();
        config.storage.url = super::values::directory_url(storage);
        config
    }
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { budget: 1 << 30 }
    }
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            brokers: vec!["127.0.0.1:9092".to_owned()],
            written: BTreeMap::new(),
            properties: BTreeMap::new(),
        }
    }
}

/// Topics of the alerting side are called after that of the transitions.
impl TopicsConfig {
    /// The newest state of every alert.
    pub fn alert_states(&self) -> String {
        format!("{}-states", self.alerts)
    }

    /// What the alert manager remembers; as many partitions as `alerts`.
    pub fn alert_manager(&self) -> String {
        format!("{}-manager", self.alerts)
    }

    /// Silences and acknowledgements.
    pub fn alert_commands(&self) -> String {
        format!("{}-commands", self.alerts)
    }

    /// The ledger.
    pub fn alert_log(&self) -> String {
        format!("{}-log", self.alerts)
    }
}

impl Default for TopicsConfig {
    fn default() -> Self {
        Self {
            points: vec!["points".to_owned()],
            partials: "tidemark-partials".to_owned(),
            partials_partitions: 8,
            dead_letter: "tidemark-dead-letter".to_owned(),
            late: "tidemark-late".to_owned(),
            alerts: "tidemark-alerts".to_owned(),
            replication: 1,
        }
    }
}

impl Default for IngestConfig {
    fn default() -> Self {
        let texts = TextBounds::default();
        Self {
            group: "tidemark-ingest".to_owned(),
            format: PayloadFormat::Auto,
            epoch: Duration::from_secs(1),
            epoch_points: 2_000_000,
            max_message_bytes: 1 << 20,
            max_name_bytes: texts.name,
            max_label_key_bytes: texts.label_key,
            max_label_value_bytes: texts.label_value,
            max_out_of_orderness: Duration::from_secs(5),
            max_future_skew: Duration::from_secs(300),
            idle_timeout: Duration::from_secs(60),
            max_drift: Duration::from_secs(1_800),
            oldest: None,
        }
    }
}

impl Default for RollupConfig {
    fn default() -> Self {
        Self {
            sql: PathBuf::from("sql"),
            group: "tidemark-rollup".to_owned(),
            checkpoint_interval: Duration::from_secs(10),
            series_limit: 1_000_000,
        }
    }
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self { url: super::values::directory_url(Path::new("data")) }
    }
}

impl Default for ArchiveConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            roll_size: 64 << 20,
            roll_age: Duration::from_secs(300),
            compact_interval: None,
            compact_after: Duration::from_secs(2 * 3_600),
        }
    }
}

/// What InfluxDB recommends.
fn batch_lines() -> usize {
    5_000
}

fn in_flight() -> usize {
    4
}

fn influx_timeout() -> Duration {
    Duration::from_secs(30)
}

impl Default for AlertsFile {
    fn default() -> Self {
        Self { rules: None, group: "tidemark-notify".to_owned() }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7878)),
            allowed_hosts: Vec::new(),
            external_url: None,
            max_connections: 128,
            timeout: Duration::from_secs(10),
        }
    }
}
