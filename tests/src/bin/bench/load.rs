//! Fills the topics that all cases read.

use std::collections::BTreeMap;

use indicatif::{ProgressBar, ProgressStyle};
use tidemark_tests::input::{Generator, Point, heartbeats, messages};
use tidemark_tests::kafka::Kafka;

use crate::case::Input;

const PARTITIONS: usize = 4;
const MINUTE: i64 = 60_000_000_000;
const DAY: i64 = 1_440 * MINUTE;

/// A topic, full.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub(crate) input: Input,
    pub(crate) topic: String,
    pub(crate) partitions: usize,
    pub(crate) points: usize,
    /// With the heartbeats that follow the points.
    pub(crate) messages: usize,
    /// Of the points' payloads, before compression.
    pub(crate) bytes: usize,
    /// Windows of one minute, times the hosts that report in each.
    pub(crate) result_rows: usize,
}

/// Makes the points once, and writes them to a topic for each form of input. A heartbeat on every partition, a day
/// after the last point, closes all windows.
pub(crate) fn load(kafka: &Kafka, inputs: &[Input], count: usize) -> BTreeMap<Input, Loaded> {
    let generator = Generator { hosts: 10_000, regions: 8, ..Generator::default() };
    let points = generator.points(count);
    let end = points.last().expect("at least one point").time + DAY;
    let result_rows = result_rows(&points);
    let mut loaded = BTreeMap::new();
    for input in inputs {
        let topic = format!("bench-{input}");
        kafka.create_topic(&topic, PARTITIONS);
        let bar = bar(count, &format!("writing {topic}"));
        let per_message = input.format().points_per_message();
        let (mut sent, mut bytes) = (0, 0);
        let of_points = messages(&points, PARTITIONS, input.format()).inspect(|message| {
            sent += 1;
            bytes += message.payload.len();
            bar.inc(per_message as u64);
        });
        let properties =
            [("compression.type", "lz4"), ("linger.ms", "50"), ("batch.size", "500000"), ("acks", "1")];
        kafka.produce_with(&properties, &topic, of_points);
        kafka.produce(&topic, heartbeats(end, PARTITIONS));
        bar.finish_and_clear();
        let messages = sent + PARTITIONS;
        let input = *input;
        loaded.insert(
            input,
            Loaded { input, topic, partitions: PARTITIONS, points: count, messages, bytes, result_rows },
        );
    }
    loaded
}

/// Distinct pairs of series and minute. The points of a series are in the order of their times.
fn result_rows(points: &[Point]) -> usize {
    let mut last_minute: Vec<i64> = Vec::new();
    let mut rows = 0;
    for point in points {
        let index = point.series.index;
        if index >= last_minute.len() {
            last_minute.resize(index + 1, i64::MIN);
        }
        let minute = point.time.div_euclid(MINUTE);
        if last_minute[index] != minute {
            last_minute[index] = minute;
            rows += 1;
        }
    }
    rows
}

/// A bar on standard error, which is not drawn where that is no terminal.
pub(crate) fn bar(length: usize, what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:24} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}");
    ProgressBar::new(length as u64)
        .with_message(what.to_owned())
        .with_style(style.expect("the template is right"))
}
