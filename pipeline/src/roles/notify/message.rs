//! Messages: transitions and commands as they are read, and what the sinks take.

use std::sync::Arc;

use alerts::dispatch::{Command, Dispatch, DispatchAlert, Reason};
use alerts::{Status, Transition};
use sinks::{Alert, Notification};
use url::Url;

/// Reads a message of the alerts topic. `Err` has the reason why it is no transition.
pub(super) fn read(payload: Option<&[u8]>) -> Result<Transition, String> {
    let Some(payload) = payload else { return Err("it has no payload".to_owned()) };
    serde_json::from_slice(payload).map_err(|error| error.to_string())
}

/// Reads a record of the topic of commands; `None` takes a command back.
pub(super) fn read_command(value: Option<&[u8]>) -> Result<Option<Command>, String> {
    let Some(value) = value else { return Ok(None) };
    serde_json::from_slice(value).map(Some).map_err(|error| error.to_string())
}

/// What a receiver is notified, with a note about its data, and with links when it is known where
/// people reach the program. The id is that of the dispatch, so each attempt carries the same.
pub(super) fn notification(
    dispatch: &Dispatch,
    note: Option<&str>,
    external_url: Option<&Url>,
) -> Arc<Notification> {
    let mut alerts: Vec<Alert> = dispatch.alerts.iter().map(|one| alert(one, external_url)).collect();
    // The order of equals stays as it is.
    alerts.sort_by_key(|alert| alert.status == sinks::Status::Resolved);
    Arc::new(Notification {
        id: dispatch.id.clone(),
        receiver: dispatch.receiver.clone(),
        group_key: dispatch.group.clone(),
        group_labels: dispatch.group_labels.clone(),
        external_url: external_url.map(Url::to_string),
        alerts,
        reason: match dispatch.reason {
            Reason::Changed => sinks::Reason::Changed,
            Reason::Repeated => sinks::Reason::Repeated,
            Reason::Escalated => sinks::Reason::Escalated,
        },
        notes: dispatch.notes.iter().map(String::as_str).chain(note).map(str::to_owned).collect(),
    })
}

fn alert(notified: &DispatchAlert, external_url: Option<&Url>) -> Alert {
    let transition = &notified.transition;
    let link = |url: &Url| url.join(&format!("api/alerts/{}", transition.incident)).ok();
    Alert {
        transitions: notified.transitions.clone(),
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
        generator_url: external_url.and_then(link).map(|url| url.to_string()),
        sample: transition.times.sample,
        ingested: transition.times.ingested,
        evaluated: transition.times.evaluated,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use alerts::{Cause, StageTimes};

    use super::*;

    /// A firing transition of rule `cpu_high` for one host.
    pub(in crate::roles::notify) fn transition(id: &str, host: &str, receivers: &[&str]) -> Transition {
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
            incident: format!("incident of {host}"),
            cause: Cause::Condition,
            provisional: false,
            revision: 0,
            rule_hash: String::new(),
            owner: None,
            runbook: None,
            times: StageTimes::default(),
            partition: None,
        }
    }

    #[test]
    fn what_rollup_writes_is_read() {
        let mut written = transition("id", "a", &["oncall", "hook"]);
        written.status = Status::Resolved;
        written.ends_at = Some(120);
        let payload = serde_json::to_vec(&written).expect("JSON");
        assert_eq!(read(Some(&payload)).expect("a transition"), written);
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
    fn a_dispatch_tells_what_fires_first() {
        let notified = |status, host: &str| DispatchAlert {
            transition: Transition { status, ..transition("id", host, &[]) },
            transitions: vec![host.to_owned()],
        };
        let dispatch = Dispatch {
            id: "key".to_owned(),
            receiver: "hook".to_owned(),
            group: "{r}:{}".to_owned(),
            group_labels: [("region".to_owned(), "eu".to_owned())].into(),
            reason: Reason::Escalated,
            alerts: vec![
                notified(Status::Resolved, "a"),
                notified(Status::Firing, "b"),
                notified(Status::Firing, "c"),
            ],
            notes: vec!["late".to_owned()],
            made_at: 7,
        };
        let notified = notification(&dispatch, None, None);
        assert_eq!(
            (notified.id.as_str(), notified.receiver.as_str(), notified.group_key.as_str()),
            ("key", "hook", "{r}:{}")
        );
        let order: Vec<_> =
            notified.alerts.iter().map(|alert| (alert.transitions[0].as_str(), alert.status)).collect();
        use sinks::Status::{Firing, Resolved};
        assert_eq!(order, [("b", Firing), ("c", Firing), ("a", Resolved)]);
        assert_eq!(
            (notified.reason, notified.notes.as_slice()),
            (sinks::Reason::Escalated, &["late".to_owned()][..])
        );
        assert_eq!((&notified.external_url, &notified.alerts[0].generator_url), (&None, &None));

        let external = Url::parse("https://ops.example/tidemark/").expect("a URL");
        let notified = notification(&dispatch, None, Some(&external));
        assert_eq!(notified.external_url.as_deref(), Some("https://ops.example/tidemark/"));
        let link = "https://ops.example/tidemark/api/alerts/incident%20of%20b";
        assert_eq!(notified.alerts[0].generator_url.as_deref(), Some(link));
    }
}
