//! What came of a test, against what it expects.

use std::fmt::Write as _;
use std::time::Duration;

use alerts::Status;
use alerts::dispatch::Reason;

use super::run::Ran;
use crate::commands::simulate::{AlertKey, Notified};
use crate::config::{AlertsConfig, ExpectedAlerts, ExpectedNotification, NamedAlert, RuleTest};

/// Whether the test means this alert. What the rule itself adds to the labels may be left out.
pub(super) fn is_alert(named: &NamedAlert, key: &AlertKey, alerts: &AlertsConfig) -> bool {
    let rule = alerts.rules.iter().find(|rule| rule.spec.name == key.rule);
    let is_added = |label: &String| rule.is_some_and(|rule| rule.spec.labels.contains_key(label));
    named.rule == key.rule
        && named.labels.iter().all(|(label, value)| key.labels.get(label) == Some(value))
        && key.labels.keys().all(|label| named.labels.contains_key(label) || is_added(label))
}

/// What is not as expected.
pub(super) fn failures(test: &RuleTest, alerts: &AlertsConfig, ran: &Ran) -> Vec<String> {
    let mut failures = ran.problems.clone();
    for (expected, seen) in test.expected.iter().zip(&ran.seen) {
        failures.extend(alerts_differ(test, alerts, expected, seen));
    }
    let mut receivers: Vec<&str> = test.notified.iter().map(|notified| notified.receiver.as_str()).collect();
    receivers.extend(test.quiet.iter().map(String::as_str));
    receivers.sort_unstable();
    receivers.dedup();
    for receiver in receivers {
        failures.extend(notifications_differ(test, alerts, receiver, &ran.notified));
    }
    if !failures.is_empty() {
        let late = ran.late.iter();
        failures
            .extend(late.map(|(rollup, points)| format!("points too late for rollup `{rollup}`: {points}")));
    }
    failures
}

/// Lists what is missing by `-` and what is there besides by `+`.
fn alerts_differ(
    test: &RuleTest,
    alerts: &AlertsConfig,
    expected: &ExpectedAlerts,
    seen: &[(AlertKey, Status)],
) -> Option<String> {
    let mut lines = String::new();
    for (status, named) in [(Status::Firing, &expected.firing), (Status::Pending, &expected.pending)] {
        let there = seen.iter().filter(|(_, seen)| *seen == status).map(|(key, _)| key);
        let (missing, besides) = unmatched(named, there, alerts);
        for named in missing {
            let _ = write!(lines, "\n  - {status}  {}", shown(named));
        }
        for key in besides {
            let _ = write!(lines, "\n  + {status}  {key}");
        }
    }
    (!lines.is_empty())
        .then(|| format!("at {}, expected (-) and found (+):{lines}", offset(test, expected.at)))
}

/// Those of each that the other lacks.
fn unmatched<'a>(
    named: &'a [NamedAlert],
    there: impl Iterator<Item = &'a AlertKey>,
    alerts: &AlertsConfig,
) -> (Vec<&'a NamedAlert>, Vec<&'a AlertKey>) {
    let mut missing: Vec<&NamedAlert> = named.iter().collect();
    let mut besides = Vec::new();
    for key in there {
        match missing.iter().position(|named| is_alert(named, key, alerts)) {
            Some(found) => {
                missing.remove(found);
            }
            None => besides.push(key),
        }
    }
    (missing, besides)
}

fn notifications_differ(
    test: &RuleTest,
    alerts: &AlertsConfig,
    receiver: &str,
    notified: &[Notified],
) -> Option<String> {
    let expected: Vec<_> = test.notified.iter().filter(|expected| expected.receiver == receiver).collect();
    let notified: Vec<_> = notified.iter().filter(|notified| notified.receiver == receiver).collect();
    let is_equal = expected.len() == notified.len()
        && expected.iter().zip(&notified).all(|(expected, notified)| is_told(expected, notified, alerts));
    if is_equal {
        return None;
    }
    let mut lines = format!("receiver `{receiver}`, expected (-) and sent (+):");
    for position in 0..expected.len().max(notified.len()) {
        let (expected, notified) = (expected.get(position), notified.get(position));
        if let (Some(expected), Some(notified)) = (expected, notified)
            && is_told(expected, notified, alerts)
        {
            let _ = write!(lines, "\n    {}", notification(test, notified));
            continue;
        }
        if let Some(expected) = expected {
            let _ = write!(lines, "\n  - {}", expectation(test, expected));
        }
        if let Some(notified) = notified {
            let _ = write!(lines, "\n  + {}", notification(test, notified));
        }
    }
    Some(lines)
}

fn is_told(expected: &ExpectedNotification, notified: &Notified, alerts: &AlertsConfig) -> bool {
    let ExpectedNotification { receiver: _, at, status, reason, alerts: named } = expected;
    let are_alerts = named.as_ref().is_none_or(|named| {
        let there = notified.alerts.iter().map(|alert| &alert.alert);
        let (missing, besides) = unmatched(named, there, alerts);
        missing.is_empty() && besides.is_empty()
    });
    at.is_none_or(|at| at == notified.at.0)
        && status.is_none_or(|status| status == notified.status())
        && reason.is_none_or(|reason| reason == notified.reason)
        && are_alerts
}

fn notification(test: &RuleTest, notified: &Notified) -> String {
    let alerts: Vec<String> = notified.alerts.iter().map(|alert| alert.alert.to_string()).collect();
    let reason = match notified.reason {
        Reason::Changed => String::new(),
        reason => format!(" ({})", reason.as_str()),
    };
    format!("{}  {}{reason}  {}", offset(test, notified.at.0), notified.status(), alerts.join(", "))
}

/// What may be anything is left out.
fn expectation(test: &RuleTest, expected: &ExpectedNotification) -> String {
    let mut parts = Vec::new();
    parts.extend(expected.at.map(|at| offset(test, at)));
    parts.extend(expected.status.map(|status| status.to_string()));
    parts.extend(expected.reason.map(|reason| format!("({})", reason.as_str())));
    parts.extend(
        expected.alerts.as_ref().map(|alerts| alerts.iter().map(shown).collect::<Vec<_>>().join(", ")),
    );
    if parts.is_empty() { "any notification".to_owned() } else { parts.join("  ") }
}

fn shown(named: &NamedAlert) -> String {
    AlertKey { rule: named.rule.clone(), labels: named.labels.clone() }.to_string()
}

/// As a test writes it: from its start.
fn offset(test: &RuleTest, at: i64) -> String {
    let passed = Duration::from_nanos(at.saturating_sub(test.start).max(0).unsigned_abs());
    humantime::format_duration(passed).to_string()
}
