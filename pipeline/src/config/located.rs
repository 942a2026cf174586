//! Texts of a file that are compiled later: what they are, and where they stand.

use std::fmt;

use toml::Spanned;

use super::error::ConfigError;
use super::source::Source;

/// A text and where it stands, so that a later compiler can point at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    pub text: String,
    place: ConfigError,
    /// The text as it is in the file, with its quotes and escapes.
    written: String,
}

impl Located {
    /// An error at the place of this text.
    pub fn error(&self, problem: impl Into<String>, remedy: impl Into<String>) -> ConfigError {
        self.place.clone().problem(problem).remedy(remedy)
    }

    /// An error at the first `word` of this text, or at its start when that does not stand in it as
    /// a word.
    pub fn error_at(&self, word: &str, problem: impl Into<String>, remedy: impl Into<String>) -> ConfigError {
        let passed = &self.written[..find_word(&self.written, word).unwrap_or(0)];
        self.place.clone().moved(passed).problem(problem).remedy(remedy)
    }

    /// An error at a line and column of this text, counted from 1, as a parser of it counts them.
    /// Right as long as the text starts in the line of its quotes and has no escapes before the
    /// place; else at the start.
    pub fn error_in(
        &self,
        line: usize,
        column: usize,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> ConfigError {
        let quoted = ['"', '\''].into_iter().find_map(|quote| {
            let rest = self.written.strip_prefix(quote)?;
            (line == 1 && !rest.starts_with(quote)).then_some(rest)
        });
        let passed = match quoted.and_then(|rest| rest.char_indices().nth(column.saturating_sub(1))) {
            Some((at, _)) => &self.written[..=at],
            None => "",
        };
        // With an escape the place is not where it seems to be.
        let is_plain = self.written.starts_with('\'') || !passed.contains('\\');
        let passed = if is_plain { passed } else { "" };
        self.place.clone().moved(passed).problem(problem).remedy(remedy)
    }

    pub(super) fn new(source: &Source<'_>, text: Spanned<String>) -> Self {
        let place = source.error(&text.span(), "");
        let written = source.excerpt(&text.span()).to_owned();
        Self { text: text.into_inner(), place, written }
    }

    /// A text that the file leaves out; errors about it point at another one's place.
    pub(super) fn default_at(other: &Self, text: &str) -> Self {
        Self { text: text.to_owned(), place: other.place.clone(), written: String::new() }
    }
}

/// Where `word` stands in `text` and is not a part of a longer word.
fn find_word(text: &str, word: &str) -> Option<usize> {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    let bounded = |at: &usize| {
        let before = text[..*at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(in_word) && !after.is_some_and(in_word)
    };
    match word.chars().all(in_word) {
        true => text.match_indices(word).map(|(at, _)| at).find(bounded),
        false => None,
    }
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
