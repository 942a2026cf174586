//! Trials on real servers: Apache Kafka, InfluxDB, an SMTP conversation, an HTTP receiver, DuckDB.
//!
//! Where a server cannot be had the trials count as ignored and say why; with
//! `TIDEMARK_REQUIRE_SERVERS` set they fail instead.

mod alerting;
mod alerts;
mod alerts_cli;
mod backtest;
mod bounds;
mod exactness;
mod influx_client;
mod ingest;
mod plans;
mod repair;
mod restart;
mod scale_out;
mod tiers;
mod why;

use std::env;
use std::sync::OnceLock;
use std::time::Duration;

use libtest_mimic::Trial;
use tidemark_tests::influx::Influx;
use tidemark_tests::kafka::Kafka;
use tidemark_tests::nab;
use tidemark_tests::oracle::{Rows, differences};
use tidemark_tests::provided::Unavailable;
use tidemark_tests::tidemark::Tidemark;

/// For one step of a trial on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

type Body = fn(&Servers);

/// What the trials share; topics, buckets and groups have names of their own in each.
pub(crate) struct Servers {
    pub(crate) kafka: &'static Kafka,
    pub(crate) influx: Influx,
}

impl Servers {
    fn start() -> Result<Self, Unavailable> {
        Ok(Self { kafka: Kafka::shared()?, influx: Influx::start()? })
    }
}

pub(crate) fn trials() -> Vec<Trial> {
    let on_nab = [
        exactness::trials(),
        tiers::trials(),
        scale_out::trials(),
        alerts::trials(),
        backtest::trials(),
        repair::trials(),
    ]
    .into_iter()
    .flatten();
    let no_recordings = nab::files().err();
    if let Some(reason) = &no_recordings {
        eprintln!("skipped: trials on the NAB recordings: {reason}");
    }
    let mut trials: Vec<Trial> = [
        restart::trials(),
        ingest::trials(),
        influx_client::trials(),
        bounds::trials(),
        plans::trials(),
        why::trials(),
        alerts_cli::trials(),
    ]
    .into_iter()
    .flatten()
    .map(|(name, body)| trial(&format!("real::{name}"), body))
    .collect();
    trials.extend(on_nab.map(|(name, body)| {
        trial(&format!("real::{name}"), body).with_ignored_flag(no_recordings.is_some() || servers_missing())
    }));
    trials.extend(alerting::trials());
    trials
}

/// A trial that is ignored where the servers cannot be had.
pub(crate) fn trial(name: &str, body: impl FnOnce(&Servers) + Send + 'static) -> Trial {
    let run = move || match servers() {
        Ok(servers) => {
            body(servers);
            Ok(())
        }
        Err(reason) => Err(reason.to_string().into()),
    };
    Trial::test(name, run).with_ignored_flag(servers_missing())
}

fn servers_missing() -> bool {
    servers().is_err() && env::var_os("TIDEMARK_REQUIRE_SERVERS").is_none()
}

/// Started when they are asked for first.
fn servers() -> Result<&'static Servers, &'static Unavailable> {
    static SERVERS: OnceLock<Result<Servers, Unavailable>> = OnceLock::new();
    let start = || {
        let servers = Servers::start();
        if let Err(reason) = &servers {
            eprintln!("skipped: trials on real servers: {reason}");
        }
        servers
    };
    SERVERS.get_or_init(start).as_ref()
}

/// One installation of Tidemark: names of its own for topics, groups and the bucket.
pub(crate) struct Deployment {
    pub(crate) id: String,
    pub(crate) points: String,
    config: String,
    /// The key that names the rules, or nothing.
    rules: String,
}

impl Deployment {
    /// `id` tells deployments apart; `points` may be shared with another one.
    pub(crate) fn new(servers: &Servers, id: &str, points: &str, partials_partitions: usize) -> Self {
        let id = format!("{id}-{}", std::process::id());
        let config = format!(
            r#"
[kafka]
brokers = "{brokers}"

[topics]
points = ["{points}"]
partials = "{id}-partials"
partials_partitions = {partials_partitions}
dead_letter = "{id}-dead-letter"
late = "{id}-late"
alerts = "{id}-alerts"

[ingest]
group = "{id}-ingest"
epoch = "200ms"
epoch_points = 1000
idle_timeout = "60s"

[rollup]
group = "{id}-rollup"
checkpoint_interval = "1s"

[influx]
url = "{influx}"
org = "{org}"
bucket = "{id}"
token = "{token}"
create_bucket = true
"#,
            brokers = servers.kafka.brokers(),
            influx = servers.influx.url(),
            org = servers.influx.org(),
            token = servers.influx.token(),
        );
        Self { id, points: points.to_owned(), config, rules: String::new() }
    }

    /// Rollups as Parquet. To be called before [`Deployment::with`].
    pub(crate) fn without_influx(mut self) -> Self {
        let section = self.config.find("[influx]").expect("it comes last");
        self.config.truncate(section);
        self
    }

    /// Another InfluxDB than the shared one, or a proxy in front of that.
    pub(crate) fn with_influx(mut self, servers: &Servers, url: &str) -> Self {
        self.config = self.config.replace(&servers.influx.url(), url);
        self
    }

    /// A section or key more.
    pub(crate) fn with(mut self, text: &str) -> Self {
        self.config.push_str(text);
        self
    }

    /// Rules and receivers in this file of the process's folder.
    pub(crate) fn with_rules(mut self, file: &str) -> Self {
        self.rules = format!("rules = \"{file}\"");
        self
    }

    /// A process of this deployment that shares storage with the others through `storage`.
    pub(crate) fn process(&self, storage: &str, sql: &[(&str, &str)]) -> Tidemark {
        let (config, id, rules) = (&self.config, &self.id, &self.rules);
        let config = format!(
            "{config}\n[storage]\nurl = \"{storage}\"\n\n[alerts]\ngroup = \"{id}-notify\"\n{rules}\n"
        );
        let tidemark = Tidemark::new(&config).expect("the program was built with the tests");
        for (name, text) in sql {
            tidemark.write(&format!("sql/{name}.sql"), text);
        }
        tidemark
    }

    /// Loads the NAB recordings, shuffled by up to three hours of event time, and closes the last
    /// windows.
    pub(crate) fn load_nab(&self, tidemark: &Tidemark) {
        let files = nab::files().unwrap();
        let mut arguments = vec!["load"];
        arguments.extend(files.iter().map(|file| file.to_str().unwrap()));
        arguments.extend(["--topic", &self.points, "--file-pattern", "(?<name>.+)_(?<instance>[^_]+)"]);
        arguments.extend(["--time-column", "timestamp", "--value-column", "value"]);
        arguments.extend(["--disorder", "3h", "--seed", "7", "--close"]);
        tidemark.call(&arguments);
    }
}

/// Asserts that two sets of rows are the same, floats to 1e-9 of their size.
pub(crate) fn assert_same(found: &Rows, expected: &Rows) {
    let differences = differences(found, expected);
    let shown = differences.iter().take(5).cloned().collect::<Vec<_>>().join("\n");
    assert!(differences.is_empty(), "{} differences, among them\n{shown}", differences.len());
}
