//! Alerts, incidents and the ledger as text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use operators::dispatch::{Command, Entry, Standing};
use operators::threshold::Transition;
use serde::Serialize;

use super::evidence::Evidence;
use super::progress::Stall;
use super::why::{entries_of, judged, serde_name, stands, told, written};
use crate::why::Time;

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
    let mut alerts: Vec<ListedAlert<'e>> = wanted
        .map(|state| ListedAlert {
            state,
            receivers: evidence.dispatcher.standing(&state.rule, &state.labels, evidence.now),
        })
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
            state.severity,
            state.summary
        );
        for standing in receivers {
            let _ = write!(text, "\n  {}", stands(evidence, standing));
        }
    }
    text
}

/// Everything about one incident.
#[derive(Debug, Serialize)]
pub(crate) struct Incident<'e> {
    pub(crate) incident: String,
    pub(crate) transitions: Vec<&'e Transition>,
    pub(crate) ledger: Vec<&'e Entry>,
}

/// By the id of an incident, a transition or a dispatch, or the beginning of one.
///
/// # Errors
/// None has it, or several have; for people.
pub(crate) fn show<'e>(evidence: &'e Evidence, prefix: &str) -> Result<Vec<Incident<'e>>, String> {
    let is_meant = |id: &str| !prefix.is_empty() && id.starts_with(prefix);
    let mut incidents: BTreeSet<&str> = BTreeSet::new();
    for said in &evidence.transitions {
        if is_meant(&said.incident) || is_meant(&said.id) {
            incidents.insert(&said.incident);
        }
    }
    let dispatches: BTreeSet<&str> = evidence
        .ledger
        .iter()
        .filter_map(|entry| entry.dispatch.as_deref())
        .filter(|id| is_meant(id))
        .collect();
    if incidents.is_empty() && dispatches.len() == 1 {
        let of_dispatch = evidence.ledger.iter().filter(|entry| {
            entry.dispatch.as_deref().is_some_and(|id| dispatches.contains(id)) && !entry.incident.is_empty()
        });
        incidents.extend(of_dispatch.map(|entry| entry.incident.as_str()));
    }
    match (incidents.len(), dispatches.len()) {
        (0, _) => Err(format!(
            "nothing is known by `{prefix}`: give the beginning of an incident, transition or dispatch"
        )),
        (1, _) | (_, 1) => Ok(incidents
            .into_iter()
            .map(|incident| Incident {
                transitions: evidence.transitions.iter().filter(|said| said.incident == incident).collect(),
                ledger: entries_of(evidence, incident),
                incident: incident.to_owned(),
            })
            .collect()),
        (several, _) => Err(format!("{several} incidents begin with `{prefix}`: give more of it")),
    }
}

pub(crate) fn show_text(incidents: &[Incident<'_>]) -> String {
    let mut text = String::new();
    for incident in incidents {
        let rule = incident.transitions.first().map_or("", |said| &said.rule);
        let _ = writeln!(text, "incident {} of {rule}", incident.incident);
        let mut lines: BTreeMap<(i64, usize), String> = BTreeMap::new();
        for (position, said) in incident.transitions.iter().enumerate() {
            let at = said.times.evaluated.unwrap_or(said.window_end);
            let mut line = format!("{} {}", Time(at), judged(said));
            if said.revision > 0 {
                let _ = write!(line, ", revision {}", said.revision);
            }
            let _ = write!(line, "\n    transition {}, rule {}", said.id, said.rule_hash);
            for (stage, time) in [("newest sample", said.times.sample), ("ingested", said.times.ingested)] {
                if let Some(time) = time {
                    let _ = write!(line, ", {stage} {}", Time(time));
                }
            }
            lines.insert((at, position), line);
        }
        for (position, entry) in incident.ledger.iter().enumerate() {
            let dispatch = entry.dispatch.as_ref().map_or(String::new(), |id| format!("\n    dispatch {id}"));
            lines.insert((entry.at, 1_000 + position), format!("{}{dispatch}", told(entry)));
        }
        for line in lines.values() {
            let _ = writeln!(text, "  {line}");
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// A line of the ledger by itself.
pub(crate) fn entry_text(entry: &Entry) -> String {
    let about = if entry.rule.is_empty() { String::new() } else { format!(" {}", entry.rule) };
    let labels = written(&entry.labels);
    format!("{} {}{about}{labels}{}", Time(entry.at), serde_name(entry.what), rest(entry))
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

/// Silences and acknowledgements.
pub(crate) fn silences_text(commands: &BTreeMap<String, Command>, now: i64) -> String {
    let mut lines = Vec::new();
    for command in commands.values() {
        let Command::Silence(silence) = command else { continue };
        let state = match (silence.starts_at, silence.ends_at) {
            (_, ends_at) if ends_at <= now => "over",
            (starts_at, _) if starts_at > now => "to come",
            _ => "active",
        };
        let matchers: Vec<String> = silence.matchers.iter().map(ToString::to_string).collect();
        let (from, to) = (Time(silence.starts_at), Time(silence.ends_at));
        lines.push(format!(
            "{} {state} from {from} to {to} by {}: {}\n  {}",
            silence.id,
            silence.created_by,
            silence.comment,
            matchers.join(", ")
        ));
    }
    if lines.is_empty() { "no silences".to_owned() } else { lines.join("\n") }
}
