//! A notification as what `POST /api/v2/alerts` of Alertmanager takes.
//!
//! Alertmanager refuses an alert that ends before it starts, takes one whose end is to come for
//! firing, and of two ends keeps the later one unless the new one has passed (`alert/alert.go`,
//! `Validate` and `Merge`). So a resolved alert ends now at the latest, and nothing starts after
//! its end. An alert that it hears of for the first time when it is resolved, it keeps and tells
//! nobody.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::notify::web_address;
use crate::timestamp::rfc3339;
use crate::{Alert, Notification, Status};

/// `now` is in nanoseconds since the epoch. A firing alert ends `resolve_after` from then, unless
/// it is posted again.
pub fn encode(notification: &Notification, now: i64, resolve_after: Duration) -> Value {
    let until = now.saturating_add(i64::try_from(resolve_after.as_nanos()).unwrap_or(i64::MAX));
    // Alertmanager keeps one alert for a set of labels, and of several in one request the last. Of
    // several incidents the newest tells how it stands.
    let mut newest: BTreeMap<BTreeMap<String, String>, &Alert> = BTreeMap::new();
    for alert in &notification.alerts {
        let kept = newest.entry(alert.labels_with_rule()).or_insert(alert);
        if alert.starts_at > kept.starts_at {
            *kept = alert;
        }
    }
    newest.iter().map(|(labels, alert)| encode_alert(labels, alert, now, until)).collect()
}

fn encode_alert(labels: &BTreeMap<String, String>, alert: &Alert, now: i64, until: i64) -> Value {
    let ends_at = match alert.status {
        Status::Firing => until,
        Status::Resolved => alert.ends_at.unwrap_or(alert.window_end).min(now),
    };
    let mut encoded = json!({
        "labels": labels,
        "annotations": alert.annotations(),
        "startsAt": rfc3339(alert.starts_at.min(ends_at).min(now)),
        "endsAt": rfc3339(ends_at),
    });
    // The field must be a URL, or Alertmanager refuses them all.
    if let Some(url) = alert.generator_url.as_deref().and_then(web_address) {
        encoded["generatorURL"] = url.into();
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::tests::{alert, example, group, resolved};

    const HOUR: Duration = Duration::from_secs(3_600);
    const SECOND: i64 = 1_000_000_000;
    /// 22:30:00 that day, after all of the examples.
    const NOW: i64 = 1_700_001_000 * SECOND;

    fn of(alerts: Vec<Alert>) -> Notification {
        Notification { alerts, ..example() }
    }

    #[test]
    fn firing_ends_later_and_resolved_when_it_did() {
        let expected = |status: &str, ends_at: &str| {
            json!([{
                "labels": {
                    "alertname": "CpuHigh", "region": "eu", "severity": "critical", "team": "<b>core</b>",
                },
                "annotations": { "summary": "CPU of eu above 90 %", "description": "avg is \"95.5\" & rising" },
                "startsAt": "2023-11-14T22:13:20Z",
                "endsAt": ends_at,
                "generatorURL": "http://tidemark.example/rollups/cpu?a=1&b=2",
            }, status])
        };
        for (notification, status, ends_at) in
            [(example(), "firing", "2023-11-14T23:30:00Z"), (resolved(), "resolved", "2023-11-14T22:23:20Z")]
        {
            assert_eq!(encode(&notification, NOW, HOUR)[0], expected(status, ends_at)[0], "{status}");
        }
    }

    #[test]
    fn nothing_ends_before_it_starts_and_nothing_resolved_is_to_come() {
        let ended = |starts_at: i64, ends_at: Option<i64>| Alert {
            starts_at: NOW + starts_at * SECOND,
            ends_at: ends_at.map(|ends_at| NOW + ends_at * SECOND),
            window_end: NOW - SECOND,
            ..resolved().alerts.remove(0)
        };
        let firing = |starts_at: i64| Alert { starts_at: NOW + starts_at * SECOND, ..alert() };
        for (alert, starts_at, ends_at) in [
            (ended(-60, Some(-30)), "22:29:00", "22:29:30"),
            // A correction can withdraw what never was.
            (ended(-30, Some(-60)), "22:29:00", "22:29:00"),
            (ended(-60, Some(30)), "22:29:00", "22:30:00"),
            (ended(30, Some(60)), "22:30:00", "22:30:00"),
            (ended(-60, None), "22:29:00", "22:29:59"),
            (firing(-60), "22:29:00", "23:30:00"),
            (firing(30), "22:30:00", "23:30:00"),
        ] {
            let payload = encode(&of(vec![alert]), NOW, HOUR);
            let day = |time: &str| format!("2023-11-14T{time}Z");
            assert_eq!(payload[0]["startsAt"], day(starts_at));
            assert_eq!(payload[0]["endsAt"], day(ends_at));
        }
    }

    #[test]
    fn one_alert_for_a_set_of_labels_the_newest() {
        let again = Alert { starts_at: NOW - SECOND, ..alert() };
        for alerts in
            [vec![again.clone(), resolved().alerts.remove(0)], vec![resolved().alerts.remove(0), again]]
        {
            let payload = encode(&of(alerts), NOW, HOUR);
            assert_eq!(payload.as_array().map(Vec::len), Some(1));
            assert_eq!(payload[0]["endsAt"], "2023-11-14T23:30:00Z");
        }
        let payload = encode(&group(), NOW, HOUR);
        assert_eq!(payload.as_array().map(Vec::len), Some(3));
        let memory =
            payload.as_array().unwrap().iter().find(|a| a["labels"]["alertname"] == "MemoryLow").unwrap();
        assert_eq!(memory["generatorURL"], Value::Null);
        assert_eq!(memory["annotations"]["runbook_url"], "https://runbooks.example/memory?a=1&b=2");
        assert_eq!(memory["labels"].get("severity"), None);
    }
}
