//! What people are notified in plain words, the same by mail and in a chat.

use crate::timestamp::rfc3339;
use crate::{Alert, Notification, Reason, Status};

/// `[FIRING] rule: summary`; for several alerts `[FIRING:2] …` with the first of them. May hold
/// line breaks of a template.
pub(crate) fn headline(notification: &Notification) -> String {
    let status = upper(notification.status());
    let (count, first) = match notification.alerts.as_slice() {
        [] => (String::new(), None),
        [only] => (String::new(), Some(only)),
        [first, ..] => {
            let count = notification.with_status(notification.status()).count();
            (format!(":{count}"), Some(first))
        }
    };
    let about = first.map_or_else(String::new, |alert| format!(" {}: {}", alert.rule, alert.summary));
    format!("[{status}{count}]{about}")
}

pub(crate) fn upper(status: Status) -> &'static str {
    match status {
        Status::Firing => "FIRING",
        Status::Resolved => "RESOLVED",
    }
}

/// What holds for the whole notification: why it comes when nothing changed, then its notes.
pub(crate) fn notes(notification: &Notification) -> Vec<String> {
    let reason = match notification.reason {
        Reason::Changed => None,
        Reason::Repeated => Some("Notified again: it is still firing."),
        Reason::Escalated => {
            Some("Escalated: it is still firing, and nobody who was notified has acknowledged it.")
        }
    };
    reason.map(str::to_owned).into_iter().chain(notification.notes.iter().cloned()).collect()
}

/// What is out of the ordinary about one alert, a sentence each.
pub(crate) fn remarks(alert: &Alert) -> Vec<String> {
    let mut remarks = Vec::new();
    let cause = match (alert.cause.as_str(), alert.status) {
        ("condition" | "", _) => None,
        ("no_data", Status::Firing) => Some("There is no data where there should be."),
        ("no_data", Status::Resolved) => Some("Ended because there is no data, not because it recovered."),
        ("correction", Status::Firing) => Some("Correction: with late data, the alert does fire."),
        ("correction", Status::Resolved) => Some(
            "Correction: late data changed what was judged before. What was notified about this alert is withdrawn; these times hold.",
        ),
        ("forgotten", _) => Some(
            "Ended because nothing was heard of it for so long that it is forgotten; it may not have recovered.",
        ),
        ("rule_changed", _) => {
            Some("Ended because the rule was changed or removed; it may not have recovered.")
        }
        (other, _) => {
            remarks.push(format!("Cause: {other}."));
            None
        }
    };
    remarks.extend(cause.map(str::to_owned));
    // Several transitions in one notification: people did not see it fire before they see it end.
    if let (Status::Resolved, Some(ends_at), 2..) = (alert.status, alert.ends_at, alert.transitions.len()) {
        remarks.push(format!("It began at {} and ended at {}.", rfc3339(alert.starts_at), rfc3339(ends_at)));
    }
    if alert.provisional {
        remarks.push(
            "Provisional: its window is still open; it is confirmed or withdrawn when that closes.".into(),
        );
    }
    remarks
}

/// One line: line breaks, tabs and other control characters become spaces.
pub(crate) fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::tests::{alert, example, group, resolved};

    #[test]
    fn headlines_count_what_the_status_is_about() {
        let mut ended = group();
        ended.alerts = vec![resolved().alerts.remove(0), resolved().alerts.remove(0)];
        for (notification, expected) in [
            (example(), "[FIRING] CpuHigh: CPU of eu above 90 %"),
            (resolved(), "[RESOLVED] CpuHigh: CPU of eu above 90 %"),
            (group(), "[FIRING:2] CpuHigh: CPU of eu above 90 %"),
            (ended, "[RESOLVED:2] CpuHigh: CPU of eu above 90 %"),
        ] {
            assert_eq!(headline(&notification), expected);
        }
    }

    #[test]
    fn each_cause_has_its_words() {
        let firing = |cause: &str| Alert { cause: cause.into(), ..alert() };
        let ended = |cause: &str| Alert { cause: cause.into(), ..resolved().alerts.remove(0) };
        let missed = Alert { transitions: vec!["a".into(), "b".into()], ..ended("condition") };
        for (alert, expected) in [
            (firing("condition"), vec![]),
            (ended("condition"), vec![]),
            (missed, vec!["It began at 2023-11-14T22:13:20Z and ended at 2023-11-14T22:23:20Z."]),
            (firing("no_data"), vec!["no data where there should be"]),
            (ended("no_data"), vec!["not because it recovered"]),
            (firing("correction"), vec!["does fire"]),
            (ended("correction"), vec!["is withdrawn; these times hold"]),
            (ended("forgotten"), vec!["forgotten"]),
            (ended("rule_changed"), vec!["changed or removed"]),
            (firing("later_cause"), vec!["Cause: later_cause."]),
            (Alert { provisional: true, ..firing("no_data") }, vec!["no data", "Provisional"]),
        ] {
            let remarks = remarks(&alert);
            assert_eq!(remarks.len(), expected.len(), "{remarks:?}");
            for (remark, part) in remarks.iter().zip(expected) {
                assert!(remark.contains(part), "{remark}");
            }
        }
    }

    #[test]
    fn what_is_no_change_says_so() {
        for (reason, expected) in [
            (Reason::Changed, vec!["late"]),
            (Reason::Repeated, vec!["Notified again", "late"]),
            (Reason::Escalated, vec!["Escalated", "late"]),
        ] {
            let notification = Notification { reason, notes: vec!["late".into()], ..example() };
            let notes = notes(&notification);
            assert_eq!(notes.len(), expected.len());
            assert!(notes.iter().zip(expected).all(|(note, part)| note.starts_with(part)), "{notes:?}");
        }
    }
}
