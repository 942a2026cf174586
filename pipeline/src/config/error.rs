//! The one error of configuration: where, what is wrong, what to write instead.

use std::fmt;
use std::path::{Path, PathBuf};

/// A setting that cannot be used. It displays as
/// `file:line:column: what is wrong: what to write instead`; the alternate form (`{:#}`) gives the
/// remedy a line of its own, after `help:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    place: Place,
    problem: String,
    remedy: Option<String>,
}

/// Where a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    /// Line and column count from 1, columns in characters.
    Line {
        path: PathBuf,
        line: usize,
        column: usize,
    },
    /// An override of the environment, by its name.
    Variable(String),
}

impl ConfigError {
    pub(super) fn file(path: &Path, problem: impl Into<String>) -> Self {
        Self { place: Place::File(path.to_owned()), problem: problem.into(), remedy: None }
    }

    /// An error whose place is not known yet.
    pub(super) fn nowhere() -> Self {
        Self::file(Path::new(""), "")
    }

    pub(super) fn variable(name: &str, problem: impl Into<String>) -> Self {
        Self { place: Place::Variable(name.to_owned()), problem: problem.into(), remedy: None }
    }

    pub(super) fn line(path: &Path, text: &str, offset: usize, problem: impl Into<String>) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.matches('\n').count() + 1;
        let column = before[line_start..].chars().count() + 1;
        Self {
            place: Place::Line { path: path.to_owned(), line, column },
            problem: problem.into(),
            remedy: None,
        }
    }

    /// The place `passed` further on, where `passed` is text of the file that follows this place.
    pub(super) fn moved(mut self, passed: &str) -> Self {
        if let Place::Line { line, column, .. } = &mut self.place {
            match passed.rfind('\n') {
                Some(at) => {
                    *line += passed.matches('\n').count();
                    *column = passed[at + 1..].chars().count() + 1;
                }
                None => *column += passed.chars().count(),
            }
        }
        self
    }

    pub(super) fn remedy_text(&self) -> Option<&str> {
        self.remedy.as_deref()
    }

    pub(super) fn problem(mut self, problem: impl Into<String>) -> Self {
        self.problem = problem.into();
        self
    }

    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File(path) => write!(f, "{}: ", path.display())?,
            Place::Line { path, line, column } => write!(f, "{}:{line}:{column}: ", path.display())?,
            Place::Variable(name) => write!(f, "environment variable {name}: ")?,
        }
        f.write_str(&self.problem)?;
        if let Some(remedy) = &self.remedy {
            let separator = if f.alternate() { "\n  help: " } else { ": " };
            write!(f, "{separator}{remedy}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
