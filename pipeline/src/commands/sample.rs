//! `tidemark sample`: this machine's own metrics as points, for a first look without any other
//! source.
//!
//! | name               | labels          | unit                                                   |
//! |--------------------|-----------------|--------------------------------------------------------|
//! | `cpu.load`         | host, cpu       | percent; cpu is `total` or the number of a core        |
//! | `memory.used`      | host            | bytes                                                  |
//! | `memory.available` | host            | bytes                                                  |
//! | `memory.total`     | host            | bytes                                                  |
//! | `disk.used`        | host, disk      | bytes; disk is the mount point                         |
//! | `disk.available`   | host, disk      | bytes                                                  |
//! | `network.rx`       | host, interface | bytes a second, since the sample before                |
//! | `network.tx`       | host, interface | bytes a second, since the sample before                |
//! | `load.1m`, `load.5m`, `load.15m` | host | processes that run or wait, averaged              |
//! | `uptime`           | host            | seconds                                                |
//!
//! What the machine does not tell is left out.

use std::fs::File;
use std::future::Future;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use sysinfo::{Disks, Networks, System};
use tokio::time::MissedTickBehavior;

use crate::clock::Clock;
use crate::config::{Config, PayloadFormat};
use crate::kafka::{self, KafkaError, Plain};

/// How long a sample may wait for the broker before it is given up.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);

/// `tidemark sample`: this machine's CPU, memory, disks and network as points.
#[derive(Debug, Clone, Args)]
pub struct SampleArgs {
    /// Time between samples; CPU load needs at least 200ms
    #[arg(long, default_value = "1s", value_parser = parse_interval)]
    pub interval: Duration,
    /// Samples to take [default: until stopped]
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Where they go: kafka, stdout, or a file that is appended to
    #[arg(long, value_name = "kafka|stdout|FILE", default_value = "kafka")]
    pub to: SampleTarget,
    /// Topic to send to [default: the first of `points` in the configuration]
    #[arg(long)]
    pub topic: Option<String>,
}

/// Where samples go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SampleTarget {
    Kafka,
    Stdout,
    File(PathBuf),
}

impl FromStr for SampleTarget {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "kafka" => Self::Kafka,
            "stdout" | "-" => Self::Stdout,
            path => Self::File(path.into()),
        })
    }
}

/// Sampling stopped.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    #[error("cannot write samples, to=`{target}`")]
    Write {
        target: String,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error("`ingest` reads only line protocol and samples are JSON: set format = \"auto\" in [ingest]")]
    Format,
    #[error(
        "a sample could not be delivered: is the topic there (`tidemark topics create`)? topic=`{topic}`"
    )]
    Delivery {
        topic: String,
        #[source]
        source: Box<rdkafka::error::KafkaError>,
    },
}

/// One value of this machine.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplePoint {
    pub name: &'static str,
    /// Sorted by key.
    pub labels: Vec<(&'static str, String)>,
    /// Nanoseconds since the epoch.
    pub time: i64,
    pub value: f64,
}

impl SamplePoint {
    /// The point as the JSON that `ingest` reads, on one line.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers are always JSON")
    }

    /// Name and labels: the same for every point of a series.
    pub fn series(&self) -> String {
        let mut series = self.name.to_owned();
        for (key, value) in &self.labels {
            series.push_str(&format!(",{key}={value}"));
        }
        series
    }
}

impl Serialize for SamplePoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Labels<'a>(&'a [(&'static str, String)]);
        impl Serialize for Labels<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
            }
        }
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("name", self.name)?;
        map.serialize_entry("labels", &Labels(&self.labels))?;
        map.serialize_entry("ts", &self.time)?;
        map.serialize_entry("value", &self.value)?;
        map.end()
    }
}

/// Reads this machine's counters.
#[derive(Debug)]
pub struct Sampler {
    host: String,
    system: Option<System>,
    disks: Option<Disks>,
    networks: Option<Networks>,
    /// Time of the sample before.
    previous: Option<i64>,
}

impl Default for Sampler {
    fn default() -> Self {
        Self::new()
    }
}

impl Sampler {
    /// Parts of the machine that cannot be read are left out of every sample.
    pub fn new() -> Self {
        let mut system = System::new().ok();
        if let Some(system) = &mut system {
            system.refresh_cpu_usage();
        }
        Self {
            host: System::host_name().unwrap_or_else(|_| "localhost".to_owned()),
            system,
            disks: Disks::new_with_refreshed_list().ok(),
            networks: Networks::new_with_refreshed_list().ok(),
            previous: None,
        }
    }

    /// All metrics at `now`, in nanoseconds since the epoch. Loads and rates are over the time
    /// since the sample before, so the first one has none of them.
    pub fn sample(&mut self, now: i64) -> Vec<SamplePoint> {
        let mut sample = Sample { host: &self.host, time: now, points: Vec::new() };
        let since = self.previous.map(|previous| now.saturating_sub(previous)).filter(|since| *since > 0);
        if let Some(system) = &mut self.system {
            system.refresh_cpu_usage();
            system.refresh_memory();
            if since.is_some() {
                sample.cpus(system);
            }
            sample.memory(system);
        }
        if let Some(disks) = &mut self.disks {
            disks.refresh(true);
            sample.disks(disks);
        }
        if let Some(networks) = &mut self.networks {
            networks.refresh(true);
            if let Some(since) = since {
                sample.networks(networks, since as f64 / 1e9);
            }
        }
        sample.machine();
        let points = sample.points;
        self.previous = Some(now);
        points
    }
}

/// The points of one moment.
struct Sample<'a> {
    host: &'a str,
    time: i64,
    points: Vec<SamplePoint>,
}

impl Sample<'_> {
    fn add(&mut self, name: &'static str, label: Option<(&'static str, &str)>, value: f64) {
        let mut labels = vec![("host", self.host.to_owned())];
        if let Some((key, text)) = label {
            labels.push((key, text.to_owned()));
        }
        labels.sort_unstable();
        if value.is_finite() {
            self.points.push(SamplePoint { name, labels, time: self.time, value });
        }
    }

    fn cpus(&mut self, system: &System) {
        self.add("cpu.load", Some(("cpu", "total")), system.global_cpu_usage().into());
        for (index, cpu) in system.cpus().iter().enumerate() {
            self.add("cpu.load", Some(("cpu", &index.to_string())), cpu.usage().into());
        }
    }

    fn memory(&mut self, system: &System) {
        self.add("memory.used", None, system.used_memory() as f64);
        self.add("memory.available", None, system.available_memory() as f64);
        self.add("memory.total", None, system.total_memory() as f64);
    }

    fn disks(&mut self, disks: &Disks) {
        let mut seen: Vec<String> = Vec::new();
        for disk in disks {
            // A mount point may be listed twice, one mount over the other.
            let mount = disk.mount_point().display().to_string();
            if disk.total_space() == 0 || seen.contains(&mount) {
                continue;
            }
            let available = disk.available_space();
            let used = disk.total_space().saturating_sub(available);
            self.add("disk.used", Some(("disk", &mount)), used as f64);
            self.add("disk.available", Some(("disk", &mount)), available as f64);
            seen.push(mount);
        }
    }

    fn networks(&mut self, networks: &Networks, seconds: f64) {
        for (interface, data) in networks {
            let interface = interface.display().to_string();
            self.add("network.rx", Some(("interface", &interface)), data.received() as f64 / seconds);
            self.add("network.tx", Some(("interface", &interface)), data.transmitted() as f64 / seconds);
        }
    }

    fn machine(&mut self) {
        if let Ok(load) = System::load_average() {
            self.add("load.1m", None, load.one);
            self.add("load.5m", None, load.five);
            self.add("load.15m", None, load.fifteen);
        }
        if let Ok(uptime) = System::uptime() {
            self.add("uptime", None, uptime as f64);
        }
    }
}

/// Samples until `count` samples are taken or `stop` completes; returns the number of points that
/// arrived.
///
/// # Errors
/// When a sample cannot be written or delivered: those before it were.
pub async fn run(
    args: &SampleArgs,
    config: &Config,
    clock: &Clock,
    stop: impl Future<Output = ()>,
) -> Result<u64, SampleError> {
    let mut output = Output::open(args, config)?;
    let mut sampler = Sampler::new();
    // Rates begin with the second look at the counters.
    sampler.sample(clock.now_ns());
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + args.interval, args.interval);
    // A sample that was missed is gone; two at once would have no time between them.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    tokio::pin!(stop);
    let (mut samples, mut points) = (0, 0);
    while args.count.is_none_or(|count| samples < count) {
        tokio::select! {
            () = &mut stop => break,
            _ = ticks.tick() => {}
        }
        let sample = sampler.sample(clock.now_ns());
        output.write(&sample).await?;
        samples += 1;
        points += sample.len() as u64;
    }
    Ok(points)
}

enum Output {
    Kafka { producer: FutureProducer<Plain>, topic: String },
    Stdout,
    File { file: BufWriter<File>, path: PathBuf },
}

impl Output {
    fn open(args: &SampleArgs, config: &Config) -> Result<Self, SampleError> {
        match &args.to {
            SampleTarget::Kafka => {
                if config.ingest.format == PayloadFormat::LineProtocol {
                    return Err(SampleError::Format);
                }
                let topic = args.topic.clone().or_else(|| config.topics.points.first().cloned());
                let producer = kafka::future_producer(&config.kafka)?;
                Ok(Self::Kafka { producer, topic: topic.unwrap_or_default() })
            }
            SampleTarget::Stdout => Ok(Self::Stdout),
            SampleTarget::File(path) => {
                let file = File::options().create(true).append(true).open(path);
                let file = file.map_err(|source| write_error(&path.display().to_string(), source))?;
                Ok(Self::File { file: BufWriter::new(file), path: path.clone() })
            }
        }
    }

    /// Returns when the sample is out of this process.
    async fn write(&mut self, sample: &[SamplePoint]) -> Result<(), SampleError> {
        match self {
            Self::Kafka { producer, topic } => send(producer, topic, sample).await,
            Self::Stdout => {
                write_lines(&mut io::stdout().lock(), sample).map_err(|source| write_error("stdout", source))
            }
            Self::File { file, path } => {
                write_lines(file, sample).map_err(|source| write_error(&path.display().to_string(), source))
            }
        }
    }
}

async fn send(
    producer: &FutureProducer<Plain>,
    topic: &str,
    sample: &[SamplePoint],
) -> Result<(), SampleError> {
    let mut deliveries = Vec::with_capacity(sample.len());
    for point in sample {
        let (series, message) = (point.series(), point.to_json());
        deliveries.push(async move {
            let record = FutureRecord::to(topic).key(&series).payload(&message);
            producer.send(record, Timeout::After(DELIVERY_TIMEOUT)).await
        });
    }
    for delivery in futures::future::join_all(deliveries).await {
        if let Err((source, _)) = delivery {
            return Err(SampleError::Delivery { topic: topic.to_owned(), source: Box::new(source) });
        }
    }
    Ok(())
}

fn write_lines(out: &mut impl Write, sample: &[SamplePoint]) -> io::Result<()> {
    for point in sample {
        writeln!(out, "{}", point.to_json())?;
    }
    out.flush()
}

fn write_error(target: &str, source: io::Error) -> SampleError {
    SampleError::Write { target: target.to_owned(), source }
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(interval) if interval >= sysinfo::MINIMUM_CPU_UPDATE_INTERVAL => Ok(interval),
        Ok(_) => Err("at least 200ms: the system counts CPU time no finer".to_owned()),
        Err(_) => Err("write a duration like 500ms, 1s or 1m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use points::decode::{DecodeOptions, Decoder, Points};

    use super::*;

    const NOW: i64 = 1_700_000_000_000_000_000;

    #[test]
    fn a_sample_is_what_ingest_reads() {
        let mut sampler = Sampler::new();
        let first = sampler.sample(NOW);
        assert!(first.iter().all(|point| point.name != "cpu.load" && !point.name.starts_with("network.")));
        let second = sampler.sample(NOW + 1_000_000_000);
        for name in ["cpu.load", "memory.used", "memory.total", "uptime"] {
            assert!(second.iter().any(|point| point.name == name), "{name} in {second:?}");
        }
        let mut decoder = Decoder::new(DecodeOptions::default(), Vec::new());
        let (mut points, mut rejected) = (Points::default(), Vec::new());
        for sampled in &second {
            decoder.decode(sampled.to_json().as_bytes(), None, NOW, &mut points, &mut rejected);
            let index = points.len() - 1;
            assert_eq!((points.time[index], points.value[index]), (sampled.time, sampled.value));
            let series = decoder.series().get(points.series[index]);
            let labels: Vec<(&str, &str)> = series.labels().collect();
            let expected: Vec<(&str, &str)> =
                sampled.labels.iter().map(|(key, value)| (*key, value.as_str())).collect();
            assert_eq!((series.name, labels), (sampled.name, expected));
        }
        assert!(rejected.is_empty(), "{rejected:?}");
    }

    #[test]
    fn series_differ_and_stay() {
        let mut sampler = Sampler::new();
        sampler.sample(NOW);
        let sample = sampler.sample(NOW + 1_000_000_000);
        let mut series: Vec<String> = sample.iter().map(SamplePoint::series).collect();
        let count = series.len();
        series.sort();
        series.dedup();
        assert_eq!(series.len(), count, "no series twice");
    }

    #[tokio::test]
    async fn samples_go_to_a_file() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("samples.jsonl");
        let args = SampleArgs {
            interval: Duration::from_millis(200),
            count: Some(1),
            to: SampleTarget::File(path.clone()),
            topic: None,
        };
        let config = Config::local("127.0.0.1:1", Path::new("/tmp"));
        let points = run(&args, &config, &Clock::system(), std::future::pending()).await.expect("sampled");
        let text = std::fs::read_to_string(path).expect("written");
        assert_eq!(text.lines().count() as u64, points);
        assert!(text.contains("\"name\":\"cpu.load\""), "{text}");
    }

    #[test]
    fn targets() {
        assert_eq!("kafka".parse(), Ok(SampleTarget::Kafka));
        assert_eq!("stdout".parse(), Ok(SampleTarget::Stdout));
        assert_eq!("a/b.jsonl".parse(), Ok(SampleTarget::File("a/b.jsonl".into())));
        assert!(parse_interval("10ms").is_err());
        assert!(parse_interval("soon").is_err());
    }
}
