//! A message of the alerts topic: from its JSON to what the sinks take.

use std::sync::Arc;

use operators::threshold::{Status, Transition};
use sinks::{Alert, Notification, Reason};

/// Reads a message, or says why it is not a transition.
pub(super) fn read(payload: Option<&[u8]>) -> Result<Transition, String> {
    let Some(payload) = payload else { return Err("it has no payload".to_owned()) };
    serde_json::from_slice(payload).map_err(|error| error.to_string())
}

/// What `receiver` is told: each alert is a group of its own. The id is that of the transition, so each attempt and
/// replay carries the same.
pub(super) fn notification(transition: &Transition, receiver: &str) -> Arc<Notification> {
    let mut group_labels = transition.labels.clone();
    group_labels.insert("alertname".to_owned(), transition.rule.clone());
    let group: Vec<String> = group_labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    Arc::new(Notification {
        id: transition.id.clone(),
        receiver: receiver.to_owned(),
        group_key: format!("{{}}:{{{}}}", group.join(", ")),
        group_labels,
        alerts: vec![alert(transition)],
        reason: Reason::Changed,
        notes: Vec::new(),
    })
}

fn alert(transition: &Transition) -> Alert {
    Alert {
        transitions: vec![transition.id.clone()],
        incident: transition.incident.clone(),
        status: match transition.status {
            Status::Pending | Status::Firing => sinks::Status::Firing,
            Status::Resolved | Status::Inactive => sinks::Status::Resolved,
        },
        rule: transition.rule.clone(),
        severity: transition.severity.clone(),
        labels: transition.labels.clone(),
        summary: transition.summary.clone(),
        description: transition.description.clone(),
        values: transition.values.clone(),
        starts_at: transition.starts_at,
        ends_at: transition.ends_at,
        window_start: transition.window_start,
        window_end: transition.window_end,
        cause: transition.cause.as_str().to_owned(),
        provisional: transition.provisional,
        owner: transition.owner.clone(),
        runbook: transition.runbook.clone(),
        generator_url: None,
        sample: transition.times.sample,
        ingested: transition.times.ingested,
        evaluated: transition.times.evaluated,
    }
}

/// Whether two notifications of one receiver are about one group, so that their order matters.
pub(super) fn same_group(one: &Notification, other: &Notification) -> bool {
    one.group_key == other.group_key
}

#[cfg(test)]
pub(super) mod tests {
    use operators::threshold::{Cause, StageTimes};

    use super::*;

    /// A firing transition of rule `cpu_high` for one host.
    pub(in crate::notify) fn transition(id: &str, host: &str, receivers: &[&str]) -> Transition {
        Transition {
            id: id.to_owned(),
            rule: "cpu_high".to_owned(),
            status: Status::Firing,
            severity: "critical".to_owned(),
            labels: [("host".to_owned(), host.to_owned())].into(),
            summary: format!("CPU of {host} at 95 %"),
            description: String::new(),
            values: [("avg".to_owned(), 95.0)].into(),
            starts_at: 60,
            ends_at: None,
            window_start: 0,
            window_end: 60,
            receivers: receivers.iter().map(|&name| name.to_owned()).collect(),
            incident: "incident".to_owned(),
            cause: Cause::Condition,
            provisional: false,
            revision: 0,
            rule_hash: String::new(),
            owner: None,
            runbook: None,
            times: StageTimes::default(),
        }
    }

    #[test]
    fn what_rollup_writes_is_read() {
        let mut written = transition("id", "a", &["oncall", "hook"]);
        written.status = Status::Resolved;
        written.ends_at = Some(120);
        let payload = serde_json::to_vec(&written).expect("JSON");
        let transition = read(Some(&payload)).expect("a transition");
        assert_eq!(transition, written);
        let told = notification(&transition, "hook");
        assert_eq!((told.id.as_str(), told.receiver.as_str()), ("id", "hook"));
        assert_eq!(told.group_key, r#"{}:{alertname="cpu_high", host="a"}"#);
        let alert = &told.alerts[0];
        assert_eq!((alert.status, alert.starts_at, alert.ends_at), (sinks::Status::Resolved, 60, Some(120)));
        assert_eq!(
            (alert.cause.as_str(), alert.transitions.as_slice()),
            ("condition", ["id".to_owned()].as_slice())
        );
    }

    #[test]
    fn anything_else_is_refused_with_a_reason() {
        for (payload, expected) in [
            (None, "it has no payload"),
            (Some("".as_bytes()), "EOF"),
            (Some(b"{}".as_slice()), "missing field `id`"),
            (Some(b"\xff"), "expected value"),
        ] {
            let reason = read(payload).expect_err(expected);
            assert!(reason.contains(expected), "{reason}");
        }
    }

    #[test]
    fn alerts_are_told_apart_by_rule_and_group() {
        let a = notification(&transition("1", "a", &[]), "hook");
        assert!(same_group(&a, &notification(&transition("2", "a", &[]), "hook")));
        assert!(!same_group(&a, &notification(&transition("2", "b", &[]), "hook")));
    }
}
