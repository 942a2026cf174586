//! What the program holds when there is too much of everything. Each figure is of a process of its
//! own, `ingest` and `rollup` together.
//!
//! - `outage`: a backlog that nobody takes the results of
//! - `overflow`: series beyond the limit, and a large state to come back from
//! - `late`: a late point in every epoch, each for another window
//! - `absent`: groups that alert rules remember for a day after their last row
//! - `corrections`: a steady share of late points, each a correction in InfluxDB

mod absent;
mod corrections;
mod late;
mod outage;
mod overflow;

use std::time::Duration;

use tidemark_tests::Unavailable;
use tidemark_tests::influx::Influx;
use tidemark_tests::kafka::{Kafka, Message};
use tidemark_tests::tidemark::Tidemark;

use crate::attempt::Attempts;
use crate::machine;

const PARTITIONS: usize = 4;
/// Of event time, after the last point.
const DAY: i64 = 86_400_000_000_000;
/// For one step. A hundredth of the expected rate is a failure, and not something to wait for.
const LIMIT: Duration = Duration::from_secs(1_800);
/// Points that are made at once.
const CHUNK: usize = 1_000_000;

const BY_HOST: &str = "CREATE MATERIALIZED VIEW by_host AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start, labels['host'] AS host, labels['region'] AS region,
       count(*) AS points, avg(value) AS avg, max(value) AS max, min(value) AS min
FROM points WHERE name = 'cpu.load' GROUP BY 1, 2, 3
";

/// Prints the figures as they come, and returns what could not be measured.
pub(crate) fn run(backlog: usize, series: usize) -> Result<Attempts, Unavailable> {
    // Before the broker and the input, which take minutes.
    println!("{}", Tidemark::new("")?.call(&["--version"]).trim());
    let influx = Influx::start()?;
    let kafka = Kafka::start()?;
    for (name, value) in machine::describe() {
        println!("{name}: {value}");
    }
    let mut attempts = Attempts::default();
    attempts.make("backlog, InfluxDB down", || outage::measure(&kafka, &influx, backlog));
    attempts.make("series beyond the limit", || overflow::measure(&kafka, series));
    attempts.make("a late point in every epoch", || late::measure(&kafka));
    attempts.make("groups without rows", || absent::measure(&kafka));
    attempts.make("corrections", || corrections::measure(&kafka, &influx));
    Ok(attempts)
}

fn produce(kafka: &Kafka, topic: &str, messages: impl Iterator<Item = Message>) {
    let properties =
        [("compression.type", "lz4"), ("linger.ms", "50"), ("batch.size", "500000"), ("acks", "1")];
    kafka.produce_with(&properties, topic, messages);
}

/// Mebibytes that the parts account for, and that are resident.
fn accounted(tidemark: &Tidemark) -> (u64, u64) {
    let of = |name: &str| tidemark.metric(name, &[]).unwrap_or_default() as u64 >> 20;
    (of("tidemark_memory_used_bytes"), of("tidemark_memory_resident_bytes"))
}

fn mebibytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| (bytes >> 20).to_string())
}

/// `peak resident 365 MiB of 512`, and whether that is within the budget and a fifth.
fn of_budget(process: u32, budget: u64) -> String {
    let Some(peak) = machine::peak_bytes(process).map(|bytes| bytes >> 20) else {
        return "peak resident unknown".to_owned();
    };
    let verdict = if peak * 5 <= budget * 6 { "within" } else { "BEYOND" };
    format!("peak resident {peak} MiB, {verdict} the budget of {budget} MiB and a fifth")
}

fn config(kafka: &Kafka, topic: &str, budget: &str) -> String {
    let brokers = kafka.brokers();
    format!(
        r#"
[kafka]
brokers = ["{brokers}"]

[topics]
points = ["{topic}"]
partials = "{topic}-partials"
dead_letter = "{topic}-dead-letter"
late = "{topic}-late"
alerts = "{topic}-alerts"

[ingest]
group = "{topic}-ingest"

[rollup]
group = "{topic}-rollup"

[memory]
budget = "{budget}"
"#
    )
}

fn influx_section(influx: &Influx) -> String {
    let (url, org, bucket, token) = (influx.url(), influx.org(), influx.bucket(), influx.token());
    format!("\n[influx]\nurl = \"{url}\"\norg = \"{org}\"\nbucket = \"{bucket}\"\ntoken = \"{token}\"\n")
}
