//! Mistakes in rules, in words for their authors.

use thiserror::Error;

/// A mistake in a rule, for its author.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("alert rule `{rule}`, key `{key}`: {message}; {remedy}")]
pub struct RuleError {
    pub rule: String,
    /// The key in the rule's configuration.
    pub key: &'static str,
    pub message: String,
    /// What to write instead.
    pub remedy: String,
}

/// The message and remedy of a [`RuleError`], before the rule and the key are known.
#[derive(Debug)]
pub(super) struct Complaint {
    message: String,
    remedy: String,
}

impl Complaint {
    pub(super) fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: remedy.into() }
    }

    /// The complaint with the key in the rule's configuration that it is about.
    pub(super) fn at(self, key: &'static str) -> AtKey {
        (key, self)
    }

    /// The error of the rule called `rule`.
    pub(super) fn of_rule(self, rule: &str, key: &'static str) -> RuleError {
        let Self { message, remedy } = self;
        RuleError { rule: rule.to_owned(), key, message, remedy }
    }
}

/// A complaint, and the key in the rule's configuration that it is about.
pub(super) type AtKey = (&'static str, Complaint);

/// The candidate that was most likely meant by `word`, if any is alike.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len().min(word.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Names in backquotes, for a message.
pub(super) fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
