//! What stops a role, and whether starting it again may help.

use rdkafka::error::KafkaError as ClientError;

use crate::catalog::SqlDirError;
use crate::config::ConfigError;
use crate::http::HttpError;
use crate::kafka::KafkaError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Sql(#[from] SqlDirError),
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Sink(#[from] sinks::Error),
    #[error(transparent)]
    Compute(#[from] operators::Error),
    #[error(transparent)]
    Alerts(#[from] alerts::Error),
    #[error(transparent)]
    Query(#[from] query::Error),
    /// Something that the role was given cannot work; the text names it and the remedy.
    #[error("{0}")]
    Refused(String),
    /// The session cannot go on; the text is a whole sentence. The next one starts from the
    /// committed offsets.
    #[error("{0}")]
    Interrupted(&'static str),
    /// The state of a partition as of an offset is not in storage.
    #[error(
        "the snapshot of a committed offset is missing, path=`{path}`: restore it, or point `url` of [storage] to \
         the storage that the role used before; to start from scratch, delete the consumer group"
    )]
    NoSnapshot { path: String },
    /// The role ended in order, to start over with what has changed.
    #[error("{0} changed")]
    Changed(&'static str),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn client(action: &'static str) -> impl FnOnce(ClientError) -> Self {
        move |source| KafkaError::client(action)(source).into()
    }

    /// The client's own error, of a Kafka client that was at work.
    pub(crate) fn of_client(&self) -> Option<&ClientError> {
        match self {
            Self::Kafka(error) => error.of_client(),
            _ => None,
        }
    }

    /// Whether the role should start again from its committed offsets rather than end the process.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Kafka(error) => error.retryable(),
            Self::Interrupted(_) | Self::Changed(_) => true,
            Self::Query(error) => error.retryable(),
            Self::Sink(error) => error.retryable(),
            Self::Config(_)
            | Self::Sql(_)
            | Self::Http(_)
            | Self::Compute(_)
            | Self::Alerts(_)
            | Self::NoSnapshot { .. }
            | Self::Refused(_) => false,
        }
    }
}
