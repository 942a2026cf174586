//! A late point in every epoch, each for a window that has closed and is still corrected: what is
//! kept of an epoch for such a window must be the point, and not the epoch.

use tidemark_tests::Unavailable;
use tidemark_tests::input::{NEW_YEAR, heartbeats};
use tidemark_tests::kafka::{Kafka, Message};
use tidemark_tests::tidemark::{Tidemark, metric};

use super::{DAY, LIMIT, PARTITIONS, accounted, config, of_budget, produce};
use crate::load::bar;

const BUDGET: u64 = 512;
const HOSTS: usize = 80_000;
const EPOCHS: usize = 330;
const SECOND: i64 = 1_000_000_000;
const HOUR: i64 = 3_600 * SECOND;
/// Points of a message.
const LINES: usize = 100;

const ROLLUP: &str = "CREATE MATERIALIZED VIEW hourly WITH (allowed_lateness = '400 hours') AS
SELECT tumble(time, INTERVAL '1 hour') AS window_start, labels['host'] AS host,
       count(*) AS points, avg(value) AS avg, max(value) AS max, min(value) AS min
FROM points GROUP BY 1, 2
";

pub(super) fn measure(kafka: &Kafka) -> Result<(), Unavailable> {
    let count = (HOSTS + 1) * EPOCHS;
    kafka.create_topic("late", PARTITIONS);
    let writing = bar(count, "writing late points");
    for epoch in 0..EPOCHS {
        produce(kafka, "late", points(epoch));
        writing.inc(HOSTS as u64 + 1);
    }
    writing.finish_and_clear();
    kafka.produce("late", heartbeats(NEW_YEAR + DAY, PARTITIONS));

    let budget = format!("{BUDGET}MiB");
    // As many epochs as late points, however fast they are read.
    let epochs = format!("epoch_points = {}\n", HOSTS + 1);
    let config = config(kafka, "late", &budget).replace("[rollup]", &format!("{epochs}\n[rollup]"));
    let mut tidemark = Tidemark::new(&config)?;
    tidemark.write("sql/hourly.sql", ROLLUP);
    tidemark.call(&["topics", "create"]);
    tidemark.spawn(&["run", "--roles", "ingest,rollup"], &[]);
    let reading = bar(count, "reading late points");
    tidemark.wait_for_metrics(LIMIT, "all points to be merged", |page| {
        let merged = metric(page, "tidemark_rollup_points_total", &[]).unwrap_or_default();
        reading.set_position(merged as u64);
        if merged >= count as f64 { Ok(()) } else { Err(format!("{merged} points")) }
    });
    reading.finish_and_clear();
    let value = |name: &str| tidemark.metric(name, &[]).unwrap_or_default();
    let (used, resident) = accounted(&tidemark);
    println!(
        "\na late point in each of {} epochs of {HOSTS} groups\n  {}; now {resident} MiB, accounted {used} MiB; {} rows of \
         state, {} corrected",
        value("tidemark_ingest_epochs_total"),
        of_budget(tidemark.id(), BUDGET),
        value("tidemark_rollup_state_rows"),
        value("tidemark_rollup_corrected_rows_total"),
    );
    tidemark.kill9();
    Ok(())
}

/// One point of each host in the newest hour, and one of the first host in an hour of its own.
fn points(epoch: usize) -> impl Iterator<Item = Message> {
    let (step, hours) = (i64::try_from(epoch).unwrap() * SECOND, i64::try_from(epoch).unwrap() + 1);
    let on_time = (0..HOSTS / LINES).map(move |message| {
        let hosts = message * LINES..(message + 1) * LINES;
        let line = |host: usize| format!("load,host=host-{host:05} value={} {}", host % 100, NEW_YEAR + step);
        let text: Vec<String> = hosts.map(line).collect();
        Message::new(i32::try_from(message % PARTITIONS).unwrap(), text.join("\n"))
    });
    let late = format!("load,host=host-00000 value=1 {}", NEW_YEAR - hours * HOUR);
    on_time.chain(std::iter::once(Message::new(0, late)))
}
