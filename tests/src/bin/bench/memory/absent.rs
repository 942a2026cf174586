//! Groups that report once and are remembered by a rule about missing data, while their windows can
//! be corrected for a day.

use tidemark_tests::Unavailable;
use tidemark_tests::input::{NEW_YEAR, heartbeats};
use tidemark_tests::kafka::{Kafka, Message};
use tidemark_tests::tidemark::{Tidemark, metric};

use super::{LIMIT, PARTITIONS, accounted, config, of_budget, produce};

const BUDGET: u64 = 512;
const GROUPS: usize = 100_000;
const MINUTE: i64 = 60_000_000_000;
/// Of event time, after the minute in which the groups report.
const MINUTES: i64 = 2_000;
/// Points of a message.
const LINES: usize = 100;

const ROLLUP: &str = "CREATE MATERIALIZED VIEW minutely WITH (allowed_lateness = '1 day') AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start, labels['host'] AS host, max(value) AS max
FROM points GROUP BY 1, 2
";

/// Silence is pending for longer than the input lasts: the states are kept, and nobody is notified.
const RULES: &str = "[[rule]]
name = \"silent\"
rollup = \"minutely\"
condition = \"max > 1000\"
missing_data = \"alert\"
for = \"7d\"
summary = \"{{ labels.host }} is silent\"
receivers = []
";

pub(super) fn measure(kafka: &Kafka) -> Result<(), Unavailable> {
    kafka.create_topic("absent", PARTITIONS);
    produce(kafka, "absent", points());
    let minutes = (1..=MINUTES).flat_map(|minute| heartbeats(NEW_YEAR + minute * MINUTE, PARTITIONS));
    kafka.produce("absent", minutes);

    let budget = format!("{BUDGET}MiB");
    // Small epochs: event time passes the windows in several steps.
    let config = config(kafka, "absent", &budget).replace("[rollup]", "epoch = \"100ms\"\n\n[rollup]")
        + "\n[alerts]\nrules = \"alerts.toml\"\n";
    let mut tidemark = Tidemark::new(&config)?;
    tidemark.write("sql/minutely.sql", ROLLUP);
    tidemark.write("alerts.toml", RULES);
    tidemark.call(&["topics", "create"]);
    tidemark.spawn(&["run", "--roles", "ingest,rollup"], &[]);
    let until = (NEW_YEAR + (MINUTES - 1) * MINUTE) as f64 / 1e9;
    let partitions: Vec<String> = (0..8).map(|partition: i32| partition.to_string()).collect();
    tidemark.wait_for_metrics(LIMIT, "event time to pass", |page| {
        for partition in &partitions {
            let labels = [("partition", partition.as_str())];
            let reached = metric(page, "tidemark_rollup_watermark_seconds", &labels).unwrap_or_default();
            if reached < until {
                return Err(format!("partition {partition} is at {reached} of {until}"));
            }
        }
        Ok(())
    });
    let made = tidemark.metric("tidemark_rollup_checkpoints_total", &[]).unwrap_or_default();
    tidemark.wait_for_metric(LIMIT, "tidemark_rollup_checkpoints_total", &[], made + 2.0);
    let value = |name: &str| tidemark.metric(name, &[]).unwrap_or_default();
    let (used, resident) = accounted(&tidemark);
    println!(
        "\n{GROUPS} groups without rows for {MINUTES} minutes, a day of lateness, a rule about missing data\n  {}; now \
         {resident} MiB, accounted {used} MiB; {:.2} s for a checkpoint on average",
        of_budget(tidemark.id(), BUDGET),
        value("tidemark_rollup_checkpoint_seconds_sum") / value("tidemark_rollup_checkpoint_seconds_count"),
    );
    tidemark.kill9();
    Ok(())
}

fn points() -> impl Iterator<Item = Message> {
    (0..GROUPS / LINES).map(|message| {
        let hosts = message * LINES..(message + 1) * LINES;
        let text: Vec<String> =
            hosts.map(|host| format!("load,host=host-{host:06} value=1 {NEW_YEAR}")).collect();
        Message::new(i32::try_from(message % PARTITIONS).unwrap(), text.join("\n"))
    })
}
