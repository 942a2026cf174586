//! More series than a rollup may have, and a restart with all of their groups in the state.

use std::fs;
use std::path::Path;
use std::time::Instant;

use tidemark_tests::Unavailable;
use tidemark_tests::input::{NEW_YEAR, heartbeats};
use tidemark_tests::kafka::{Kafka, Message};
use tidemark_tests::tidemark::{Tidemark, metric};

use super::{CHUNK, DAY, LIMIT, PARTITIONS, accounted, config, mebibytes, produce};
use crate::load::bar;
use crate::machine;

/// Two points of each of many series, under a limit of a fifth of them; and a restart with all
/// groups in the state.
pub(super) fn measure(kafka: &Kafka, series: usize) -> Result<(), Unavailable> {
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

    // A snapshot that holds everything, then a clean end: after a crash, Kafka's session timeout of
    // 30 s would be measured.
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
    // Of one window. The process does nothing else, so all that it holds is for them, or would be
    // there without them.
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

/// Points of consecutive series as line protocol, 100 in a message; the series start anew when all
/// had their turn.
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

/// Bytes of the newest file of each partition.
fn newest_snapshots(folder: &Path) -> u64 {
    let paths = |folder: &Path| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    // The names are padded offsets.
    paths(folder)
        .filter_map(|partition| paths(&partition).max())
        .map(|path| path.metadata().unwrap().len())
        .sum()
}
