//! What can go wrong in a sink, told apart by what the caller should do about it.

use std::fmt;
use std::time::Duration;

/// An error of a sink. [`Error::retryable`]: whether the same call can succeed later by itself,
/// [`Error::may_have_arrived`] whether it may have succeeded already.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot work. The message names the place and the remedy.
    #[error("{0}")]
    Config(String),

    /// The rows do not fit their table or the store.
    #[error("rows do not fit: {reason} table=`{table}`")]
    Rows { table: String, reason: String },

    /// The other side answered, and will answer the same until a person changes something there or
    /// here.
    #[error("{place} refused: {message} status=`{status}`")]
    Refused { place: String, status: u16, message: String },

    /// The other side is away or busy.
    #[error("{place} is unavailable: {reason}")]
    Unavailable {
        place: String,
        reason: String,
        /// It may have taken what it was sent: the connection stood, and no answer came.
        doubtful: bool,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },

    /// A message did not reach all of its recipients. Writing the same notification to the same
    /// sink again sends it to the others alone.
    #[error("not delivered to {}", Listed(.failed))]
    Recipients {
        failed: Vec<FailedRecipient>,
        /// Recipients that were reached, by this or an earlier write.
        reached: usize,
    },

    #[error("object store request failed")]
    Store(#[from] object_store::Error),

    #[error("parquet encoding failed")]
    Parquet(#[from] parquet::errors::ParquetError),

    #[error("arrow conversion failed")]
    Arrow(#[from] arrow::error::ArrowError),
}

/// One recipient that a message did not reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedRecipient {
    pub address: String,
    /// True when the server refused for good (5xx), false when trying again may help.
    pub permanent: bool,
    /// The server may have taken the message nevertheless.
    pub doubtful: bool,
    pub reason: String,
}

impl Error {
    /// Whether the same call can succeed later without anyone changing anything.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Config(_) | Self::Rows { .. } | Self::Refused { .. } => false,
            Self::Parquet(_) | Self::Arrow(_) => false,
            Self::Unavailable { .. } => true,
            Self::Recipients { failed, .. } => failed.iter().any(|recipient| !recipient.permanent),
            Self::Store(error) => !matches!(
                error,
                object_store::Error::InvalidPath { .. }
                    | object_store::Error::NotImplemented { .. }
                    | object_store::Error::NotSupported { .. }
                    | object_store::Error::PermissionDenied { .. }
                    | object_store::Error::Unauthenticated { .. }
                    | object_store::Error::UnknownConfigurationKey { .. }
            ),
        }
    }

    /// Whether the other side may have taken the message, or a part of it, nevertheless: then only
    /// the same message under the same id can be written again without telling something twice.
    pub fn may_have_arrived(&self) -> bool {
        match self {
            Self::Config(_) | Self::Rows { .. } | Self::Refused { .. } => false,
            Self::Parquet(_) | Self::Arrow(_) => false,
            Self::Unavailable { doubtful, .. } => *doubtful,
            Self::Recipients { failed, reached } => {
                *reached > 0 || failed.iter().any(|recipient| recipient.doubtful)
            }
            Self::Store(_) => true,
        }
    }

    /// How long the other side asks to wait before the next attempt, at most an hour.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

struct Listed<'a>(&'a [FailedRecipient]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, recipient) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {}", recipient.address, recipient.reason)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(permanent: bool, doubtful: bool) -> FailedRecipient {
        FailedRecipient {
            address: "ops@example.org".into(),
            permanent,
            doubtful,
            reason: "mailbox full".into(),
        }
    }

    #[test]
    fn recipients_are_listed_and_retried_while_one_failed_in_passing() {
        let error = Error::Recipients { failed: vec![failed(true, false), failed(false, false)], reached: 0 };
        assert!(error.retryable());
        assert_eq!(
            error.to_string(),
            "not delivered to ops@example.org: mailbox full; ops@example.org: mailbox full"
        );
        assert!(!Error::Recipients { failed: vec![failed(true, false)], reached: 0 }.retryable());
    }

    #[test]
    fn a_message_to_several_has_arrived_when_it_may_have_reached_one() {
        for (failed, reached, expected) in [
            (vec![failed(true, false), failed(false, false)], 0, false),
            (vec![failed(true, false), failed(false, true)], 0, true),
            (vec![failed(false, false)], 1, true),
        ] {
            let error = Error::Recipients { failed, reached };
            assert_eq!(error.may_have_arrived(), expected, "{error:?}");
        }
    }
}
