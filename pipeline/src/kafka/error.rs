//! How a request to Kafka ends when it fails, and whether trying again may help.

use std::time::Duration;

use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};

use super::{Cause, Reports};
use crate::config::KafkaConfig;

/// A Kafka client could not be made, or could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// The settings do not work: trying again does not help. The reason is the library's, without
    /// the values of properties.
    #[error(
        "cannot set up a Kafka {client}: {reason}: check [kafka.properties] in the configuration, brokers=`{brokers}`"
    )]
    Setup { client: &'static str, brokers: String, reason: String },
    /// No broker answered in time: trying again may help.
    #[error("{}: {}, brokers=`{brokers}`", cause.after(*.timeout), cause.remedy())]
    Unreachable { brokers: String, timeout: Duration, cause: Cause },
    /// A broker answered with an error.
    #[error("Kafka refused to {action}, brokers=`{brokers}`")]
    Refused {
        action: String,
        brokers: String,
        #[source]
        source: Box<ClientError>,
    },
    /// A topic that has to exist does not.
    #[error("topic `{topic}` does not exist: create it with `tidemark topics create`")]
    NoTopic { topic: String },
    /// A client that was at work failed.
    #[error("kafka failed to {action}: {source}")]
    Client {
        action: &'static str,
        #[source]
        source: ClientError,
    },
    /// The thread that waited for an answer ended early.
    #[error("a request to Kafka was given up")]
    GivenUp,
}

impl KafkaError {
    pub(crate) fn client(action: &'static str) -> impl FnOnce(ClientError) -> Self {
        move |source| Self::Client { action, source }
    }

    /// Whether the same may go well later, without a person's doing.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Setup { .. } | Self::NoTopic { .. } => false,
            Self::Unreachable { .. } | Self::Refused { .. } | Self::GivenUp => true,
            Self::Client { source, .. } => !matches!(
                source.rdkafka_error_code(),
                Some(
                    RDKafkaErrorCode::GroupAuthorizationFailed
                        | RDKafkaErrorCode::TopicAuthorizationFailed
                        | RDKafkaErrorCode::SaslAuthenticationFailed
                        | RDKafkaErrorCode::UnsupportedForMessageFormat
                )
            ),
        }
    }

    /// The client's own error, of a client that was at work.
    pub(crate) fn of_client(&self) -> Option<&ClientError> {
        match self {
            Self::Client { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Distinguishes a broker that does not answer from one that refuses.
pub(crate) fn refused(
    kafka: &KafkaConfig,
    action: &str,
    timeout: Duration,
    cause: Cause,
    source: ClientError,
) -> KafkaError {
    let brokers = kafka.brokers.join(",");
    let silent = [
        RDKafkaErrorCode::BrokerTransportFailure,
        RDKafkaErrorCode::AllBrokersDown,
        RDKafkaErrorCode::OperationTimedOut,
        RDKafkaErrorCode::Resolve,
    ];
    match source.rdkafka_error_code() {
        Some(code) if silent.contains(&code) => KafkaError::Unreachable { brokers, timeout, cause },
        _ => KafkaError::Refused { action: action.to_owned(), brokers, source: Box::new(source) },
    }
}

/// Passes over errors of reading that the client mends by itself, while what was read is worked on.
///
/// # Errors
/// All others: they end the session.
pub(crate) fn go_on_after(action: &'static str, error: ClientError) -> Result<(), KafkaError> {
    let fatal = matches!(error, ClientError::MessageConsumptionFatal(_));
    // The same line as that of the client's own report, once a minute.
    Reports::default().error(&error, action);
    // The log has not what is to be read next: the checks of a take-over find out why.
    let lost = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset);
    let error = KafkaError::client(action)(error);
    if fatal || lost || !error.retryable() { Err(error) } else { Ok(()) }
}
