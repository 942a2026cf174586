//! Alerts, incidents and the ledger as text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use alerts::Transition;
use alerts::dispatch::{Command, Entry, Silence, Standing, What};
use serde::Serialize;
use sinks::plain;

use super::evidence::Evidence;
use super::words::{judged, name_of, notified, stands, written};
use crate::alerting::progress::Stall;
use crate::time::Time;

/// Alerts that are pending or fire.
#[derive(Debug, Serialize)]
pub(crate) struct Listed<'e> {
    /// Set while event time stands still: the alerts are as of then.
    pub(crate) incomplete: Option<Stall>,
    pub(crate) alerts: Vec<ListedAlert<'e>>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ListedAlert<'e> {
    #[serde(flatten)]
    pub(crate) state: &'e Transition,
    pub(crate) receivers: Vec<Standing>,
}

pub(crate) fn list<'e>(evidence: &'e Evidence, rule: Option<&str>, status: Option<&str>) -> Listed<'e> {
    let wanted = evidence.active.iter().filter(|state| {
        rule.is_none_or(|rule| state.rule == rule)
            && status.is_none_or(|status| state.status.as_str() == status)
    });
    let standings = evidence.dispatcher.standings();
    let mut alerts: Vec<ListedAlert<'e>> = wanted
        .map(|state| ListedAlert { state, receivers: standings.of(&state.rule, &state.labels, evidence.now) })
        .collect();
    alerts.sort_by_key(|alert| (alert.state.starts_at, &alert.state.rule, &alert.state.labels));
    Listed { incomplete: evidence.stall(), alerts }
}

pub(crate) fn list_text(evidence: &Evidence, listed: &Listed<'_>) -> String {
    let mut text = String::new();
    if let Some(stall) = &listed.incomplete {
        let _ = writeln!(text, "{}", stall.describe());
    }
    if listed.alerts.is_empty() {
        text += "no alert is pending or fires";
    }
    for (position, ListedAlert { state, receivers }) in listed.alerts.iter().enumerate() {
        let line_end = if position > 0 { "\n" } else { "" };
        let (since, incident) = (Time(state.starts_at), &state.incident);
        let _ = write!(
            text,
            "{line_end}{:8} {}{} {} since {since}, incident {incident}\n  {}",
            state.status.as_str(),
            state.rule,
            written(&state.labels),
            plain(&state.severity),
            plain(state.summary.trim_end())
        );
        for standing in receivers {
            let _ = write!(text, "\n  {}", stands(evidence, state, standing));
        }
    }
    text
}

/// What is known by an id.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Shown<'e> {
    Incidents(Vec<Incident<'e>>),
    /// A dispatch with nothing new: it repeats.
    Dispatch {
        dispatch: String,
        ledger: Vec<&'e Entry>,
    },
}

/// Everything about one incident.
#[derive(Debug, Serialize)]
pub(crate) struct Incident<'e> {
    pub(crate) incident: String,
    pub(crate) transitions: Vec<&'e Transition>,
    pub(crate) ledger: Vec<&'e Entry>,
}

/// By the id of an incident, a transition or a dispatch, or the beginning of one. A dispatch may be
/// about several incidents.
///
/// # Errors
/// None has it, or several have; for people.
pub(crate) fn show<'e>(evidence: &'e Evidence, prefix: &str) -> Result<Shown<'e>, String> {
    let is_meant = |id: &str| !prefix.is_empty() && id.starts_with(prefix);
    let ids = &evidence.ledger.ids;
    let mut incidents: BTreeSet<&str> = ids.incidents.iter().map(String::as_str).collect();
    let transition = evidence
        .transitions
        .iter()
        .filter(|transition| is_meant(&transition.incident) || is_meant(&transition.id));
    incidents.extend(transition.map(|transition| transition.incident.as_str()));
    let by_dispatch = match ids.dispatches.iter().collect::<Vec<_>>().as_slice() {
        [dispatch] => {
            let notified =
                evidence.ledger.entries.iter().filter(|entry| entry.dispatch.as_ref() == Some(*dispatch));
            let notified: BTreeSet<&str> = notified
                .map(|entry| entry.incident.as_str())
                .filter(|incident| !incident.is_empty())
                .collect();
            // Otherwise the beginning is that of something else, too.
            (notified == incidents).then_some(*dispatch)
        }
        _ => None,
    };
    match (incidents.len(), by_dispatch) {
        (0, Some(dispatch)) => Ok(Shown::Dispatch {
            dispatch: dispatch.clone(),
            ledger: evidence.ledger.entries.iter().collect(),
        }),
        (1, _) | (_, Some(_)) => {
            let of = |incident: &str| Incident {
                transitions: evidence
                    .transitions
                    .iter()
                    .filter(|transition| transition.incident == incident)
                    .collect(),
                ledger: evidence.ledger.of_incident(incident),
                incident: incident.to_owned(),
            };
            Ok(Shown::Incidents(incidents.into_iter().map(of).collect()))
        }
        (0, None) if ids.dispatches.is_empty() => Err(format!(
            "nothing is known by `{prefix}`: give the beginning of an incident, transition or dispatch"
        )),
        (incidents, _) => {
            let several = incidents + ids.dispatches.len();
            Err(format!("{several} incidents and dispatches begin with `{prefix}`: give more of it"))
        }
    }
}

pub(crate) fn show_text(shown: &Shown<'_>) -> String {
    let mut text = String::new();
    match shown {
        Shown::Incidents(incidents) => {
            for incident in incidents {
                incident_text(&mut text, incident);
            }
        }
        Shown::Dispatch { dispatch, ledger } => {
            let _ = writeln!(text, "dispatch {dispatch}, which tells again what is known");
            for entry in ledger {
                let _ = writeln!(text, "  {}", notified(entry));
            }
        }
    }
    text.truncate(text.trim_end().len());
    text
}

fn incident_text(text: &mut String, incident: &Incident<'_>) {
    let transition_rule = incident.transitions.first().map(|transition| &transition.rule);
    let ledger_rule = incident.ledger.iter().map(|entry| &entry.rule).find(|rule| !rule.is_empty());
    let rule = transition_rule.or(ledger_rule).map_or("", String::as_str);
    let _ = writeln!(text, "incident {} of {rule}", incident.incident);
    // In order of time; at one time, transitions before what followed from them.
    let mut lines: BTreeMap<(i64, bool, usize), String> = BTreeMap::new();
    for (position, transition) in incident.transitions.iter().enumerate() {
        let at = transition.times.evaluated.unwrap_or(transition.window_end);
        lines.insert((at, false, position), transition_text(transition, &incident.ledger));
    }
    for (position, entry) in incident.ledger.iter().enumerate() {
        let dispatch = entry.dispatch.as_ref().map_or(String::new(), |id| format!("\n    dispatch {id}"));
        lines.insert((entry.at, true, position), format!("{}{dispatch}", notified(entry)));
    }
    for ((at, is_entry, _), line) in &lines {
        let _ = match is_entry {
            true => writeln!(text, "  {line}"),
            false => writeln!(text, "  {} {line}", Time(*at)),
        };
    }
}

fn transition_text(transition: &Transition, ledger: &[&Entry]) -> String {
    let mut line = judged(transition);
    if transition.revision > 0 {
        let _ = write!(line, ", revision {}", transition.revision);
    }
    let _ = write!(line, "\n    transition {}, rule {}", transition.id, transition.rule_hash);
    let dispatched = ledger.iter().filter(|entry| entry.transition.as_ref() == Some(&transition.id));
    let dispatches: BTreeSet<&String> = dispatched.filter_map(|entry| entry.dispatch.as_ref()).collect();
    let delivered = ledger.iter().find(|entry| {
        entry.what == What::Delivered && entry.dispatch.as_ref().is_some_and(|id| dispatches.contains(id))
    });
    let stages = [
        ("newest sample", transition.times.sample),
        ("ingested", transition.times.ingested),
        ("evaluated", transition.times.evaluated),
        ("first delivered", delivered.map(|entry| entry.at)),
    ];
    for (stage, time) in stages {
        if let Some(time) = time {
            let _ = write!(line, ", {stage} {}", Time(time));
        }
    }
    line
}

/// A line of the ledger by itself.
pub(crate) fn entry_text(entry: &Entry) -> String {
    let about = if entry.rule.is_empty() { String::new() } else { format!(" {}", entry.rule) };
    let labels = written(&entry.labels);
    format!("{} {}{about}{labels}{}", Time(entry.at), name_of(entry.what), rest(entry))
}

fn rest(entry: &Entry) -> String {
    let mut text = String::new();
    for (name, value) in [("receiver", &entry.receiver), ("by", &entry.by), ("reason", &entry.reason)] {
        if let Some(value) = value {
            let _ = write!(text, " {name}={value:?}");
        }
    }
    text
}

/// A silence, and whether it holds.
#[derive(Debug, Serialize)]
pub(crate) struct ShownSilence<'e> {
    #[serde(flatten)]
    silence: &'e Silence,
    /// `active`, `to come` or `over`.
    state: &'static str,
}

/// In the order in which they begin.
pub(crate) fn silences(commands: &BTreeMap<String, Command>, now: i64) -> Vec<ShownSilence<'_>> {
    let silences = commands.values().filter_map(|command| match command {
        Command::Silence(silence) => Some(silence),
        Command::Acknowledge(_) => None,
    });
    let mut shown: Vec<ShownSilence<'_>> = silences
        .map(|silence| {
            let state = match (silence.starts_at, silence.ends_at) {
                (_, ends_at) if ends_at <= now => "over",
                (starts_at, _) if starts_at > now => "to come",
                _ => "active",
            };
            ShownSilence { silence, state }
        })
        .collect();
    shown.sort_by_key(|shown| (shown.silence.starts_at, &shown.silence.id));
    shown
}

pub(crate) fn silences_text(silences: &[ShownSilence<'_>]) -> String {
    let lines = silences.iter().map(|ShownSilence { silence, state }| {
        let matchers: Vec<String> = silence.matchers.iter().map(ToString::to_string).collect();
        let (from, to) = (Time(silence.starts_at), Time(silence.ends_at));
        let (id, by, comment) = (plain(&silence.id), plain(&silence.created_by), plain(&silence.comment));
        format!("{id} {state} from {from} to {to} by {by}: {comment}\n  {}", plain(&matchers.join(", ")))
    });
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() { "no silences".to_owned() } else { lines.join("\n") }
}

#[cfg(test)]
#[path = "show_tests.rs"]
mod tests;
