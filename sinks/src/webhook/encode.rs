//! A notification as the payload of Alertmanager's webhook, version 4
//! (<https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>), with keys of our
//! own that its consumers ignore:
//!
//! | key | where | what |
//! |---|---|---|
//! | `id` | top | the same in every attempt, as `Idempotency-Key` |
//! | `reason` | top | `changed`, `repeated`, `escalated` |
//! | `notes` | top | sentences for people |
//! | `values` | alert | the numbers of the condition, null where one is not finite; as Grafana's |
//! | `transitions` | alert | ids of what is notified for the first time |
//! | `incident` | alert | the same from firing to resolved |
//! | `cause` | alert | `condition`, `no_data`, `correction`, `forgotten`, `rule_changed` |
//! | `provisional` | alert | whether it will be confirmed or withdrawn |
//! | `window` | alert | `start` and `end` of the rollup's window |
//! | `times` | alert | `sample`, `ingested`, `evaluated`, null where not known |
//!
//! When it was delivered is not among them, as the body must not differ between attempts.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::timestamp::rfc3339;
use crate::{Alert, Notification};

/// What Alertmanager sends as the end of an alert that has none: Go's zero time.
const NO_END: &str = "0001-01-01T00:00:00Z";

pub fn encode(notification: &Notification) -> Value {
    let alerts = &notification.alerts;
    json!({
        "version": "4",
        "groupKey": notification.group_key,
        "truncatedAlerts": 0,
        "status": notification.status().to_string(),
        "receiver": notification.receiver,
        "groupLabels": notification.group_labels,
        "commonLabels": common(alerts.iter().map(Alert::labels_with_rule)),
        "commonAnnotations": common(alerts.iter().map(Alert::annotations)),
        "externalURL": notification.external_url.as_deref().unwrap_or(""),
        "alerts": alerts.iter().map(encode_alert).collect::<Vec<_>>(),
        "id": notification.id,
        "reason": notification.reason.as_str(),
        "notes": notification.notes,
    })
}

fn encode_alert(alert: &Alert) -> Value {
    json!({
        "status": alert.status.to_string(),
        "labels": alert.labels_with_rule(),
        "annotations": alert.annotations(),
        "startsAt": rfc3339(alert.starts_at),
        "endsAt": alert.ends_at.map_or_else(|| NO_END.to_owned(), rfc3339),
        "generatorURL": alert.generator_url.as_deref().unwrap_or(""),
        "fingerprint": alert.fingerprint(),
        "values": alert.values,
        "transitions": alert.transitions,
        "incident": alert.incident,
        "cause": alert.cause,
        "provisional": alert.provisional,
        "window": { "start": rfc3339(alert.window_start), "end": rfc3339(alert.window_end) },
        "times": {
            "sample": alert.sample.map(rfc3339),
            "ingested": alert.ingested.map(rfc3339),
            "evaluated": alert.evaluated.map(rfc3339),
        },
    })
}

/// The pairs that all have.
fn common<K: Ord, V: PartialEq>(mut maps: impl Iterator<Item = BTreeMap<K, V>>) -> BTreeMap<K, V> {
    let mut common = maps.next().unwrap_or_default();
    for map in maps {
        common.retain(|name, value| map.get(name) == Some(value));
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::tests::{alert, example, group, resolved};

    #[test]
    fn firing_has_all_that_alertmanager_sends() {
        let labels =
            json!({ "alertname": "CpuHigh", "region": "eu", "severity": "critical", "team": "<b>core</b>" });
        let annotations =
            json!({ "summary": "CPU of eu above 90 %", "description": "avg is \"95.5\" & rising" });
        assert_eq!(
            encode(&example()),
            json!({
                "version": "4",
                "groupKey": r#"cpu:{region="eu"}"#,
                "truncatedAlerts": 0,
                "status": "firing",
                "receiver": "on-call",
                "groupLabels": { "region": "eu" },
                "commonLabels": labels,
                "commonAnnotations": annotations,
                "externalURL": "http://tidemark.example/",
                "alerts": [{
                    "status": "firing",
                    "labels": labels,
                    "annotations": annotations,
                    "startsAt": "2023-11-14T22:13:20Z",
                    "endsAt": "0001-01-01T00:00:00Z",
                    "generatorURL": "http://tidemark.example/rollups/cpu?a=1&b=2",
                    "fingerprint": alert().fingerprint(),
                    "values": { "avg": 95.5, "max": 100.0 },
                    "transitions": ["t1"],
                    "incident": "i1",
                    "cause": "condition",
                    "provisional": false,
                    "window": { "start": "2023-11-14T22:12:20Z", "end": "2023-11-14T22:13:20Z" },
                    "times": {
                        "sample": "2023-11-14T22:13:19Z",
                        "ingested": "2023-11-14T22:13:21Z",
                        "evaluated": null,
                    },
                }],
                "id": "cpu-high/eu <1>",
                "reason": "changed",
                "notes": [],
            })
        );
    }

    #[test]
    fn a_group_lists_every_alert_and_what_all_have() {
        let payload = encode(&group());
        assert_eq!(payload["status"], "firing");
        assert_eq!(payload["commonLabels"], json!({ "region": "eu" }));
        assert_eq!(payload["commonAnnotations"], json!({ "description": "avg is \"95.5\" & rising" }));
        assert_eq!(payload["notes"], json!(["data incomplete since 12:00"]));
        let states: Vec<&Value> = (0..3).map(|i| &payload["alerts"][i]["status"]).collect();
        assert_eq!(states, ["firing", "firing", "resolved"]);
        let annotations = &payload["alerts"][1]["annotations"];
        assert_eq!(annotations["owner"], "core & co");
        assert_eq!(annotations["runbook_url"], "https://runbooks.example/memory?a=1&b=2");
    }

    #[test]
    fn resolved_keeps_group_and_fingerprint() {
        let (firing, resolved) = (encode(&example()), encode(&resolved()));
        assert_eq!(resolved["groupKey"], firing["groupKey"]);
        assert_eq!(resolved["alerts"][0]["fingerprint"], firing["alerts"][0]["fingerprint"]);
        assert_eq!(resolved["status"], "resolved");
        assert_eq!(resolved["alerts"][0]["endsAt"], "2023-11-14T22:23:20Z");
    }

    #[test]
    fn numbers_without_a_json_form_are_null() {
        let mut notification = example();
        notification.alerts[0].values.insert("avg".into(), f64::NAN);
        assert_eq!(encode(&notification)["alerts"][0]["values"]["avg"], Value::Null);
    }
}
