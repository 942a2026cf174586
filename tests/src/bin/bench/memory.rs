//! What the program holds when there is too much of everything: a backlog that nobody takes the results of, series beyond
//! the limit, and a large state to come back from. Each figure is of a process of its own, `ingest` and `rollup` together.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tidemark_tests::Unavailable;
use tidemark_tests::influx::Influx;
use tidemark_tests::input::{Format, Generator, NEW_YEAR, heartbeats, messages};
use tidemark_tests::kafka::{Kafka, Message};
use tidemark_tests::tidemark::{Tidemark, metric};

use crate::load::bar;
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

/// Prints the figures as they come.
///
/// # Panics
/// When a point is missing from the results or counted twice.
pub(crate) fn run(backlog: usize, series: usize) -> Result<(), Unavailable> {
    // Before the broker and the input, which take minutes.
    println!("{}", Tidemark::new("")?.call(&["--version"]).trim());
    let influx = Influx::start()?;
    let kafka = Kafka::start()?;
    for (name, value) in machine::describe() {
        println!("{name}: {value}");
    }
    outage(&kafka, &influx, backlog)?;
    overflow(&kafka, series)
}

/// A backlog is read while InfluxDB is down; then InfluxDB comes back.
fn outage(kafka: &Kafka, influx: &Influx, count: usize) -> Result<(), Unavailable> {
    const BUDGET: &str = "512MiB";
    let generator = Generator { hosts: 10_000, regions: 8, ..Generator::default() };
    kafka.create_topic("backlog", PARTITIONS);
    let writing = bar(count, "writing the backlog");
    let mut end = NEW_YEAR;
    for chunk in 0..count.div_ceil(CHUNK) {
        let points = Generator { start: end, ..generator.clone() }.points(CHUNK.min(count - chunk * CHUNK));
        end = points.last().expect("at least one point").time + 10_000_000_000;
        produce(kafka, "backlog", messages(&points, PARTITIONS, Format::Json));
        writing.inc(points.len() as u64);
    }
    kafka.produce("backlog", heartbeats(end + DAY, PARTITIONS));
    writing.finish_and_clear();

    let config = config(kafka, "backlog", BUDGET) + &influx_section(influx);
    let mut tidemark = Tidemark::new(&config)?;
    tidemark.write("sql/by_host.sql", BY_HOST);
    tidemark.call(&["topics", "create"]);
    let started = Instant::now();
    tidemark.spawn(&["run", "--roles", "ingest,rollup"], &[]);
    tidemark.wait_for_metric(LIMIT, "tidemark_rollup_points_total", &[], 1.0);
    influx.kill9();
    let reading = bar(count, "reading, influxdb down");
    tidemark.wait_for_metrics(LIMIT, "the backlog to be read", |page| {
        let read = metric(page, "tidemark_ingest_points_total", &[]).unwrap_or_default();
        reading.set_position(read as u64);
        if read >= count as f64 { Ok(()) } else { Err(format!("{read} points")) }
    });
    reading.finish_and_clear();
    let read = started.elapsed();
    tidemark.wait_for_metric(LIMIT, "tidemark_sink_retries_total", &[], 3.0);
    let down = machine::peak_bytes(tidemark.id());
    let (used, resident) = accounted(&tidemark);
    let merged = tidemark.metric("tidemark_rollup_points_total", &[]).unwrap_or_default();
    println!(
        "\nbacklog of {count} points (JSON, one a message), InfluxDB down, budget {BUDGET}\n  \
         read in {:.1} s; peak resident {} MiB, now {resident} MiB, accounted {used} MiB; merged so far: {merged} points",
        read.as_secs_f64(),
        mebibytes(down),
    );

    influx.restart();
    let back = Instant::now();
    let writing = bar(count, "writing, influxdb back");
    tidemark.wait_until(LIMIT, "every point in a result", || {
        let written = sum_of_points(influx);
        writing.set_position(written as u64);
        if written >= count as f64 { Ok(()) } else { Err(format!("{written} points")) }
    });
    writing.finish_and_clear();
    let written = sum_of_points(influx);
    println!(
        "  InfluxDB back: all results {:.1} s later, {written} points in them; peak resident {} MiB",
        back.elapsed().as_secs_f64(),
        mebibytes(machine::peak_bytes(tidemark.id())),
    );
    assert_eq!(written, count as f64, "points in the results");
    tidemark.kill9();
    Ok(())
}

/// Two points of each of many series, under a limit of a fifth of them; and a restart with all groups in the state.
fn overflow(kafka: &Kafka, series: usize) -> Result<(), Unavailable> {
    const BUDGET: &str = "1GiB";
    let limit = series / 5;
    let count = 2 * series;
    kafka.create_topic("series", PARTITIONS);
    let writing = bar(count, "writing the series");
    for first in (0..count).step_by(CHUNK) {
        produce(kafka, "series", lines(first..count.min(first + CHUNK), series));
        writing.set_position(first as u64);
    }
    writing.finish_and_clear();
    let mut tidemark = Tidemark::new(&config(kafka, "series", BUDGET))?;
    tidemark.write(
        "sql/by_id.sql",
        &format!(
            "CREATE MATERIALIZED VIEW by_id WITH (series_limit = {limit}) AS
             SELECT tumble(time, INTERVAL '1 hour') AS window_start, labels['id'] AS id, count(*) AS points,
                    avg(value) AS avg, max(value) AS max, min(value) AS min
             FROM points GROUP BY 1, 2"
        ),
    );
    tidemark.call(&["topics", "create"]);
    let started = Instant::now();
    tidemark.spawn(&["run", "--roles", "ingest,rollup"], &[]);
    let reading = bar(count, "reading the series");
    tidemark.wait_for_metrics(LIMIT, "all points to be merged", |page| {
        let merged = metric(page, "tidemark_rollup_points_total", &[]).unwrap_or_default();
        reading.set_position(merged as u64);
        if merged >= count as f64 { Ok(()) } else { Err(format!("{merged} points")) }
    });
    reading.finish_and_clear();
    let merged = started.elapsed();
    let value = |name: &str| tidemark.metric(name, &[]).unwrap_or_default();
    let diverted = value("tidemark_rollup_overflow_points_total");
    println!(
        "\n{series} series under a limit of {limit}, {count} points, budget {BUDGET}\n  merged in {:.1} s; {diverted} points \
         to overflow groups; peak resident {} MiB",
        merged.as_secs_f64(),
        mebibytes(machine::peak_bytes(tidemark.id())),
    );

    // A snapshot that holds everything, then a clean end: after a crash, Kafka's session timeout of 30 s would be measured.
    let made = value("tidemark_rollup_checkpoints_total");
    tidemark.wait_for_metric(LIMIT, "tidemark_rollup_checkpoints_total", &[], made + 2.0);
    let page = tidemark.metrics().expect("the program answers");
    let seconds = metric(&page, "tidemark_rollup_checkpoint_seconds_sum", &[]).unwrap_or_default();
    let checkpoints = metric(&page, "tidemark_rollup_checkpoint_seconds_count", &[]).unwrap_or_default();
    let groups = metric(&page, "tidemark_rollup_state_rows", &[]).unwrap_or_default();
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());
    let bytes = newest_snapshots(&tidemark.directory().join("data/state"));
    let started = Instant::now();
    tidemark.spawn(&["run", "--roles", "rollup"], &[]);
    tidemark.wait_for_metric(LIMIT, "tidemark_rollup_restore_seconds_count", &[], 8.0);
    tidemark.wait_until_ready();
    let ready = started.elapsed();
    let restore = tidemark.metric("tidemark_rollup_restore_seconds_sum", &[]).unwrap_or_default();
    // Of one window. The process does nothing else, so all that it holds is for them, or would be there without them.
    let state = tidemark.wait_for_metric(LIMIT, "tidemark_memory_used_bytes", &[("part", "state")], 1.0);
    let (_, resident) = accounted(&tidemark);
    println!(
        "\nrecovery of {groups} groups of a window, count, avg, max and min of each\n  snapshots of {:.1} MB, {:.1} bytes a \
         group, {:.2} s for a checkpoint on average\n  loaded in {restore:.2} s, ready {:.1} s after the start of the process\n  \
         {:.0} bytes a group and window accounted, with the reserve for merging; {resident} MiB resident, the program itself \
         included: {:.0} bytes",
        bytes as f64 / 1e6,
        bytes as f64 / groups,
        seconds / checkpoints,
        ready.as_secs_f64(),
        state / groups,
        (resident << 20) as f64 / groups,
    );
    tidemark.kill9();

    tidemark.spawn(&["run", "--roles", "ingest,rollup"], &[]);
    kafka.produce("series", heartbeats(NEW_YEAR + DAY, PARTITIONS));
    tidemark.wait_for_metric(LIMIT, "tidemark_rollup_rows_written_total", &[], limit as f64);
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());
    let sql = "SELECT count(*) AS rows, sum(points) AS points, sum(points) FILTER (WHERE id LIKE '\\_\\_overflow\\_\\_%') AS \
               overflow FROM by_id";
    let answer = tidemark.call(&["query", sql]);
    println!("\nresults of the window\n{}", answer.trim_end());
    assert!(answer.contains(&format!(" {count} ")), "every point is in the results: {answer}");
    Ok(())
}

/// Points of consecutive series as line protocol, 100 in a message; the series start anew when all had their turn.
fn lines(range: std::ops::Range<usize>, series: usize) -> impl Iterator<Item = Message> {
    let starts = range.clone().step_by(100);
    starts.map(move |first| {
        let points = first..range.end.min(first + 100);
        let line = |point: usize| {
            let (id, time) = (point % series, NEW_YEAR + point as i64);
            format!("load,id=id-{id:08} value={} {time}", point % 100)
        };
        let text: Vec<String> = points.map(line).collect();
        Message::new(i32::try_from(first / 100 % PARTITIONS).unwrap(), text.join("\n"))
    })
}

fn produce(kafka: &Kafka, topic: &str, messages: impl Iterator<Item = Message>) {
    let properties =
        [("compression.type", "lz4"), ("linger.ms", "50"), ("batch.size", "500000"), ("acks", "1")];
    kafka.produce_with(&properties, topic, messages);
}

fn sum_of_points(influx: &Influx) -> f64 {
    let flux = format!(
        "from(bucket: {:?}) |> range(start: 1900-01-01T00:00:00Z, stop: 2200-01-01T00:00:00Z) \
         |> filter(fn: (r) => r._measurement == \"by_host\" and r._field == \"points\") |> sum() |> group() |> sum()",
        influx.bucket()
    );
    let rows = influx.query_csv(&flux);
    rows.first().and_then(|row| row.get("_value")?.parse().ok()).unwrap_or_default()
}

/// Mebibytes that the parts account for, and that are resident.
fn accounted(tidemark: &Tidemark) -> (u64, u64) {
    let of = |name: &str| tidemark.metric(name, &[]).unwrap_or_default() as u64 >> 20;
    (of("tidemark_memory_used_bytes"), of("tidemark_memory_resident_bytes"))
}

fn mebibytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| (bytes >> 20).to_string())
}

/// Bytes of the newest file of each partition.
fn newest_snapshots(folder: &Path) -> u64 {
    let paths = |folder: &Path| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    // The names are padded offsets.
    paths(folder)
        .filter_map(|partition| paths(&partition).max())
        .map(|path| path.metadata().unwrap().len())
        .sum()
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
