//! Alerts, standings and entries of the ledger in words.

use std::collections::BTreeMap;

use alerts::dispatch::{Entry, Standing, State, What};
use alerts::{Status, Transition};

use sinks::plain;

use super::evidence::Evidence;
use super::ledger::Outcome;
use crate::time::Time;

/// How an alert stands with a receiver.
pub(super) fn stands(evidence: &Evidence, alert: &Transition, standing: &Standing) -> String {
    let until = |until: &Option<i64>| until.map_or(String::new(), |until| format!(" until {}", Time(until)));
    let receiver = &standing.receiver;
    match &standing.state {
        State::Notified { at, dispatch } => {
            let silenced = evidence.silence_of(alert).map_or(String::new(), |silence| {
                let (id, end) = (&silence.id, Time(silence.ends_at));
                let by = plain(&silence.created_by);
                format!(", and is not notified again, for silence {id} of {by} until {end}")
            });
            match evidence.ledger.outcome(dispatch) {
                Outcome::Delivered(entry) => {
                    format!("`{receiver}` was notified at {}{silenced}", Time(entry.at))
                }
                Outcome::GaveUp(entry) => gave_up(receiver, "", entry),
                Outcome::Open => format!("`{receiver}` was to be notified at {}{silenced}", Time(*at)),
            }
        }
        State::Waiting { until: None } => format!("`{receiver}` is notified when there is more to tell"),
        State::Waiting { until: Some(at) } => {
            format!("`{receiver}` is notified at {}, with its group", Time(*at))
        }
        State::Sending { attempts: 0, .. } => format!("`{receiver}` is being notified"),
        State::Sending { attempts, last_error, dispatch } => {
            let failed = if *attempts == 1 { "attempt" } else { "attempts" };
            let error = plain(last_error.as_deref().unwrap_or("no reason given"));
            let longest = humantime::format_duration(crate::alerting::LONGEST_PAUSE);
            let attempted = evidence.ledger.last_attempt(dispatch);
            let last = attempted.map_or(String::new(), |entry| format!(" at {}", Time(entry.at)));
            format!(
                "`{receiver}` could not be notified yet, {attempts} {failed} failed, the last{last} with: {error}; the next \
                 follows within {longest}, or when the receiver asks for it"
            )
        }
        State::Silenced { id, until: end } => {
            let who = evidence.silence(id).map_or(String::new(), |silence| {
                let comment = if silence.comment.is_empty() {
                    String::new()
                } else {
                    format!(", {}", plain(&silence.comment))
                };
                format!(" of {}{comment}", plain(&silence.created_by))
            });
            format!("`{receiver}` is not notified, for silence {id}{who}{}", until(end))
        }
        State::Inhibited { by } => format!("`{receiver}` is not notified while {by} fires"),
        State::Muted { by, until: end } => {
            format!("`{receiver}` is not notified, for the mute `{by}`{}", until(end))
        }
        State::Acknowledged { by } => {
            format!("`{receiver}` was notified, and {} has acknowledged it", plain(by))
        }
    }
}

fn gave_up(receiver: &str, of: &str, entry: &Entry) -> String {
    let reason = plain(entry.reason.as_deref().unwrap_or("no reason given"));
    let instead = entry.by.as_ref().map_or(String::new(), |by| format!("; `{by}` was notified instead"));
    format!(
        "`{receiver}` could not be notified{of}, it was given up at {}: {reason}{instead}",
        Time(entry.at)
    )
}

/// Who was notified of an incident that is over, and who was not and why.
pub(super) fn outcomes(evidence: &Evidence, incident: &str) -> Vec<String> {
    let is_end = |id: &Option<String>| {
        let transition = evidence.transitions.iter().find(|transition| Some(&transition.id) == id.as_ref());
        transition.is_some_and(|transition| transition.status == Status::Resolved)
    };
    // By receiver and whether it is about the end: the newest counts.
    let mut clauses: Vec<((Option<&str>, bool), String)> = Vec::new();
    for entry in evidence.ledger.of_incident(incident).into_iter().filter(|entry| !entry.incident.is_empty())
    {
        let name = entry.receiver.as_deref();
        // What was over before it was notified is so of begin and end.
        let about_end = entry.what != What::EndedUntold && is_end(&entry.transition);
        let receiver = name.map_or("nobody".to_owned(), |name| format!("`{name}`"));
        let reason = plain(entry.reason.as_deref().unwrap_or_default());
        let of = if about_end { " of its end" } else { " of it" };
        let clause = match entry.what {
            What::Dispatched | What::Escalated => {
                match evidence.ledger.outcome(entry.dispatch.as_deref().unwrap_or_default()) {
                    Outcome::Delivered(delivered) => {
                        format!("{receiver} was notified{of} at {}", Time(delivered.at))
                    }
                    Outcome::GaveUp(entry) => gave_up(name.unwrap_or_default(), of, entry),
                    Outcome::Open => format!("{receiver} is not notified{of} yet"),
                }
            }
            What::EndedUntold => {
                let by = entry.by.as_ref().map_or(String::new(), |by| format!(" ({by})"));
                match name {
                    Some(name) => format!("`{name}` was not notified: {reason}{by}"),
                    None => format!("nobody was notified: {reason}{by}"),
                }
            }
            What::NotSent => format!("{receiver} was not notified{of}: {reason}"),
            What::GaveUp => format!("{receiver} could not be notified{of}: {reason}"),
            What::NotRouted if name.is_some() => format!("{receiver} was not notified{of}: {reason}"),
            What::NotRouted => format!("nobody was to be notified{of}: {reason}"),
            _ => continue,
        };
        let key = (name, about_end);
        match clauses.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known = clause,
            None => clauses.push((key, clause)),
        }
    }
    clauses.into_iter().map(|(_, clause)| clause).collect()
}

/// An entry of the ledger as a line, without the alert.
pub(super) fn notified(entry: &Entry) -> String {
    let mut line = format!("{} {}", Time(entry.at), name_of(entry.what));
    if let Some(receiver) = &entry.receiver {
        line += &format!(" {receiver}");
    }
    if let Some(by) = &entry.by {
        line += &format!(" by {}", plain(by));
    }
    if let Some(reason) = &entry.reason {
        line += &format!(": {}", plain(reason));
    }
    line
}

/// The name that the ledger has for it.
pub(super) fn name_of(what: What) -> String {
    serde_json::to_value(what).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

/// What was judged last.
pub(super) fn judged(state: &Transition) -> String {
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
pub(super) fn written(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{{{}}}", pairs.join(", "))
}
