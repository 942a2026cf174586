//! Why was somebody told of an alert, or why not: one answer, and what it rests on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use operators::dispatch::{Entry, Standing, State, What};
use operators::threshold::{Status, Transition};
use serde::Serialize;

use super::evidence::Evidence;
use crate::clock::nanoseconds;
use crate::config::suggest;
use crate::why::Time;

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

/// `labels` are some of the alert's.
///
/// # Errors
/// No such rule, or several alerts that have these labels; for people.
pub(crate) fn why(
    evidence: &Evidence,
    rule: &str,
    labels: &BTreeMap<String, String>,
) -> Result<Answer, String> {
    let Some(known) = evidence.rules.iter().find(|known| known.name == rule) else {
        let names: Vec<&str> = evidence.rules.iter().map(|known| known.name.as_str()).collect();
        return Err(format!("there is no rule `{rule}`: {}", suggest(rule, &names)));
    };
    let is_meant = |of: &str, given: &BTreeMap<String, String>| {
        of == rule && labels.iter().all(|(name, value)| given.get(name) == Some(value))
    };
    let active: Vec<&Transition> =
        evidence.active.iter().filter(|state| is_meant(&state.rule, &state.labels)).collect();
    let mut answer = match active.as_slice() {
        [] => inactive(evidence, rule, &is_meant)?,
        [one] if one.status == Status::Pending => pending(one, nanoseconds(known.hold_for)),
        [one] => firing(evidence, one),
        several => {
            return Err(several_alerts(several.iter().map(|state| (&state.labels, state.status.as_str()))));
        }
    };
    // Whatever is said is only as of the data.
    if let Some(stall) = evidence.stall() {
        answer.evidence.insert(0, format!("as of then: {}", answer.answer));
        answer.answer = stall.describe();
    }
    Ok(answer)
}

fn several_alerts<'a>(alerts: impl Iterator<Item = (&'a BTreeMap<String, String>, &'a str)>) -> String {
    let lines: Vec<String> =
        alerts.map(|(labels, status)| format!("  {} {status}", written(labels))).collect();
    format!("several alerts have these labels, add some of:\n{}", lines.join("\n"))
}

fn pending(state: &Transition, hold: i64) -> Answer {
    let fires = state.starts_at.saturating_add(hold);
    Answer {
        answer: format!(
            "pending since {}: it fires when its condition still holds in the window that ends at {}",
            Time(state.starts_at),
            Time(fires)
        ),
        evidence: vec![judged(state)],
    }
}

fn firing(evidence: &Evidence, state: &Transition) -> Answer {
    let standings = evidence.dispatcher.standing(&state.rule, &state.labels, evidence.now);
    let since = format!("firing since {}", Time(state.starts_at));
    let mut lines = vec![judged(state)];
    lines.extend(entries_of(evidence, &state.incident).iter().map(|entry| told(entry)));
    if standings.is_empty() {
        let was_taken_in = evidence.ledger.iter().any(|entry| entry.incident == state.incident);
        let reason = match was_taken_in {
            true => "nobody is to be told: no receiver in the rule, and no route that matches",
            false => "`notify` has not taken it in yet: does it run?",
        };
        return Answer { answer: format!("{since}: {reason}"), evidence: lines };
    }
    let stands: Vec<String> = standings.iter().map(|standing| stands(evidence, standing)).collect();
    Answer { answer: format!("{since}: {}", stands.join("; ")), evidence: lines }
}

/// How an alert stands with a receiver, in words.
pub(crate) fn stands(evidence: &Evidence, standing: &Standing) -> String {
    let until = |until: &Option<i64>| until.map_or(String::new(), |until| format!(" until {}", Time(until)));
    let receiver = &standing.receiver;
    match &standing.state {
        State::Told { at, dispatch } => match evidence.delivered(dispatch) {
            Some(delivered) => format!("`{receiver}` was told at {}", Time(delivered)),
            None => format!("`{receiver}` was to be told at {}", Time(*at)),
        },
        State::Waiting { until: None } => format!("`{receiver}` is told when there is more to tell"),
        State::Waiting { until: Some(at) } => {
            format!("`{receiver}` is told at {}, with its group", Time(*at))
        }
        State::Sending { attempts: 0, .. } => format!("`{receiver}` is being told"),
        State::Sending { attempts, last_error, .. } => format!(
            "`{receiver}` could not be told yet, {attempts} attempts failed, the last with: {}",
            last_error.as_deref().unwrap_or("no reason given")
        ),
        State::Silenced { id, until: end } => {
            let who = evidence.silence(id).map_or(String::new(), |silence| {
                let comment =
                    if silence.comment.is_empty() { String::new() } else { format!(", {}", silence.comment) };
                format!(" of {}{comment}", silence.created_by)
            });
            format!("`{receiver}` is not told, for silence {id}{who}{}", until(end))
        }
        State::Inhibited { by } => format!("`{receiver}` is not told while {by} fires"),
        State::Muted { by, until: end } => {
            format!("`{receiver}` is not told, for the mute `{by}`{}", until(end))
        }
        State::Acknowledged { by } => format!("`{receiver}` was told, and {by} has acknowledged it"),
    }
}

/// The alert neither fires nor is pending.
fn inactive(
    evidence: &Evidence,
    rule: &str,
    is_meant: &impl Fn(&str, &BTreeMap<String, String>) -> bool,
) -> Result<Answer, String> {
    let of_alert = || evidence.transitions.iter().filter(|said| is_meant(&said.rule, &said.labels));
    let alerts: BTreeSet<&BTreeMap<String, String>> = of_alert().map(|said| &said.labels).collect();
    if alerts.len() > 1 {
        return Err(several_alerts(alerts.into_iter().map(|labels| (labels, "not firing"))));
    }
    let Some(last) = of_alert().next_back() else {
        let answer =
            format!("not firing, and it has not been: `{rule}` was true in no window that was judged");
        return Ok(Answer { answer, evidence: Vec::new() });
    };
    let ended = Time(last.ends_at.unwrap_or(last.window_end));
    let answer = match last.status {
        Status::Inactive => {
            format!("not firing: it was pending from {} and ended at {ended}", Time(last.starts_at))
        }
        _ => format!(
            "not firing: it was from {}, and resolved at {ended} ({})",
            Time(last.starts_at),
            last.cause.as_str()
        ),
    };
    let mut lines = vec![judged(last)];
    lines.extend(entries_of(evidence, &last.incident).iter().map(|entry| told(entry)));
    Ok(Answer { answer, evidence: lines })
}

impl Evidence {
    /// When a receiver had a dispatch.
    fn delivered(&self, dispatch: &str) -> Option<i64> {
        let entry = self
            .ledger
            .iter()
            .rev()
            .find(|entry| entry.what == What::Delivered && entry.dispatch.as_deref() == Some(dispatch));
        entry.map(|entry| entry.at)
    }
}

/// What the ledger has about an incident, and about the dispatches that it was part of.
pub(crate) fn entries_of<'e>(evidence: &'e Evidence, incident: &str) -> Vec<&'e Entry> {
    let mut dispatches: BTreeSet<&str> = BTreeSet::new();
    let mut entries = Vec::new();
    for entry in &evidence.ledger {
        let of_incident = entry.incident == incident && !incident.is_empty();
        let of_dispatch = entry.dispatch.as_deref().is_some_and(|dispatch| dispatches.contains(dispatch));
        if !of_incident && !of_dispatch {
            continue;
        }
        dispatches.extend(entry.dispatch.as_deref());
        // One that was replaced goes on as the others.
        if entry.what == What::Replaced {
            dispatches.extend(entry.by.iter().flat_map(|by| by.split(", ")));
        }
        entries.push(entry);
    }
    entries
}

/// An entry of the ledger as a line.
pub(crate) fn told(entry: &Entry) -> String {
    let mut line = format!("{} {}", Time(entry.at), serde_name(entry.what));
    if let Some(receiver) = &entry.receiver {
        line += &format!(" {receiver}");
    }
    if let Some(by) = &entry.by {
        line += &format!(" by {by}");
    }
    if let Some(reason) = &entry.reason {
        line += &format!(": {reason}");
    }
    line
}

/// The name that the ledger has for it.
pub(crate) fn serde_name(what: What) -> String {
    serde_json::to_value(what).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

/// What was judged last.
pub(crate) fn judged(state: &Transition) -> String {
    let values: Vec<String> = state.values.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let values = if values.is_empty() { String::new() } else { format!(" with {}", values.join(" ")) };
    let provisional = if state.provisional { ", while the window was open" } else { "" };
    format!(
        "{} {} by the window from {} to {}{values} ({}{provisional})",
        written(&state.labels),
        state.status,
        Time(state.window_start),
        Time(state.window_end),
        state.cause.as_str()
    )
}

/// `{host="a", region="eu"}`.
pub(crate) fn written(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{{{}}}", pairs.join(", "))
}

#[cfg(test)]
#[path = "why_tests.rs"]
mod tests;
