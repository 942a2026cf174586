//! A refusal of a SQL file: where, what, and what to write instead.

use std::fmt;

use datafusion::sql::sqlparser::tokenizer::{Location, Span};

/// Names file, line and column, the mistake and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlError {
    pub file: String,
    /// Counted from 1; 0 when the whole file is meant.
    pub line: u64,
    pub column: u64,
    pub message: String,
    pub remedy: String,
}

impl SqlError {
    pub(crate) fn new(span: Span, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::at(span.start, message, remedy)
    }

    pub(crate) fn at(place: Location, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            file: String::new(),
            line: place.line,
            column: place.column,
            message: message.into(),
            remedy: remedy.into(),
        }
    }

    pub(crate) fn in_file(mut self, file: &str) -> Self {
        self.file = file.to_owned();
        self
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}", self.message)?;
        if !self.remedy.is_empty() {
            write!(f, "\n  help: {}", self.remedy)?;
        }
        Ok(())
    }
}

impl std::error::Error for SqlError {}
