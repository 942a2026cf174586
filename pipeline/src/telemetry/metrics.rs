//! Every metric of the program: names, labels, units. Counters get their `_total` from the encoder.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry};

/// A gauge of seconds.
pub type Seconds = Gauge<f64, AtomicU64>;

/// All metrics, registered; share it in an `Arc`.
pub struct Metrics {
    pub ingest: IngestMetrics,
    pub archive: ArchiveMetrics,
    pub rollup: RollupMetrics,
    pub sink: SinkMetrics,
    pub notify: NotifyMetrics,
    pub memory: MemoryMetrics,
    /// What of a rollup's SELECT could not be computed, in `ingest` and `rollup`.
    pub sql_failures: Family<FailureLabels, Counter>,
    /// Messages that no topic takes, in every role that sends any.
    pub kafka_given_up: Family<TopicLabels, Counter>,
    registry: Registry,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct SourceLabels {
    pub topic: String,
    pub partition: i32,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct TopicLabels {
    pub topic: String,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReasonLabels {
    pub reason: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct PartitionLabels {
    pub partition: i32,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RollupLabels {
    pub rollup: String,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct TierLabels {
    pub rollup: String,
    pub tier: String,
}

/// `age` is one of [`age_label`]'s.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct AgeLabels {
    pub rollup: String,
    pub age: &'static str,
}

/// The source partition that holds the watermark of a rollup partition back.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct HolderLabels {
    pub partition: i32,
    pub topic: String,
    pub source_partition: i32,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StateLabels {
    pub partition: i32,
    pub rollup: String,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct SinkLabels {
    pub sink: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ErrorLabels {
    pub sink: &'static str,
    pub kind: &'static str,
}

/// `cause` is what could not be computed: `value`, `group`, `point`, `state`.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct FailureLabels {
    pub rollup: String,
    pub cause: &'static str,
}

/// `part` is one of `memory::Shares::parts`.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct PartLabels {
    pub part: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct AlertLabels {
    pub rule: String,
    /// `pending`, `firing`, `resolved`.
    pub status: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RuleLabels {
    pub rule: String,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct DeliveryLabels {
    pub receiver: String,
    /// `delivered`, `retried`, `fallback`, `failed`, `unreadable`.
    pub result: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StageLabels {
    pub rule: String,
    /// From the window's end, until it was `evaluated` and until a receiver had it, `delivered`;
    /// from the newest sample until then, `sample_to_delivered`.
    pub stage: &'static str,
}

/// Reading, decoding, partial aggregation.
#[derive(Debug)]
pub struct IngestMetrics {
    pub messages: Family<SourceLabels, Counter>,
    pub points: Counter,
    pub rejected: Family<ReasonLabels, Counter>,
    pub future_points: Family<SourceLabels, Counter>,
    pub heartbeats: Counter,
    pub epochs: Counter,
    pub epoch_seconds: Histogram,
    pub commit_seconds: Histogram,
    pub lag_messages: Family<SourceLabels, Gauge>,
    pub partitions: Gauge,
    pub paused: Gauge,
    pub partitions_ahead: Gauge,
    pub series: Gauge,
}

/// Cold Parquet.
#[derive(Debug)]
pub struct ArchiveMetrics {
    pub rows: Counter,
    pub files: Counter,
    pub bytes: Counter,
}

/// Merging, windows, checkpoints.
#[derive(Debug)]
pub struct RollupMetrics {
    pub partials: Family<PartitionLabels, Counter>,
    pub points: Family<RollupLabels, Counter>,
    pub late_points: Family<AgeLabels, Counter>,
    pub set_aside_points: Family<RollupLabels, Counter>,
    pub rebuilt_rows: Family<TierLabels, Counter>,
    pub windows_closed: Family<TierLabels, Counter>,
    pub rows_written: Family<TierLabels, Counter>,
    pub corrected_rows: Family<TierLabels, Counter>,
    pub watermark_seconds: Family<PartitionLabels, Seconds>,
    pub watermark_holder: Family<HolderLabels, Gauge>,
    pub state_rows: Family<StateLabels, Gauge>,
    pub overflow_points: Family<RollupLabels, Counter>,
    pub overflow_groups: Family<RollupLabels, Counter>,
    pub checkpoints: Counter,
    pub checkpoint_seconds: Histogram,
    pub restore_seconds: Histogram,
}

/// Writing results.
#[derive(Debug)]
pub struct SinkMetrics {
    pub write_seconds: Family<SinkLabels, Histogram, fn() -> Histogram>,
    pub errors: Family<ErrorLabels, Counter>,
    pub retries: Family<SinkLabels, Counter>,
}

/// Alerts and their delivery.
#[derive(Debug)]
pub struct NotifyMetrics {
    pub transitions: Family<AlertLabels, Counter>,
    /// Batches of which a rule could not judge each row.
    pub rule_failures: Family<RuleLabels, Counter>,
    pub deliveries: Family<DeliveryLabels, Counter>,
    pub latency_seconds: Family<StageLabels, Histogram, fn() -> Histogram>,
}

impl Metrics {
    /// Every metric at zero, registered under its name.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("tidemark");
        let mut sql = Registrar { registry: &mut registry, prefix: "sql" };
        let sql_failures = sql.metric(
            "failures",
            "What of a rollup's SELECT could not be computed: values, groups, points, states, by cause",
        );
        let mut kafka = Registrar { registry: &mut registry, prefix: "kafka" };
        let kafka_given_up =
            kafka.metric("given_up", "Messages given up because their topic takes none so large, by topic");
        Self {
            sql_failures,
            kafka_given_up,
            ingest: IngestMetrics::register(&mut registry),
            archive: ArchiveMetrics::register(&mut registry),
            rollup: RollupMetrics::register(&mut registry),
            sink: SinkMetrics::register(&mut registry),
            notify: NotifyMetrics::register(&mut registry),
            memory: MemoryMetrics::register(&mut registry),
            registry,
        }
    }

    /// All metrics as OpenMetrics text 1.0.
    ///
    /// # Errors
    /// Never for text: the writer is a `String`.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        self.memory.observe();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl IngestMetrics {
    fn register(registry: &mut Registry) -> Self {
        let mut add = Registrar { registry, prefix: "ingest" };
        Self {
            messages: add.metric("messages", "Messages read from source topics"),
            points: add.metric("points", "Points accepted"),
            rejected: add.metric("rejected", "Points sent to the dead-letter topic"),
            future_points: add
                .metric("future_points", "Points dated too far ahead of the clock, by source partition"),
            heartbeats: add.metric("heartbeats", "Heartbeat messages read"),
            epochs: add.metric("epochs", "Epochs committed"),
            epoch_seconds: add
                .seconds("epoch_seconds", "Time to aggregate an epoch and hand it to its transaction"),
            commit_seconds: add.seconds("commit_seconds", "Time to commit the transaction of an epoch"),
            partitions: add.metric("partitions", "Source partitions that this process owns"),
            paused: add.metric("paused", "1 while nothing is read because the archive's memory is full"),
            partitions_ahead: add
                .metric("partitions_ahead", "source partitions that wait for slower ones, see max_drift"),
            lag_messages: add.metric("lag_messages", "Messages between the position and the end of the log"),
            series: add.metric("series", "Series interned"),
        }
    }
}

impl ArchiveMetrics {
    fn register(registry: &mut Registry) -> Self {
        let mut add = Registrar { registry, prefix: "archive" };
        Self {
            rows: add.metric("rows", "Points written to raw Parquet"),
            files: add.metric("files", "Files of raw Parquet written"),
            bytes: add.metric("bytes", "Bytes of raw Parquet written"),
        }
    }
}

impl RollupMetrics {
    fn register(registry: &mut Registry) -> Self {
        let mut add = Registrar { registry, prefix: "rollup" };
        Self {
            partials: add.metric("partials", "Messages of partial states merged"),
            points: add.metric("points", "Points in the merged partial states"),
            set_aside_points: add
                .metric("set_aside_points", "Points in windows that are left to be rebuilt from raw points"),
            rebuilt_rows: add.metric("rebuilt_rows", "Rows of windows rebuilt from raw points"),
            late_points: add.metric(
                "late_points",
                "Points that came after a window of the finest tier was final, by age",
            ),
            windows_closed: add.metric("windows_closed", "Windows closed"),
            rows_written: add.metric("rows_written", "Rows given to the sinks, corrections included"),
            corrected_rows: add.metric("corrected_rows", "Rows written again because of late points"),
            watermark_seconds: add.metric("watermark_seconds", "Watermark, in seconds since the epoch"),
            watermark_holder: add
                .metric("watermark_holder", "The source partition that holds the watermark back"),
            state_rows: add.metric("state_rows", "Rows of open and correctable windows in memory"),
            overflow_points: add
                .metric("overflow_points", "Points merged into overflow groups, as their own had no place"),
            overflow_groups: add.metric(
                "overflow_groups",
                "States of groups merged into overflow groups; a group counts once an epoch",
            ),
            checkpoints: add.metric("checkpoints", "Snapshots made durable"),
            checkpoint_seconds: add.seconds("checkpoint_seconds", "Time to make a snapshot durable"),
            restore_seconds: add.seconds("restore_seconds", "Time to load the state of a partition"),
        }
    }
}

impl SinkMetrics {
    fn register(registry: &mut Registry) -> Self {
        let write_seconds = Family::new_with_constructor(latency as fn() -> Histogram);
        let mut add = Registrar { registry, prefix: "sink" };
        add.register("write_seconds", "Time until a sink acknowledged a batch", &write_seconds);
        Self {
            write_seconds,
            errors: add.metric("errors", "Writes that failed, by kind"),
            retries: add.metric("retries", "Writes that were tried again"),
        }
    }
}

impl NotifyMetrics {
    fn register(registry: &mut Registry) -> Self {
        let latency_seconds = Family::new_with_constructor(latency as fn() -> Histogram);
        registry.register(
            "alerts_latency_seconds",
            "From the end of an alert's window, or from its newest sample, to a stage",
            latency_seconds.clone(),
        );
        Self {
            latency_seconds,
            transitions: Registrar { registry, prefix: "alerts" }
                .metric("transitions", "Transitions of alerts, by rule and new status"),
            rule_failures: Registrar { registry, prefix: "alerts" }
                .metric("rule_failures", "Batches of rows of which a rule could not judge each one"),
            deliveries: Registrar { registry, prefix: "notify" }
                .metric("deliveries", "Attempts to deliver a notification, by result"),
        }
    }
}

/// Memory of the process.
#[derive(Debug)]
pub struct MemoryMetrics {
    pub budget: Family<PartLabels, Gauge>,
    pub used: Family<PartLabels, Gauge>,
    resident: Gauge,
    resident_peak: Gauge,
}

impl MemoryMetrics {
    fn register(registry: &mut Registry) -> Self {
        let mut add = Registrar { registry, prefix: "memory" };
        Self {
            budget: add.metric("budget_bytes", "Share of the memory budget, by part"),
            used: add.metric("used_bytes", "Memory that a part accounts for"),
            resident: add.metric("resident_bytes", "Resident memory of the process"),
            resident_peak: add
                .metric("resident_peak_bytes", "Most resident memory since the process started"),
        }
    }

    /// What `part` holds now.
    pub fn hold(&self, part: &'static str, bytes: usize) {
        self.used.get_or_create(&PartLabels { part }).set(bytes as i64);
    }

    fn observe(&self) {
        if let Some((now, most)) = super::resident::resident_bytes() {
            self.resident.set(now as i64);
            self.resident_peak.set(most as i64);
        }
    }
}

/// The bucket that a late point's age, measured from the end of its window to the watermark, is
/// counted in.
pub fn age_label(age: Duration) -> &'static str {
    let minute = Duration::from_secs(60);
    if age <= minute {
        "1m"
    } else if age <= 10 * minute {
        "10m"
    } else if age <= 60 * minute {
        "1h"
    } else if age <= 24 * 60 * minute {
        "1d"
    } else {
        "older"
    }
}

/// One millisecond to about half a minute, doubling.
fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

struct Registrar<'r> {
    registry: &'r mut Registry,
    prefix: &'static str,
}

impl Registrar<'_> {
    fn metric<M: Metric + Default + Clone>(&mut self, name: &str, help: &str) -> M {
        let metric = M::default();
        self.register(name, help, &metric);
        metric
    }

    fn seconds(&mut self, name: &str, help: &str) -> Histogram {
        let histogram = latency();
        self.register(name, help, &histogram);
        histogram
    }

    fn register<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: &M) {
        self.registry.register(format!("{}_{name}", self.prefix), help, metric.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        let metrics = Metrics::new();
        let source = SourceLabels { topic: "points".to_owned(), partition: 3 };
        metrics.ingest.messages.get_or_create(&source).inc_by(2);
        metrics.ingest.lag_messages.get_or_create(&source).set(7);
        metrics.rollup.watermark_seconds.get_or_create(&PartitionLabels { partition: 0 }).set(1.5);
        metrics.sink.write_seconds.get_or_create(&SinkLabels { sink: "influx" }).observe(0.003);
        let late = AgeLabels { rollup: "cpu".to_owned(), age: age_label(Duration::from_secs(61)) };
        metrics.rollup.late_points.get_or_create(&late).inc();
        let text = metrics.encode().expect("text");
        let expected = [
            "tidemark_ingest_messages_total{topic=\"points\",partition=\"3\"} 2",
            "tidemark_ingest_points_total 0",
            "tidemark_ingest_lag_messages{topic=\"points\",partition=\"3\"} 7",
            "tidemark_ingest_epoch_seconds_count 0",
            "tidemark_archive_bytes_total 0",
            "tidemark_rollup_watermark_seconds{partition=\"0\"} 1.5",
            "tidemark_rollup_late_points_total{rollup=\"cpu\",age=\"10m\"} 1",
            "tidemark_rollup_checkpoints_total 0",
            "tidemark_sink_write_seconds_count{sink=\"influx\"} 1",
            "# EOF",
        ];
        for line in expected {
            assert!(text.lines().any(|found| found == line), "{line} is missing from\n{text}");
        }
        for line in text.lines().filter(|line| line.starts_with("# TYPE")) {
            let name = line.split(' ').nth(2).expect("a name");
            assert!(!name.contains("_total"), "{name}: the encoder adds the suffix of counters");
            assert!(name.starts_with("tidemark_"), "{name}");
        }
    }

    #[test]
    fn ages() {
        let cases = [(0, "1m"), (60, "1m"), (61, "10m"), (3_600, "1h"), (86_400, "1d"), (86_401, "older")];
        for (seconds, expected) in cases {
            assert_eq!(age_label(Duration::from_secs(seconds)), expected, "{seconds} s");
        }
    }
}
