//! Made-up points, the same for the same seed, and the messages that carry them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::kafka::Message;

/// 1 January 2026, in nanoseconds since the epoch: the start of a minute, an hour and a day.
pub const NEW_YEAR: i64 = 1_767_225_600_000_000_000;

/// What identifies the points of one source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// Position among the series of a generator; decides the Kafka partition.
    pub index: usize,
}

/// A metric point.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    pub series: Arc<Series>,
    /// Nanoseconds since the epoch.
    pub time: i64,
    pub value: f64,
}

/// Hosts that each report every metric at a steady interval.
///
/// Values are eighths between 0 and 100, so that sums of up to 2^43 of them are exact in a float:
/// results do not depend on the order of addition, and are compared without a tolerance. Times are
/// whole milliseconds.
#[derive(Debug, Clone)]
pub struct Generator {
    pub seed: u64,
    /// One series for each name and host.
    pub names: Vec<String>,
    pub hosts: usize,
    /// Hosts are spread over the regions independently of the partition that their points go to.
    pub regions: usize,
    /// Event time of the first round of reports, in nanoseconds since the epoch.
    pub start: i64,
    pub interval: Duration,
    /// A point is sent up to this much later, in event time, than its place in order. Zero: points
    /// are sent in order.
    pub disorder: Duration,
}

impl Default for Generator {
    fn default() -> Self {
        Self {
            seed: 1,
            names: vec!["cpu.load".to_owned()],
            hosts: 20,
            regions: 4,
            start: NEW_YEAR,
            interval: Duration::from_secs(10),
            disorder: Duration::ZERO,
        }
    }
}

impl Generator {
    /// The series, ordered by name and host.
    pub fn series(&self) -> Vec<Arc<Series>> {
        let mut all = Vec::with_capacity(self.names.len() * self.hosts);
        for name in &self.names {
            for host in 0..self.hosts {
                // A multiplicative hash, so that the region says nothing about the host modulo a
                // number of partitions.
                let region = ((host as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % self.regions as u64;
                let labels = [("host", format!("host-{host:05}")), ("region", format!("region-{region}"))];
                let labels = labels.into_iter().map(|(label, value)| (label.to_owned(), value)).collect();
                all.push(Arc::new(Series { name: name.clone(), labels, index: all.len() }));
            }
        }
        all
    }

    /// The first `count` points in the order in which they are sent.
    pub fn points(&self, count: usize) -> Vec<Point> {
        let series = self.series();
        let interval = i64::try_from(self.interval.as_nanos()).unwrap();
        let disorder = i64::try_from(self.disorder.as_millis()).unwrap();
        let mut random = StdRng::seed_from_u64(self.seed);
        let mut points = Vec::with_capacity(count);
        let mut sent_at = Vec::with_capacity(if disorder > 0 { count } else { 0 });
        for number in 0..count {
            let round = i64::try_from(number / series.len()).unwrap();
            let time = self.start + round * interval;
            let value = f64::from(random.random_range(0..=800_u16)) / 8.0;
            points.push(Point { series: Arc::clone(&series[number % series.len()]), time, value });
            if disorder > 0 {
                sent_at.push((time + random.random_range(0..=disorder) * 1_000_000, number));
            }
        }
        if disorder == 0 {
            return points;
        }
        sent_at.sort_unstable();
        sent_at.into_iter().map(|(_, number)| points[number].clone()).collect()
    }
}

/// How points are written into messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a message.
    Json,
    /// One JSON object a line, and so many lines a message.
    JsonLines(usize),
    /// A JSON array of so many objects a message.
    JsonArray(usize),
    /// InfluxDB line protocol, and so many lines a message.
    LineProtocol(usize),
}

impl Format {
    /// At most: the last message of a partition may hold fewer.
    pub fn points_per_message(self) -> usize {
        match self {
            Self::Json => 1,
            Self::JsonLines(points) | Self::JsonArray(points) | Self::LineProtocol(points) => points,
        }
    }

    /// The payload of one message.
    pub fn encode<'a>(self, points: impl IntoIterator<Item = &'a Point>) -> Vec<u8> {
        let mut text = String::new();
        let separator = if matches!(self, Self::JsonArray(_)) { ',' } else { '\n' };
        for point in points {
            if !text.is_empty() {
                text.push(separator);
            }
            match self {
                Self::LineProtocol(_) => write_line(&mut text, point),
                Self::Json | Self::JsonLines(_) | Self::JsonArray(_) => write_json(&mut text, point),
            }
        }
        if matches!(self, Self::JsonArray(_)) { format!("[{text}]").into_bytes() } else { text.into_bytes() }
    }
}

/// Divides points over partitions by their series, and within each, in their order, into messages.
/// A series is always in the same partition, as with a producer that sets the key.
pub fn messages<'a>(
    points: &'a [Point],
    partitions: usize,
    format: Format,
) -> impl Iterator<Item = Message> + 'a {
    let size = format.points_per_message();
    let mut waiting: Vec<Vec<&Point>> = vec![Vec::with_capacity(size); partitions];
    let mut rest = points.iter();
    let mut unfilled = 0..partitions;
    std::iter::from_fn(move || {
        for point in rest.by_ref() {
            let partition = point.series.index % partitions;
            waiting[partition].push(point);
            if waiting[partition].len() == size {
                return Some(message(partition, format, &mut waiting[partition]));
            }
        }
        let partition = unfilled.find(|partition| !waiting[*partition].is_empty())?;
        Some(message(partition, format, &mut waiting[partition]))
    })
}

fn message(partition: usize, format: Format, points: &mut Vec<&Point>) -> Message {
    Message::new(i32::try_from(partition).unwrap(), format.encode(points.drain(..)))
}

/// A message for each partition that carries no point, and moves event time on to `time`, in
/// nanoseconds.
pub fn heartbeats(time: i64, partitions: usize) -> impl Iterator<Item = Message> {
    let partitions = i32::try_from(partitions).unwrap();
    (0..partitions).map(move |partition| Message::new(partition, format!(r#"{{"heartbeat":{time}}}"#)))
}

/// Times are milliseconds, the usual unit in JSON, where they are whole ones.
fn write_json(text: &mut String, point: &Point) {
    let quoted = |value: &str| serde_json::to_string(value).expect("text is JSON");
    write!(text, r#"{{"name":{},"labels":{{"#, quoted(&point.series.name)).unwrap();
    for (i, (label, value)) in point.series.labels.iter().enumerate() {
        let separator = if i == 0 { "" } else { "," };
        write!(text, "{separator}{}:{}", quoted(label), quoted(value)).unwrap();
    }
    let time = if point.time % 1_000_000 == 0 { point.time / 1_000_000 } else { point.time };
    write!(text, r#"}},"ts":{time},"value":{}}}"#, point.value).unwrap();
}

/// The measurement is the metric's name, and the only field is `value`. A backslash needs no
/// escape: it is one only before a character that does.
fn write_line(text: &mut String, point: &Point) {
    escape(text, &point.series.name, &[',', ' ']);
    for (label, value) in &point.series.labels {
        text.push(',');
        escape(text, label, &[',', '=', ' ']);
        text.push('=');
        escape(text, value, &[',', '=', ' ']);
    }
    write!(text, " value={} {}", point.value, point.time).unwrap();
}

fn escape(text: &mut String, raw: &str, special: &[char]) {
    for character in raw.chars() {
        if special.contains(&character) {
            text.push('\\');
        }
        text.push(character);
    }
}
