//! Fills the topics that all cases read.

use indicatif::{ProgressBar, ProgressStyle};
use tidemark_tests::input::{Generator, Point, heartbeats, messages};
use tidemark_tests::kafka::Kafka;

use crate::case::{Group, Input};

const REGIONS: usize = 8;
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
    /// Windows of one minute.
    pub(crate) windows: usize,
    /// The windows, times the hosts that report in each.
    pub(crate) result_rows: usize,
}

impl Loaded {
    /// Rows of the results.
    pub(crate) fn rows(&self, group: Group) -> usize {
        match group {
            Group::Host => self.result_rows,
            Group::Region => self.windows * REGIONS,
            Group::Nothing => self.windows,
        }
    }
}

/// The points of an input: hosts that report every 10 s of event time.
pub(crate) fn points(input: Input, count: usize) -> Vec<Point> {
    Generator { hosts: input.hosts(), regions: REGIONS, ..Generator::default() }.points(count)
}

/// Writes the points to a topic. A heartbeat on every partition, a day after the last point, closes
/// all windows.
pub(crate) fn load(kafka: &Kafka, input: Input, points: &[Point]) -> Loaded {
    let topic = format!("bench-{input}");
    let partitions = input.partitions();
    kafka.create_topic(&topic, partitions);
    let bar = bar(points.len(), &format!("writing {topic}"));
    let per_message = input.format().points_per_message();
    let (mut sent, mut bytes) = (0, 0);
    let of_points = messages(points, partitions, input.format()).inspect(|message| {
        sent += 1;
        bytes += message.payload.len();
        bar.inc(per_message as u64);
    });
    let properties =
        [("compression.type", "lz4"), ("linger.ms", "50"), ("batch.size", "500000"), ("acks", "1")];
    kafka.produce_with(&properties, &topic, of_points);
    let end = points.last().expect("at least one point").time + DAY;
    kafka.produce(&topic, heartbeats(end, partitions));
    bar.finish_and_clear();
    let (windows, result_rows) = count_rows(points);
    let messages = sent + partitions;
    Loaded { input, topic, partitions, points: points.len(), messages, bytes, windows, result_rows }
}

/// Distinct minutes, and distinct pairs of series and minute. The points of a series are in the
/// order of their times.
fn count_rows(points: &[Point]) -> (usize, usize) {
    let mut last_minute: Vec<i64> = Vec::new();
    let mut newest = i64::MIN;
    let (mut windows, mut rows) = (0, 0);
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
        if minute > newest {
            newest = minute;
            windows += 1;
        }
    }
    (windows, rows)
}

/// A bar on standard error, which is not drawn where that is no terminal.
pub(crate) fn bar(length: usize, what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:24} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}");
    ProgressBar::new(length as u64)
        .with_message(what.to_owned())
        .with_style(style.expect("the template is right"))
}
