//! How long an epoch takes when nearly all source partitions are silent: whether each was read to
//! its end is asked of the broker in every epoch.

use std::time::{Duration, Instant};

use tidemark_tests::Unavailable;
use tidemark_tests::input::{NEW_YEAR, heartbeats};
use tidemark_tests::kafka::Kafka;
use tidemark_tests::tidemark::Tidemark;

use crate::machine;

/// Partitions of the source topic.
const CASES: [usize; 2] = [4, 1_000];
/// Epochs are counted for so long, once all partitions are idle.
const LENGTH: Duration = Duration::from_secs(30);
/// For one step.
const LIMIT: Duration = Duration::from_secs(300);

const ROLLUP: &str = "CREATE MATERIALIZED VIEW silent AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start, count(*) AS points FROM points GROUP BY 1
";

/// Prints a line for each number of partitions.
pub(crate) fn run() -> Result<(), Unavailable> {
    println!("{}", Tidemark::new("")?.call(&["--version"]).trim());
    let kafka = Kafka::start()?;
    for (name, value) in machine::describe() {
        println!("{name}: {value}");
    }
    println!();
    for partitions in CASES {
        measure(&kafka, partitions)?;
    }
    Ok(())
}

fn measure(kafka: &Kafka, partitions: usize) -> Result<(), Unavailable> {
    let topic = format!("silent-{partitions}");
    kafka.create_topic(&topic, partitions);
    kafka.produce(&topic, heartbeats(NEW_YEAR, partitions));
    let brokers = kafka.brokers();
    let mut tidemark = Tidemark::new(&format!(
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
idle_timeout = "1s"

[rollup]
group = "{topic}-rollup"
"#
    ))?;
    tidemark.write("sql/silent.sql", ROLLUP);
    tidemark.call(&["topics", "create"]);
    tidemark.run("ingest,rollup");
    let heartbeats = partitions as f64;
    tidemark.wait_for_metric(LIMIT, "tidemark_ingest_heartbeats_total", &[], heartbeats);
    // Event time passes the heartbeats only when all partitions are idle.
    let idle = (NEW_YEAR + 1_000_000_000) as f64 / 1e9;
    tidemark.wait_for_metric(LIMIT, "tidemark_rollup_watermark_seconds", &[("partition", "0")], idle);
    let epochs =
        |tidemark: &Tidemark| tidemark.metric("tidemark_ingest_epochs_total", &[]).unwrap_or_default();
    let (before, started) = (epochs(&tidemark), Instant::now());
    let cpu = machine::cpu_seconds(tidemark.id());
    std::thread::park_timeout(LENGTH);
    let (count, took) = (epochs(&tidemark) - before, started.elapsed().as_secs_f64());
    println!(
        "{partitions} silent partitions: {:.2} epochs a second (configured: 1), {:.0} % of a core",
        count / took,
        (machine::cpu_seconds(tidemark.id()) - cpu) / took * 100.0,
    );
    tidemark.kill9();
    Ok(())
}
