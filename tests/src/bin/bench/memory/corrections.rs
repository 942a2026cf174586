//! Late points at a steady share, each a correction in a real InfluxDB, of rows that lack a field:
//! does the program fall behind, and what does it hold meanwhile?

use std::time::{Duration, Instant};

use tidemark_tests::Unavailable;
use tidemark_tests::influx::Influx;
use tidemark_tests::input::{NEW_YEAR, heartbeats};
use tidemark_tests::kafka::{Kafka, Message};
use tidemark_tests::offsets::Offsets;
use tidemark_tests::tidemark::{Tidemark, metric};

use super::{LIMIT, PARTITIONS, accounted, config, influx_section, of_budget, produce};
use crate::load::bar;

const BUDGET: u64 = 512;
/// Each reports every second, and its windows last a second: so many rows a second.
const GROUPS: usize = 10_000;
const SECONDS: usize = 120;
/// Of a hundred points, so many come late, by this many seconds.
const LATE: usize = 3;
const BEHIND: i64 = 20;
const SECOND: i64 = 1_000_000_000;
/// Points of a message.
const LINES: usize = 100;
/// Partitions of the internal topic.
const PARTIALS: usize = 8;

const ROLLUP: &str = "CREATE MATERIALIZED VIEW secondly WITH (allowed_lateness = '10 minutes') AS
SELECT tumble(time, INTERVAL '1 second') AS window_start, labels['host'] AS host,
       count(*) AS points, avg(value) AS avg, max(value) FILTER (WHERE value > 1000) AS peak
FROM points GROUP BY 1, 2
";

pub(super) fn measure(kafka: &Kafka, influx: &Influx) -> Result<(), Unavailable> {
    kafka.create_topic("corrections", PARTITIONS);
    let budget = format!("{BUDGET}MiB");
    let config = config(kafka, "corrections", &budget) + &influx_section(influx);
    let mut tidemark = Tidemark::new(&config)?;
    tidemark.write("sql/secondly.sql", ROLLUP);
    tidemark.call(&["topics", "create"]);
    tidemark.run("ingest,rollup");
    let started = Instant::now();
    let sending = bar(GROUPS * SECONDS, "sending corrections");
    for second in 0..SECONDS {
        produce(kafka, "corrections", points(second));
        sending.inc(GROUPS as u64);
        let due = Duration::from_secs(second as u64 + 1);
        std::thread::park_timeout(due.saturating_sub(started.elapsed()));
    }
    sending.finish_and_clear();
    let took = started.elapsed();
    kafka.produce("corrections", heartbeats(NEW_YEAR + 3_600 * SECOND, PARTITIONS));
    let count = (GROUPS * SECONDS) as f64;
    tidemark.wait_for_metrics(LIMIT, "all points to be merged", |page| {
        let merged = metric(page, "tidemark_rollup_points_total", &[]).unwrap_or_default();
        if merged >= count { Ok(()) } else { Err(format!("{merged} points")) }
    });
    // What was merged is stored when the offset behind it is committed.
    let offsets = Offsets::new(kafka, "corrections-rollup");
    let ends = offsets.ends("corrections-partials", PARTIALS).expect("the broker answers");
    tidemark.wait_until(LIMIT, "everything to be stored", || {
        let committed = offsets.committed("corrections-partials", PARTIALS)?;
        let stored = committed.iter().zip(&ends).all(|(committed, end)| committed >= end);
        if stored { Ok(()) } else { Err(format!("{committed:?} of {ends:?}")) }
    });
    let behind = started.elapsed() - took;
    let value = |name: &str| tidemark.metric(name, &[]).unwrap_or_default();
    let (used, resident) = accounted(&tidemark);
    println!(
        "\n{LATE} % late points of {GROUPS} groups a second, for {:.0} s, InfluxDB, rows that lack a field\n  all stored {:.1} s \
         after the last point; {} rows corrected; {}; now {resident} MiB, accounted {used} MiB",
        took.as_secs_f64(),
        behind.as_secs_f64(),
        value("tidemark_rollup_corrected_rows_total"),
        of_budget(tidemark.id(), BUDGET),
    );
    tidemark.kill9();
    Ok(())
}

/// A point of each group; some are late, into a window that has closed and has a row of the group.
fn points(second: usize) -> impl Iterator<Item = Message> {
    let now = NEW_YEAR + i64::try_from(second).unwrap() * SECOND;
    (0..GROUPS / LINES).map(move |message| {
        let hosts = message * LINES..(message + 1) * LINES;
        let line = |host: usize| {
            let is_late = (host + second) % 100 < LATE;
            let time = if is_late { now - BEHIND * SECOND } else { now };
            format!("load,host=host-{host:05} value={} {time}", host % 100)
        };
        let text: Vec<String> = hosts.map(line).collect();
        Message::new(i32::try_from(message % PARTITIONS).unwrap(), text.join("\n"))
    })
}
