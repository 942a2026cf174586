//! What the program tells about itself: logs on standard error, metrics for Prometheus.

mod logs;
mod metrics;

pub use logs::{LogFormat, LogsError, init};
pub use metrics::{
    AgeLabels, AlertLabels, ArchiveMetrics, DeliveryLabels, ErrorLabels, HolderLabels, IngestMetrics,
    MemoryMetrics, Metrics, NotifyMetrics, PartLabels, PartitionLabels, ReasonLabels, RollupLabels,
    RollupMetrics, Seconds, SinkLabels, SinkMetrics, SourceLabels, StageLabels, StateLabels, TierLabels,
    age_label,
};
