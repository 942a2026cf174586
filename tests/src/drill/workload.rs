//! What a round sends: points in disorder, points that cannot be read, and points that are late for
//! certain.

use std::collections::VecDeque;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use crate::input::{Format, Generator, NEW_YEAR, Point, messages};
use crate::kafka::Message;

/// Of the source topic.
pub(super) const PARTITIONS: usize = 4;

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;
/// The longest window of the rollups below.
pub(super) const WINDOW: i64 = 300 * SECOND;
const LATE_POINTS: usize = 100;
/// One message in so many cannot be read.
const GOOD_TO_BAD: usize = 80;

/// One partition holds every point of a group.
pub(super) const BY_HOST: &str = "CREATE MATERIALIZED VIEW by_host WITH (allowed_lateness = '10 minutes') AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start, labels['host'] AS host, labels['region'] AS region,
       count(*) AS count, sum(value) AS sum, avg(value) AS avg, min(value) AS min, max(value) AS max
FROM points WHERE name = 'cpu.load' GROUP BY 1, 2, 3";

/// Every source partition has points of each group, and so has every process.
pub(super) const BY_REGION: &str =
    "CREATE MATERIALIZED VIEW by_region WITH (allowed_lateness = '10 minutes') AS
SELECT tumble(time, INTERVAL '5 minutes') AS window_start, labels['region'] AS region,
       count(*) AS count, sum(value) AS sum, max(value) AS max
FROM points WHERE name = 'cpu.load' GROUP BY 1, 2";

/// The rollups of every round, by name.
pub(super) const ROLLUPS: [(&str, &str); 2] = [("by_host", BY_HOST), ("by_region", BY_REGION)];

/// How a workload is made.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) points: usize,
    /// Below `allowed_lateness` less `max_out_of_orderness`, so that what the stream gives is
    /// certain.
    pub(super) disorder: Duration,
    /// How many parts it is sent in.
    pub(super) slices: usize,
}

/// The messages of a round, and what they hold.
#[derive(Debug)]
pub(super) struct Workload {
    /// In time for their windows, in the order in which they are sent.
    pub(super) points: Vec<Point>,
    /// Later than any window is kept: a day and more before all others.
    pub(super) late: Vec<Point>,
    /// Points that must end in the dead-letter topic.
    pub(super) refused: usize,
    /// Points of other metrics that must end in the archive.
    pub(super) others: usize,
    messages: VecDeque<Message>,
    slices: usize,
}

impl Workload {
    pub(super) fn new(random: &mut StdRng, shape: &Shape) -> Self {
        let generator = Generator {
            seed: random.random(),
            hosts: 40,
            interval: Duration::from_secs(2),
            disorder: shape.disorder,
            ..Generator::default()
        };
        let points = generator.points(shape.points);
        let formats = [Format::JsonLines(10), Format::JsonArray(7), Format::LineProtocol(10)];
        let format = formats[random.random_range(0..formats.len())];
        let good: VecDeque<Message> = messages(&points, PARTITIONS, format).collect();
        let series = generator.series();
        // Each alone in its window: what is late is rolled up by itself, and no two epochs share a
        // row.
        let late = (1..=LATE_POINTS).map(|number| {
            let series = series[number % series.len()].clone();
            let time = NEW_YEAR - DAY - i64::try_from(number).unwrap() * WINDOW;
            Point { series, time, value: f64::from(random.random_range(0..=800_u16)) / 8.0 }
        });
        let late = late.collect();
        let bad: Vec<Message> = (0..good.len() / GOOD_TO_BAD).map(|_| unreadable(random)).collect();
        let mut workload =
            Self { points, late, refused: bad.len(), others: 0, messages: good, slices: shape.slices };
        workload.mix(random, bad);
        workload
    }

    /// Puts messages between those that are there, at places of the seed's choosing, in their
    /// order.
    pub(super) fn mix(&mut self, random: &mut StdRng, more: Vec<Message>) {
        let mut places: Vec<usize> =
            more.iter().map(|_| random.random_range(0..=self.messages.len())).collect();
        places.sort_unstable();
        let mut mixed = VecDeque::with_capacity(self.messages.len() + more.len());
        let mut more = places.into_iter().zip(more).peekable();
        for (place, message) in self.messages.drain(..).enumerate() {
            while let Some((_, extra)) = more.next_if(|(before, _)| *before <= place) {
                mixed.push_back(extra);
            }
            mixed.push_back(message);
        }
        mixed.extend(more.map(|(_, extra)| extra));
        self.messages = mixed;
    }

    /// Parts that are still to be sent.
    pub(super) fn slices(&self) -> usize {
        self.slices
    }

    /// Takes the next part.
    pub(super) fn next_slice(&mut self) -> Vec<Message> {
        let count = self.messages.len().div_ceil(self.slices.max(1));
        self.slices = self.slices.saturating_sub(1);
        self.messages.drain(..count).collect()
    }

    /// The late points, each a message.
    pub(super) fn late_messages(&self) -> Vec<Message> {
        messages(&self.late, PARTITIONS, Format::Json).collect()
    }

    /// Every point that must be in the archive.
    pub(super) fn accepted(&self) -> impl Iterator<Item = &Point> {
        self.points.iter().chain(&self.late)
    }

    /// A time after which every window of the points is closed.
    pub(super) fn end(&self) -> i64 {
        self.points.iter().map(|point| point.time).max().unwrap_or(NEW_YEAR) + 2 * WINDOW
    }
}

/// A message with one point that is refused.
fn unreadable(random: &mut StdRng) -> Message {
    let payloads: [&[u8]; 5] = [
        br#"{"name":"cpu.load","labels":{"host":"host-00001"},"ts":1767225600000,"value":"high"}"#,
        br#"{"name":"","labels":{"host":"host-00001"},"ts":1767225600000,"value":1}"#,
        br#"{"name":"cpu.load","labels":{"host":"host-00001"},"ts":1767225600000,"value":1"#,
        br#"cpu.load,host=host-00001 value="high" 1767225600000000000"#,
        b"\xff\xfe\x00",
    ];
    let partition = i32::try_from(random.random_range(0..PARTITIONS)).unwrap();
    Message::new(partition, payloads[random.random_range(0..payloads.len())])
}
