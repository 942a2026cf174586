//! A backlog that nobody takes the results of.

use std::time::Instant;

use tidemark_tests::Unavailable;
use tidemark_tests::influx::Influx;
use tidemark_tests::input::{Format, Generator, NEW_YEAR, heartbeats, messages};
use tidemark_tests::kafka::Kafka;
use tidemark_tests::tidemark::{Tidemark, metric};

use super::{BY_HOST, CHUNK, DAY, LIMIT, PARTITIONS, accounted, config, influx_section, mebibytes, produce};
use crate::load::bar;
use crate::machine;

/// A backlog is read while InfluxDB is down; then InfluxDB comes back.
pub(super) fn measure(kafka: &Kafka, influx: &Influx, count: usize) -> Result<(), Unavailable> {
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

fn sum_of_points(influx: &Influx) -> f64 {
    let flux = format!(
        "from(bucket: {:?}) |> range(start: 1900-01-01T00:00:00Z, stop: 2200-01-01T00:00:00Z) \
         |> filter(fn: (r) => r._measurement == \"by_host\" and r._field == \"points\") |> sum() |> group() |> sum()",
        influx.bucket()
    );
    let rows = influx.query_csv(&flux);
    rows.first().and_then(|row| row.get("_value")?.parse().ok()).unwrap_or_default()
}
