//! What can go wrong while computing. Bad input never ends up here: a message has its
//! `decode::Rejection`, a SQL file its `sql::SqlError`, a rule its `threshold::RuleError`.

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;

use crate::sql::cause;

/// A failure of the computation itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// DataFusion refused or failed to run a planned stage.
    #[error("the rollup cannot be computed rollup=`{rollup}`: {source}")]
    Compute {
        rollup: String,
        #[source]
        source: Box<DataFusionError>,
    },
    /// A message or snapshot is not in a format that this version reads.
    #[error("unreadable {what}: {detail}")]
    Format { what: &'static str, detail: String },
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

impl Error {
    pub(crate) fn compute(rollup: &str) -> impl FnOnce(DataFusionError) -> Self {
        let rollup = rollup.to_owned();
        move |source| Self::Compute { rollup, source: Box::new(source) }
    }

    /// Why, without what was to be computed.
    pub(crate) fn root(&self) -> String {
        match self {
            Self::Compute { source, .. } => cause(source),
            other => other.to_string(),
        }
    }

    pub(crate) fn format(what: &'static str, detail: impl std::fmt::Display) -> Self {
        Self::Format { what, detail: detail.to_string() }
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
