//! What the program tells about itself: logs on standard error, metrics for Prometheus.

mod logs;
mod metrics;
mod once_a_minute;
mod resident;

pub use logs::{LogFormat, LogsError, init};
pub use metrics::{
    AgeLabels, AlertLabels, ArchiveMetrics, DeliveryLabels, ErrorLabels, FailureLabels, HolderLabels,
    IngestMetrics, MemoryMetrics, Metrics, NotifyMetrics, PartLabels, PartitionLabels, ReasonLabels,
    RollupLabels, RollupMetrics, RuleLabels, Seconds, SinkLabels, SinkMetrics, SourceLabels, StageLabels,
    StateLabels, TierLabels, TopicLabels, age_label,
};
pub(crate) use once_a_minute::OnceAMinute;
