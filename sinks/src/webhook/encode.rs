//! A notification as the payload of Alertmanager's webhook, version 4
//! (<https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>).
//!
//! One alert a payload. Like Grafana's, an alert also has `values`: the numbers behind the condition, null
//! where one is not finite.

use serde_json::{Value, json};

use crate::Notification;
use crate::timestamp::rfc3339;

/// What Alertmanager sends as the end of an alert that has none: Go's zero time.
const NO_END: &str = "0001-01-01T00:00:00Z";

pub fn encode(notification: &Notification) -> Value {
    let labels = notification.labels_with_rule();
    let annotations = json!({ "summary": notification.summary, "description": notification.description });
    let mut group_labels = notification.labels.clone();
    group_labels.insert("alertname".into(), notification.rule.clone());
    let group: Vec<String> = group_labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    let status = notification.status.to_string();
    json!({
        "version": "4",
        "groupKey": format!("{{}}:{{{}}}", group.join(", ")),
        "truncatedAlerts": 0,
        "status": status,
        "receiver": notification.receiver,
        "groupLabels": group_labels,
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": "",
        "alerts": [{
            "status": status,
            "labels": labels,
            "annotations": annotations,
            "startsAt": rfc3339(notification.starts_at),
            "endsAt": notification.ends_at.map_or_else(|| NO_END.to_owned(), rfc3339),
            "generatorURL": notification.generator_url.as_deref().unwrap_or(""),
            "fingerprint": notification.fingerprint(),
            "values": notification.values,
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::tests::{example, resolved};

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
                "groupKey": r#"{}:{alertname="CpuHigh", region="eu", team="<b>core</b>"}"#,
                "truncatedAlerts": 0,
                "status": "firing",
                "receiver": "on-call",
                "groupLabels": { "alertname": "CpuHigh", "region": "eu", "team": "<b>core</b>" },
                "commonLabels": labels,
                "commonAnnotations": annotations,
                "externalURL": "",
                "alerts": [{
                    "status": "firing",
                    "labels": labels,
                    "annotations": annotations,
                    "startsAt": "2023-11-14T22:13:20Z",
                    "endsAt": "0001-01-01T00:00:00Z",
                    "generatorURL": "http://tidemark.example/rollups/cpu?a=1&b=2",
                    "fingerprint": example().fingerprint(),
                    "values": { "avg": 95.5, "max": 100.0 },
                }],
            })
        );
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
        notification.values.insert("avg".into(), f64::NAN);
        assert_eq!(encode(&notification)["alerts"][0]["values"]["avg"], Value::Null);
    }
}
