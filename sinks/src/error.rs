//! What can go wrong in a sink, told apart by what the caller should do about it.

use std::fmt;

/// An error of a sink. [`Error::retryable`] says whether the same call can succeed later by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot work. The message names the place and the remedy.
    #[error("{0}")]
    Config(String),

    /// The rows do not fit their table or the store.
    #[error("rows do not fit: {reason} table=`{table}`")]
    Rows { table: String, reason: String },

    /// The other side answered, and will answer the same until a person changes something there or here.
    #[error("{place} refused: {message} status=`{status}`")]
    Refused { place: String, status: u16, message: String },

    /// The other side is away or busy.
    #[error("{place} is unavailable: {reason}")]
    Unavailable { place: String, reason: String },

    /// A message reached some of its recipients only. Writing the same notification to the same sink again
    /// sends it to the others alone.
    #[error("not delivered to {}", Listed(.0))]
    Recipients(Vec<FailedRecipient>),

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
    pub reason: String,
}

impl Error {
    /// Whether the same call can succeed later without anyone changing anything.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Config(_) | Self::Rows { .. } | Self::Refused { .. } => false,
            Self::Parquet(_) | Self::Arrow(_) => false,
            Self::Unavailable { .. } => true,
            Self::Recipients(failed) => failed.iter().any(|recipient| !recipient.permanent),
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

    #[test]
    fn recipients_are_listed_and_retried_while_one_failed_in_passing() {
        let failed = |permanent| FailedRecipient {
            address: "ops@example.org".into(),
            permanent,
            reason: "mailbox full".into(),
        };
        let error = Error::Recipients(vec![failed(true), failed(false)]);
        assert!(error.retryable());
        assert_eq!(
            error.to_string(),
            "not delivered to ops@example.org: mailbox full; ops@example.org: mailbox full"
        );
        assert!(!Error::Recipients(vec![failed(true)]).retryable());
    }
}
