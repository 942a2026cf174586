//! What can go wrong while reading what is stored.

use datafusion::error::DataFusionError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// DataFusion refused or failed to run a query over stored rows.
    #[error("a query over what is stored failed: {0}")]
    Run(#[source] Box<DataFusionError>),
    /// The text is no query, or one that is not run; the text has the remedy.
    #[error("{0}")]
    Statement(String),
    /// The query is none over the tables that there are.
    #[error("the query cannot be planned: {0}")]
    Plan(#[source] Box<DataFusionError>),
    /// A file is none of its table's; the text names it and the remedy.
    #[error("{0}")]
    File(String),
    #[error(transparent)]
    Sink(#[from] sinks::Error),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn run(source: DataFusionError) -> Self {
        Self::Run(Box::new(source))
    }

    /// Whether trying again later may help.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Run(_) => true,
            Self::Sink(error) => error.retryable(),
            Self::Statement(_) | Self::Plan(_) | Self::File(_) => false,
        }
    }
}

impl From<DataFusionError> for Error {
    fn from(source: DataFusionError) -> Self {
        Self::run(source)
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(source: arrow::error::ArrowError) -> Self {
        Self::Sink(sinks::Error::Arrow(source))
    }
}
