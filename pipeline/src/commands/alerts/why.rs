//! Why was somebody notified of an alert, or why not: one answer, and what it rests on. Pure.

use std::collections::BTreeMap;
use std::fmt;

use alerts::dispatch::What;
use alerts::{Status, Transition};
use serde::Serialize;

use super::evidence::Evidence;
use super::words::{judged, notified, outcomes, stands, written};
use crate::config::suggest;
use crate::time::Time;
use crate::time::nanoseconds;

/// Alerts that are listed when it is not clear which one is meant.
const MOST_LISTED: usize = 20;

/// An answer for people; as JSON it has the same lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Answer {
    pub(crate) answer: String,
    /// What it rests on.
    pub(crate) evidence: Vec<String>,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.answer)?;
        self.evidence.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl Answer {
    /// Puts an answer before this one, which becomes what it rests on.
    fn under(self, answer: String, introduction: &str) -> Self {
        let mut evidence = vec![format!("{introduction}: {}", self.answer)];
        evidence.extend(self.evidence);
        Self { answer, evidence }
    }
}

/// `labels` are some of the alert's.
///
/// # Errors
/// No such rule, or several alerts that have these labels; for people.
pub(crate) fn why(
    evidence: &Evidence,
    rule: &str,
    labels: &BTreeMap<String, String>,
) -> Result<Answer, String> {
    let is_meant = |transition: &&Transition| {
        transition.rule == rule
            && labels.iter().all(|(name, value)| transition.labels.get(name) == Some(value))
    };
    let active: Vec<&Transition> = evidence.active.iter().filter(is_meant).collect();
    let was: Vec<&Transition> = evidence.transitions.iter().filter(is_meant).collect();
    let known = evidence.rules.rules.iter().find(|known| known.name == rule);
    let is_in_ledger = evidence.ledger.entries.iter().any(|entry| entry.rule == rule);
    if known.is_none() && active.is_empty() && was.is_empty() && !is_in_ledger {
        return Err(no_rule(evidence, rule));
    }

    let mut answer = match meant(&active, true)? {
        Some(state) if state.status == Status::Pending => {
            pending(state, known.map(|known| nanoseconds(known.hold_for)))
        }
        Some(state) => firing(evidence, state),
        None => match meant(&was, false)? {
            Some(last) => over(evidence, last),
            None => never(evidence, rule),
        },
    };
    if let Some(stall) = evidence.stall() {
        let is_firing = active.iter().any(|state| state.status == Status::Firing);
        if is_firing {
            answer.evidence.insert(0, stall.describe());
        } else {
            // What is not judged cannot fire.
            answer = answer.under(stall.describe(), "as of then");
        }
    }
    match known {
        None => {
            let text = format!("there is no rule `{rule}` any more");
            Ok(answer.under(text, "last transition"))
        }
        Some(known) => Ok(match &known.mistake {
            Some(mistake) => {
                let text = format!("`{rule}` is left out of use, and is not judged: {mistake}");
                answer.under(text, "as of then")
            }
            None => answer,
        }),
    }
}

fn no_rule(evidence: &Evidence, rule: &str) -> String {
    let names: Vec<&str> = evidence.rules.rules.iter().map(|known| known.name.as_str()).collect();
    match evidence.rules.problems.first() {
        None => format!("there is no rule `{rule}`: {}", suggest(rule, &names)),
        Some(problem) => format!(
            "there is no rule `{rule}` that can be used: {}; the rules' file has mistakes, the first: {problem}",
            suggest(rule, &names)
        ),
    }
}

/// The newest transition of the one alert that these are of. Of alerts that differ in labels that
/// only some have, the plain one: missing data make an alert with a label more.
fn meant<'t>(transition: &[&'t Transition], is_active: bool) -> Result<Option<&'t Transition>, String> {
    let newest: BTreeMap<&BTreeMap<String, String>, &Transition> =
        transition.iter().map(|transition| (&transition.labels, *transition)).collect();
    let plain = newest.iter().min_by_key(|(labels, _)| labels.len());
    let Some((plain, one)) = plain else { return Ok(None) };
    let is_part =
        |labels: &BTreeMap<String, String>| plain.iter().all(|(name, value)| labels.get(name) == Some(value));
    if newest.keys().all(|labels| is_part(labels)) {
        return Ok(Some(one));
    }
    let state = |transition: &Transition| if is_active { transition.status.as_str() } else { "not firing" };
    let mut lines: Vec<String> = newest
        .iter()
        .take(MOST_LISTED)
        .map(|(labels, transition)| format!("  {} {}", written(labels), state(transition)))
        .collect();
    if newest.len() > MOST_LISTED {
        lines.push(format!("  and {} more", newest.len() - MOST_LISTED));
    }
    Err(format!("several alerts have these labels, add some of:\n{}", lines.join("\n")))
}

fn pending(state: &Transition, hold: Option<i64>) -> Answer {
    let since = format!("pending since {}", Time(state.starts_at));
    let answer = match hold {
        None => since,
        Some(hold) => format!(
            "{since}: it fires when its condition still holds in the window that ends at {}",
            Time(state.starts_at.saturating_add(hold))
        ),
    };
    Answer { answer, evidence: vec![judged(state)] }
}

fn firing(evidence: &Evidence, state: &Transition) -> Answer {
    let since = format!("firing since {}", Time(state.starts_at));
    let entries = evidence.ledger.of_incident(&state.incident);
    let mut lines = vec![judged(state)];
    lines.extend(entries.iter().map(|entry| notified(entry)));
    let is_taken_in = |alert: &Transition| {
        alert.incident == state.incident && alert.rule == state.rule && alert.labels == state.labels
    };
    if !evidence.dispatcher.alerts().any(is_taken_in) {
        let answer = format!("{since}: `notify` has not taken it in yet: does it run?");
        return Answer { answer, evidence: lines };
    }
    let standings = evidence.dispatcher.standing(&state.rule, &state.labels, evidence.now);
    let mut clauses: Vec<String> =
        standings.iter().map(|standing| stands(evidence, state, standing)).collect();
    // Receivers that the ledger has as missing may exist by now.
    let mut nobody = "no receiver in the rule, and no route that matches";
    for entry in entries.iter().filter(|entry| entry.what == What::NotRouted) {
        let reason = entry.reason.as_deref().unwrap_or_default();
        let Some(receiver) = &entry.receiver else {
            nobody = reason;
            continue;
        };
        let clause = format!("`{receiver}` is not notified: {reason}");
        if !clauses.contains(&clause) && !standings.iter().any(|standing| standing.receiver == *receiver) {
            clauses.push(clause);
        }
    }
    if clauses.is_empty() {
        clauses.push(format!("nobody is to be notified: {nobody}"));
    }
    Answer { answer: format!("{since}: {}", clauses.join("; ")), evidence: lines }
}

/// The alert neither fires nor is pending.
fn over(evidence: &Evidence, last: &Transition) -> Answer {
    let (began, ended) = (Time(last.starts_at), Time(last.ends_at.unwrap_or(last.window_end)));
    let entries = evidence.ledger.of_incident(&last.incident);
    let mut answer = match last.status {
        Status::Inactive => format!("not firing: it was pending from {began} and ended at {ended}"),
        Status::Resolved => {
            format!("not firing: it was from {began}, and resolved at {ended} ({})", last.cause.as_str())
        }
        // The topic of states is written after that of transitions.
        Status::Pending | Status::Firing => format!("{} since {began}, and just changing", last.status),
    };
    if last.status == Status::Resolved {
        let is_taken_in = entries.iter().any(|entry| entry.transition.as_ref() == Some(&last.id));
        let mut clauses = outcomes(evidence, &last.incident);
        if !is_taken_in {
            clauses.push("`notify` has not taken in its end yet: does it run?".to_owned());
        }
        if !clauses.is_empty() {
            answer = format!("{answer}: {}", clauses.join("; "));
        }
    }
    let mut lines = vec![judged(last)];
    lines.extend(entries.iter().map(|entry| notified(entry)));
    Answer { answer, evidence: lines }
}

/// No transition of it is in the topic. The ledger goes back farther.
fn never(evidence: &Evidence, rule: &str) -> Answer {
    let last = evidence.ledger.entries.iter().rfind(|entry| entry.rule == rule && !entry.incident.is_empty());
    let Some(last) = last else {
        let answer =
            format!("not firing, and it has not been: `{rule}` was true in no window that was judged");
        return Answer { answer, evidence: Vec::new() };
    };
    let incident = evidence.ledger.of_incident(&last.incident);
    Answer {
        answer: format!("not firing: the ledger has its last incident, of {}", Time(incident[0].at)),
        evidence: std::iter::once(written(&last.labels))
            .chain(incident.iter().map(|entry| notified(entry)))
            .collect(),
    }
}

#[cfg(test)]
#[path = "why_tests.rs"]
pub(super) mod tests;
