//! One installation: names of its own for topics, groups, bucket and storage, and the processes
//! that share them.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use tempfile::TempDir;

use super::workload::ROLLUPS;
use crate::influx::Influx;
use crate::kafka::Kafka;
use crate::tidemark::Tidemark;
use crate::wait::wait_until;

/// For one step on a busy machine: transactions of a killed process stay open for a minute, and its
/// partitions are taken over after that.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

pub(super) const PARTIALS: usize = 4;
/// Partitions of the dead-letter topic, as `topics create` makes it: as many as the source topic
/// has.
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
    /// Instead of the rollups of every round: one of its own, and the rules over it.
    pub(super) alerting: Option<Alerting>,
    pub(super) environment: Vec<(String, String)>,
    /// Whether the members' clocks can be set, see [`Site::set_clock`].
    pub(super) has_clocks: bool,
}

/// A rollup by its name, and the text of the alerts file.
#[derive(Debug, Clone)]
pub(super) struct Alerting {
    pub(super) rollup: (&'static str, &'static str),
    pub(super) rules: String,
}

#[derive(Debug)]
pub(super) struct Site {
    pub(super) id: String,
    pub(super) topic: String,
    pub(super) members: Vec<Tidemark>,
    /// Counted by the drill: kills, joins, refused requests.
    pub(super) faults: usize,
    drill: &'static str,
    seed: u64,
    config: String,
    /// Each member has its own copies.
    files: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    has_clocks: bool,
    storage: TempDir,
}

impl Site {
    pub(super) fn new(
        kafka: &Kafka,
        influx: &Influx,
        (drill, seed): (&'static str, u64),
        topic: String,
        options: &Options,
    ) -> Self {
        // The topic's name is unique in this process, and other processes may use other servers
        // only.
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
{rules}

[influx]
url = "{influx}"
org = "{org}"
bucket = "{id}"
token = "{token}"
create_bucket = true
timeout = "5s"
"#,
            brokers = kafka.brokers(),
            rules = options.alerting.as_ref().map_or("", |_| "rules = \"alerts.toml\""),
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
            faults: 0,
            drill,
            seed,
            config,
            files: files(options.alerting.as_ref()),
            environment: options.environment.clone(),
            has_clocks: options.has_clocks,
            storage,
        };
        let first = site.add();
        site.members[first].call(&["topics", "create"]);
        site
    }

    /// One more member, not started yet.
    pub(super) fn add(&mut self) -> usize {
        let tidemark = Tidemark::new(&self.config).expect("the program was built with the tests");
        for (path, text) in &self.files {
            tidemark.write(path, text);
        }
        self.members.push(tidemark);
        self.members.len() - 1
    }

    pub(super) fn spawn(&mut self, member: usize) {
        self.spawn_as(member, "ingest,rollup");
    }

    pub(super) fn spawn_as(&mut self, member: usize, roles: &str) {
        let mut environment: Vec<(&str, &str)> =
            self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let clock = self.clock(member).display().to_string();
        if self.has_clocks {
            environment.push(("TIDEMARK_TEST_CLOCK", &clock));
        }
        self.members[member].spawn(&["run", "--roles", roles], &environment);
    }

    fn clock(&self, member: usize) -> PathBuf {
        self.directory().join(format!("clock-{member}"))
    }

    /// Sets a member's wall clock, running or not yet, this many milliseconds ahead of the
    /// machine's.
    pub(super) fn set_clock(&self, member: usize, ahead: i64) {
        std::fs::write(self.clock(member), ahead.to_string()).unwrap();
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

    /// A random member that runs, among these.
    pub(super) fn any_of(&self, random: &mut StdRng, members: impl IntoIterator<Item = usize>) -> usize {
        let running: Vec<usize> =
            members.into_iter().filter(|member| self.members[*member].is_started()).collect();
        running[random.random_range(0..running.len())]
    }

    /// Waits for `probe`.
    ///
    /// # Panics
    /// When the time is over, or a member ends by itself: with the end of the members' logs.
    pub(super) fn wait<T>(&mut self, what: &str, mut probe: impl FnMut(&Self) -> Result<T, String>) -> T {
        wait_until(PATIENCE, what, || {
            self.check_running(what);
            probe(self).map_err(|seen| format!("{seen}\n{}", self.label()))
        })
    }

    /// # Panics
    /// When a member has ended by itself.
    pub(super) fn check_running(&mut self, before: &str) {
        for position in 0..self.members.len() {
            if let Some(status) = self.members[position].ended() {
                self.fail(&format!("member {position} ended by itself ({status}) before {before}"));
            }
        }
    }

    /// Asks a member to end, and waits until it has; says how long that took. Before it answers, a
    /// signal would end it as any program.
    pub(super) fn terminate(&mut self, member: usize) -> Duration {
        self.wait("a member to answer", |site| site.members[member].metrics());
        let asked = Instant::now();
        let status = self.members[member].terminate();
        self.check_end(member, status);
        self.members[member].kill9();
        asked.elapsed()
    }

    fn check_end(&self, member: usize, status: ExitStatus) {
        if !status.success() {
            self.fail(&format!("member {member} was asked to end, and did with {status}"));
        }
    }

    /// What every message of a failure ends with.
    pub(super) fn label(&self) -> String {
        format!("drill `{}`, seed {}, {} faults so far", self.drill, self.seed, self.faults)
    }

    pub(super) fn fail(&self, what: &str) -> ! {
        let place = self.keep_logs();
        panic!("{what}; {}, logs in {}", self.label(), place.display());
    }

    /// Copies the logs of the members to where they outlive the round.
    pub(super) fn keep_logs(&self) -> PathBuf {
        let place = std::env::temp_dir().join(format!("tidemark-drill-{}-{}", self.drill, self.seed));
        std::fs::create_dir_all(&place).unwrap();
        for (position, member) in self.members.iter().enumerate() {
            std::fs::write(place.join(format!("member-{position}.log")), member.log_text()).unwrap();
        }
        place
    }
}

/// A round that fails leaves what its members said.
impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep_logs();
        }
    }
}

/// What each member is given besides its configuration.
fn files(alerting: Option<&Alerting>) -> Vec<(String, String)> {
    let sql = |(name, sql): (&str, &str)| (format!("sql/{name}.sql"), sql.to_owned());
    match alerting {
        None => ROLLUPS.map(sql).into(),
        Some(alerting) => vec![sql(alerting.rollup), ("alerts.toml".to_owned(), alerting.rules.clone())],
    }
}
