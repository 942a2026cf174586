//! The roles of a process.

use clap::ValueEnum;

/// A part of the pipeline that can run in a process of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Raw points to partial states and to cold storage
    Ingest,
    /// Partial states to rollups and alerts
    Rollup,
    /// Alerts to mails and webhooks
    Notify,
}

impl Role {
    /// As threads, logs and `/readyz` have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Rollup => "rollup",
            Self::Notify => "notify",
        }
    }
}
