//! One installation: names of its own for topics, groups, bucket and storage, and the processes that share them.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::workload::ROLLUPS;
use crate::influx::Influx;
use crate::kafka::Kafka;
use crate::tidemark::Tidemark;

pub(super) const PARTIALS: usize = 4;
/// Partitions of the dead-letter topic, as `topics create` makes it: as many as the source topic has.
pub(super) const DEAD_LETTERS: usize = super::workload::PARTITIONS;

/// Less than brokers take by default, so that larger ones can be sent.
pub(super) const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// What a round's configuration has otherwise than the others.
#[derive(Debug, Default)]
pub(super) struct Options {
    /// Instead of the address of InfluxDB: a proxy.
    pub(super) influx_url: Option<String>,
    /// Instead of a directory of the site's own.
    pub(super) storage: Option<String>,
    /// Silence after which a partition that was read to its end is idle.
    pub(super) idle_timeout: Option<&'static str>,
    /// Points after which an epoch ends early.
    pub(super) epoch_points: Option<usize>,
    pub(super) environment: Vec<(String, String)>,
}

#[derive(Debug)]
pub(super) struct Site {
    pub(super) id: String,
    pub(super) topic: String,
    pub(super) members: Vec<Tidemark>,
    config: String,
    environment: Vec<(String, String)>,
    storage: TempDir,
}

impl Site {
    pub(super) fn new(kafka: &Kafka, influx: &Influx, drill: &str, topic: String, options: &Options) -> Self {
        // The topic's name is unique in this process, and other processes may use other servers only.
        let id = format!("{topic}-{}", std::process::id());
        let storage = tempfile::Builder::new().prefix(&format!("tidemark-{drill}-")).tempdir().unwrap();
        let own = storage.path().join("data").display().to_string();
        let config = format!(
            r#"
[kafka]
brokers = "{brokers}"

# A member that is gone or frozen is given up soon, and so is its transaction.
[kafka.properties]
"session.timeout.ms" = 6000
"heartbeat.interval.ms" = 1000
"transaction.timeout.ms" = 10000

[topics]
points = ["{topic}"]
partials = "{id}-partials"
partials_partitions = {PARTIALS}
dead_letter = "{id}-dead-letter"
late = "{id}-late"
alerts = "{id}-alerts"

[ingest]
group = "{id}-ingest"
epoch = "200ms"
epoch_points = {epoch_points}
idle_timeout = "{idle_timeout}"
max_message_bytes = {MAX_MESSAGE_BYTES}

[rollup]
group = "{id}-rollup"
checkpoint_interval = "500ms"

[storage]
url = "{storage}"

[archive]
roll_age = "1s"

[alerts]
group = "{id}-notify"

[influx]
url = "{influx}"
org = "{org}"
bucket = "{id}"
token = "{token}"
create_bucket = true
timeout = "5s"
"#,
            brokers = kafka.brokers(),
            // An hour is for ever here.
            idle_timeout = options.idle_timeout.unwrap_or("1h"),
            epoch_points = options.epoch_points.unwrap_or(1_000),
            storage = options.storage.as_ref().unwrap_or(&own),
            influx = options.influx_url.clone().unwrap_or_else(|| influx.url()),
            org = influx.org(),
            token = influx.token(),
        );
        let mut site = Self {
            id,
            topic,
            members: Vec::new(),
            config,
            environment: options.environment.clone(),
            storage,
        };
        let first = site.add();
        site.members[first].call(&["topics", "create"]);
        site
    }

    /// One more member, not started yet.
    pub(super) fn add(&mut self) -> usize {
        let tidemark = Tidemark::new(&self.config).expect("the program was built with the tests");
        for (name, sql) in ROLLUPS {
            tidemark.write(&format!("sql/{name}.sql"), sql);
        }
        self.members.push(tidemark);
        self.members.len() - 1
    }

    pub(super) fn spawn(&mut self, member: usize) {
        let environment: Vec<(&str, &str)> =
            self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.members[member].spawn(&["run", "--roles", "ingest,rollup"], &environment);
    }

    /// The directory of the site, in which the storage is unless the options say otherwise.
    pub(super) fn directory(&self) -> &Path {
        self.storage.path()
    }

    pub(super) fn data(&self) -> PathBuf {
        self.directory().join("data")
    }

    pub(super) fn group(&self, role: &str) -> String {
        format!("{}-{role}", self.id)
    }

    pub(super) fn topic_of(&self, what: &str) -> String {
        format!("{}-{what}", self.id)
    }
}
