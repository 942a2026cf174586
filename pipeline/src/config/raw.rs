//! `config/pipeline.toml` as it is written: every key optional, unknown keys refused.

use std::collections::BTreeMap;
use std::path::PathBuf;

use secrecy::SecretString;
use serde::Deserialize;
use toml::Spanned;

use super::secret::PropertyValue;
use super::tiers::RawTier;
use super::values::{ByteSize, HumanDuration, TextList};

/// A key that may be left out, and where it stands if it is not.
pub(super) type Setting<T> = Option<Spanned<T>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
    #[serde(default)]
    pub(super) kafka: RawKafka,
    #[serde(default)]
    pub(super) topics: RawTopics,
    #[serde(default)]
    pub(super) ingest: RawIngest,
    #[serde(default)]
    pub(super) rollup: RawRollup,
    #[serde(default)]
    pub(super) storage: RawStorage,
    #[serde(default)]
    pub(super) archive: RawArchive,
    pub(super) influx: Option<Spanned<RawInflux>>,
    #[serde(default)]
    pub(super) alerts: RawAlertsFile,
    #[serde(default)]
    pub(super) http: RawHttp,
    #[serde(default)]
    pub(super) memory: RawMemory,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMemory {
    pub(super) budget: Setting<ByteSize>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKafka {
    pub(super) brokers: Setting<TextList>,
    #[serde(default)]
    pub(super) properties: BTreeMap<String, Spanned<PropertyValue>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTopics {
    pub(super) points: Setting<TextList>,
    pub(super) partials: Setting<String>,
    pub(super) partials_partitions: Setting<u64>,
    pub(super) dead_letter: Setting<String>,
    pub(super) late: Setting<String>,
    pub(super) alerts: Setting<String>,
    pub(super) replication: Setting<u64>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawIngest {
    pub(super) group: Setting<String>,
    pub(super) format: Setting<String>,
    pub(super) epoch: Setting<HumanDuration>,
    pub(super) epoch_points: Setting<u64>,
    pub(super) max_message_bytes: Setting<ByteSize>,
    pub(super) max_name_bytes: Setting<ByteSize>,
    pub(super) max_label_key_bytes: Setting<ByteSize>,
    pub(super) max_label_value_bytes: Setting<ByteSize>,
    pub(super) max_out_of_orderness: Setting<HumanDuration>,
    pub(super) max_future_skew: Setting<HumanDuration>,
    pub(super) idle_timeout: Setting<HumanDuration>,
    pub(super) max_drift: Setting<HumanDuration>,
    pub(super) oldest: Setting<HumanDuration>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRollup {
    pub(super) sql: Setting<PathBuf>,
    pub(super) group: Setting<String>,
    pub(super) checkpoint_interval: Setting<HumanDuration>,
    pub(super) series_limit: Setting<u64>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStorage {
    pub(super) url: Setting<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawArchive {
    pub(super) enabled: Setting<bool>,
    pub(super) roll_size: Setting<ByteSize>,
    pub(super) roll_age: Setting<HumanDuration>,
    pub(super) compact_interval: Setting<HumanDuration>,
    pub(super) compact_after: Setting<HumanDuration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawInflux {
    pub(super) url: Setting<String>,
    pub(super) org: Setting<String>,
    pub(super) bucket: Setting<String>,
    pub(super) token: Setting<SecretString>,
    pub(super) token_file: Setting<PathBuf>,
    pub(super) token_env: Setting<String>,
    pub(super) create_bucket: Setting<bool>,
    pub(super) retention: Setting<HumanDuration>,
    #[serde(default)]
    pub(super) tiers: BTreeMap<String, Spanned<RawTier>>,
    pub(super) batch_lines: Setting<u64>,
    pub(super) in_flight: Setting<u64>,
    pub(super) timeout: Setting<HumanDuration>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAlertsFile {
    pub(super) rules: Setting<PathBuf>,
    pub(super) group: Setting<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHttp {
    pub(super) listen: Setting<String>,
    pub(super) allowed_hosts: Setting<TextList>,
    pub(super) max_connections: Setting<u64>,
    pub(super) timeout: Setting<HumanDuration>,
}
