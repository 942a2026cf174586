//! What stops a role, and whether starting it again may help.

use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};

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
    /// Kafka failed while a role was at work.
    #[error("kafka failed to {action}: {source}")]
    Client {
        action: &'static str,
        #[source]
        source: ClientError,
    },
    /// SQL over what is stored failed.
    #[error("a query over what is stored failed: {0}")]
    Batch(#[source] Box<datafusion::error::DataFusionError>),
    /// Something that the role was given cannot work; the text names it and the remedy.
    #[error("{0}")]
    Refused(String),
    /// Another thread or task of the role ended early.
    #[error("{0} stopped")]
    Stopped(&'static str),
    /// The role ended in order, to begin anew with what has changed.
    #[error("{0} changed")]
    Changed(&'static str),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn client(action: &'static str) -> impl FnOnce(ClientError) -> Self {
        move |source| Self::Client { action, source }
    }

    pub(crate) fn batch(source: datafusion::error::DataFusionError) -> Self {
        Self::Batch(Box::new(source))
    }

    /// Whether the role should start again from its committed offsets rather than end the process.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Client { source, .. } => !matches!(
                source.rdkafka_error_code(),
                Some(
                    RDKafkaErrorCode::GroupAuthorizationFailed
                        | RDKafkaErrorCode::TopicAuthorizationFailed
                        | RDKafkaErrorCode::SaslAuthenticationFailed
                        | RDKafkaErrorCode::UnsupportedForMessageFormat
                )
            ),
            Self::Kafka(KafkaError::Setup { .. }) => false,
            Self::Kafka(_) | Self::Stopped(_) | Self::Changed(_) | Self::Batch(_) => true,
            Self::Sink(error) => error.retryable(),
            Self::Config(_) | Self::Sql(_) | Self::Http(_) | Self::Compute(_) | Self::Refused(_) => false,
        }
    }
}
