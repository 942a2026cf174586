//! Configuration: `config/pipeline.toml` and `config/alerts.toml`, turned into checked values.
//!
//! The sections of `pipeline.toml` are deserialized as they are used, with the bounds of each
//! option; those of `alerts.toml` refer to one another, so raw structs mirror that file, and
//! nothing later sees one. Whatever is wrong is reported as one [`ConfigError`] that names file, line, column and what
//! to write instead. Relative paths are relative to the working directory.

mod alerts;
mod check;
mod checked;
mod environment;
mod error;
mod located;
mod notation;
mod parsed;
pub(crate) mod properties;
mod receivers;
mod routes;
mod rule_tests;
mod rules;
mod secret;
mod settings;
mod silences;
mod source;
mod tiers;
mod unread;
mod values;
mod within;

pub use alerts::{AlertsConfig, BehindConfig};
pub use checked::{
    AlertsFile, ArchiveConfig, Config, DEFAULT_PATH, HttpConfig, InfluxConfig, IngestConfig, KafkaConfig,
    LEAST_BUDGET, MemoryConfig, PayloadFormat, RollupConfig, StorageConfig, TopicsConfig,
};
pub use environment::Environment;
pub use error::ConfigError;
pub use located::Located;
pub(crate) use receivers::build;
pub use receivers::{
    AlertmanagerConfig, EmailConfig, ReceiverConfig, ReceiverKind, SlackConfig, SmtpTls, WebhookConfig,
};
pub use rule_tests::{Act, ExpectedAlerts, ExpectedNotification, NamedAlert, RuleTest, RuleTests, TestPoint};
pub use rules::{RuleConfig, WatchesConfig};
pub use silences::load_silences;
pub(crate) use source::suggest;
pub use tiers::TierConfig;

#[cfg(test)]
mod alerts_tests;
#[cfg(test)]
mod leak_tests;
#[cfg(test)]
mod routes_tests;
#[cfg(test)]
mod tests;
