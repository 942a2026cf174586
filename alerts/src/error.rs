//! What can go wrong when a dispatcher is restored.

/// A record of the dispatcher's state cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not in a format that this version reads.
    #[error("unreadable {what}: {detail}")]
    Format { what: &'static str, detail: String },
}

impl Error {
    pub(crate) fn format(what: &'static str, detail: impl std::fmt::Display) -> Self {
        Self::Format { what, detail: detail.to_string() }
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
