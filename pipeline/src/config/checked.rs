//! The checked configuration of the pipeline: what the rest of the program sees.
//!
//! Defaults live in the `Default` implementations here and nowhere else; `config/pipeline.toml`
//! documents them, and a test holds the two together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use operators::watermark::WatermarkOptions;
pub use points::decode::Format as PayloadFormat;
use points::decode::TextBounds;
use secrecy::SecretString;
use url::Url;

use super::tiers::TierConfig;
use crate::time::nanoseconds;

/// Where the program looks for its configuration when no path is given, relative to the working
/// directory.
pub const DEFAULT_PATH: &str = "config/pipeline.toml";

/// Everything `config/pipeline.toml` decides, checked.
#[derive(Debug, Clone, Default)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryConfig {
    /// Bytes that the roles of a process keep within, together.
    pub budget: usize,
}

/// How to reach the brokers.
#[derive(Debug, Clone)]
pub struct KafkaConfig {
    /// `host:port` of at least one broker.
    pub brokers: Vec<String>,
    /// Passed to every librdkafka client as they are. Secret, because `sasl.password` is one of
    /// them.
    pub properties: BTreeMap<String, SecretString>,
}

/// Names and shapes of the topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicsConfig {
    /// Source topics of raw points, at least one.
    pub points: Vec<String>,
    pub partials: String,
    /// Partitions of `partials`. Fixed at creation: group keys are hashed over it.
    pub partials_partitions: i32,
    pub dead_letter: String,
    pub late: String,
    pub alerts: String,
    /// Replicas of the topics that `tidemark topics create` makes.
    pub replication: i32,
}

/// Reading, decoding, partial aggregation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestConfig {
    /// Consumer group of the source topics.
    pub group: String,
    pub format: PayloadFormat,
    /// How long points are aggregated before their partial states are sent in one transaction.
    pub epoch: Duration,
    /// Points after which an epoch ends early, if the memory budget has not ended it before.
    pub epoch_points: usize,
    /// Messages above this many bytes are dead-lettered unread.
    pub max_message_bytes: usize,
    /// The longest names and labels of points; with longer ones they are dead-lettered.
    pub texts: TextBounds,
    /// How far behind the highest event time of its partition a point may arrive and still be on
    /// time.
    pub max_out_of_orderness: Duration,
    /// How far ahead of the wall clock an event time may be before the point is quarantined.
    pub max_future_skew: Duration,
    /// Silence, at the end of the log, after which a partition no longer holds the watermark back.
    pub idle_timeout: Duration,
    /// How far a partition's event time may be ahead of the slowest one with unread messages before
    /// it is paused.
    pub max_drift: Duration,
    /// Age of event time beyond which points are dead-lettered; `None` accepts any age.
    pub oldest: Option<Duration>,
}

/// Facts of `ingest` older than this, in epochs, do not count for idleness any more.
const OWNER_EPOCHS: u32 = 10;
const LEAST_OWNER_TIMEOUT: Duration = Duration::from_secs(10);

impl IngestConfig {
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollupConfig {
    /// Directory of the rollups, one `.sql` file each.
    pub sql: PathBuf,
    /// Consumer group of the partials topic.
    pub group: String,
    /// Time between snapshots of the state.
    pub checkpoint_interval: Duration,
    /// Groups of a rollup in one window, beyond which points go to its overflow group.
    pub series_limit: usize,
}

/// Root of `raw/`, `rollups/`, `state/` and `alerts/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageConfig {
    /// `file:`, `s3:`, `gs:` or `az:`, always ending in a slash. A directory in the file becomes an
    /// absolute `file:` URL.
    pub url: Url,
}

/// The cold Parquet copy of the raw points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveConfig {
    pub enabled: bool,
    /// Bytes of buffered points after which a file is written.
    pub roll_size: usize,
    /// Time after which a file is written, however small.
    pub roll_age: Duration,
    /// Time between passes of compaction in `ingest`; `None` leaves it to `tidemark compact`.
    pub compact_interval: Option<Duration>,
    /// How long an hour of event time must be over before its files are compacted.
    pub compact_after: Duration,
}

/// The InfluxDB 2 server that takes the rollups.
#[derive(Debug, Clone)]
pub struct InfluxConfig {
    pub url: Url,
    pub org: String,
    /// Takes the finest tier of each rollup.
    pub bucket: String,
    pub token: SecretString,
    /// Create the buckets at start when they are missing.
    pub create_bucket: bool,
    /// Retention of a bucket created here; `None` keeps for ever.
    pub retention: Option<Duration>,
    /// By tier, those that the file has; see [`InfluxConfig::bucket_of`] for all.
    pub tiers: BTreeMap<String, TierConfig>,
    /// Lines of line protocol in one request.
    pub batch_lines: usize,
    /// Requests under way at once.
    pub in_flight: usize,
    /// Time allowed for one request.
    pub timeout: Duration,
}

/// Where the alert rules are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertsFile {
    /// `None` runs without alerts.
    pub rules: Option<PathBuf>,
    /// Consumer group of the alerts topic.
    pub group: String,
}

/// The HTTP server for metrics, health and whatever a role adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    pub listen: SocketAddr,
    /// Names, in lower case, under which the server may be asked besides addresses and the
    /// machine's own names.
    pub allowed_hosts: Vec<String>,
    /// Requests worked on at once; those beyond are refused, except those of probes.
    pub max_connections: usize,
    /// Time allowed for each part of a request: its head, the work with its body, taking the
    /// answer.
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
        Self { brokers: vec!["127.0.0.1:9092".to_owned()], properties: BTreeMap::new() }
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
        Self {
            group: "tidemark-ingest".to_owned(),
            format: PayloadFormat::Auto,
            epoch: Duration::from_secs(1),
            epoch_points: 2_000_000,
            max_message_bytes: 1 << 20,
            texts: TextBounds::default(),
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
            max_connections: 128,
            timeout: Duration::from_secs(10),
        }
    }
}
