//! A notification as the payload of an incoming webhook of Slack: a text that also serves as the
//! fallback, and one attachment an alert (<https://api.slack.com/reference/messaging/attachments>).
//! Mattermost and Rocket.Chat take the same.
//!
//! `&`, `<` and `>` are escaped in every text, so that no label or summary becomes a link or
//! calls a channel.

use serde_json::{Value, json};

use crate::notify::web_address;
use crate::timestamp::rfc3339;
use crate::wording::{headline, notes, one_line, remarks, upper};
use crate::{Alert, Notification, Status};

/// Alerts that are listed. Slack takes 100 attachments, and asks for 20 at most.
const LISTED: usize = 20;
/// Fields of one alert that are shown.
const FIELDS: usize = 20;
/// Characters of a title, of a field's value, and of a longer text. Slack folds longer ones.
const TITLE: usize = 200;
const VALUE: usize = 300;
const TEXT: usize = 1_000;

pub fn encode(notification: &Notification) -> Value {
    let mut text = vec![shown(&one_line(&headline(notification)), TITLE)];
    text.extend(notes(notification).iter().map(|note| shown(note, TEXT)));
    let mut attachments: Vec<Value> = notification.alerts.iter().take(LISTED).map(attachment).collect();
    let more = notification.alerts.len().saturating_sub(LISTED);
    if more > 0 {
        let text = format!("and {more} more");
        attachments.push(json!({ "fallback": text, "text": text }));
    }
    // Without formatting: a `*` or `_` of a label is itself.
    json!({ "text": text.join("\n"), "mrkdwn": false, "attachments": attachments })
}

fn attachment(alert: &Alert) -> Value {
    let color = match (alert.status, alert.severity.as_str()) {
        (Status::Resolved, _) => "#1e7d34",
        (Status::Firing, "warning" | "info") => "#c77700",
        (Status::Firing, _) => "#b3261e",
    };
    let title = shown(&format!("{}: {}", upper(alert.status), one_line(&alert.summary)), TITLE);
    let text: Vec<String> = remarks(alert).into_iter().chain([alert.description.clone()]).collect();
    let mut attachment = json!({
        "fallback": title,
        "color": color,
        "title": title,
        "text": shown(text.join("\n").trim(), TEXT),
        "fields": fields(alert),
        "mrkdwn_in": [],
    });
    if let Some(url) = alert.generator_url.as_deref().and_then(web_address) {
        attachment["title_link"] = url.into();
    }
    attachment
}

fn fields(alert: &Alert) -> Vec<Value> {
    let mut fields = vec![("rule", alert.rule.clone())];
    if !alert.severity.is_empty() {
        fields.push(("severity", alert.severity.clone()));
    }
    fields.push(("started", rfc3339(alert.starts_at)));
    fields.extend(alert.ends_at.map(|ends_at| ("ended", rfc3339(ends_at))));
    fields.extend(alert.owner.clone().map(|owner| ("owner", owner)));
    fields.extend(alert.runbook.clone().map(|runbook| ("runbook", runbook)));
    fields.extend(alert.values.iter().map(|(name, value)| (name.as_str(), value.to_string())));
    fields.extend(alert.labels.iter().map(|(name, value)| (name.as_str(), value.clone())));
    let field = |(name, value): (&str, String)| {
        // Short ones stand side by side.
        let short = value.chars().count() <= 40;
        json!({ "title": shown(name, TITLE), "value": shown(&value, VALUE), "short": short })
    };
    fields.into_iter().take(FIELDS).map(field).collect()
}

/// At most `limit` characters, escaped as Slack asks: these three and no others.
fn shown(text: &str, limit: usize) -> String {
    let mut out = String::with_capacity(text.len().min(limit));
    for (i, c) in text.chars().enumerate() {
        if i == limit {
            out.push('…');
            break;
        }
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::notify::tests::{alert, example, group, resolved};

    #[test]
    fn one_alert_is_one_attachment() {
        assert_eq!(
            encode(&example()),
            json!({
                "text": "[FIRING] CpuHigh: CPU of eu above 90 %",
                "mrkdwn": false,
                "attachments": [{
                    "fallback": "FIRING: CPU of eu above 90 %",
                    "color": "#b3261e",
                    "title": "FIRING: CPU of eu above 90 %",
                    "title_link": "http://tidemark.example/rollups/cpu?a=1&b=2",
                    "text": "avg is \"95.5\" &amp; rising",
                    "fields": [
                        { "title": "rule", "value": "CpuHigh", "short": true },
                        { "title": "severity", "value": "critical", "short": true },
                        { "title": "started", "value": "2023-11-14T22:13:20Z", "short": true },
                        { "title": "avg", "value": "95.5", "short": true },
                        { "title": "max", "value": "100", "short": true },
                        { "title": "region", "value": "eu", "short": true },
                        { "title": "team", "value": "&lt;b&gt;core&lt;/b&gt;", "short": true },
                    ],
                    "mrkdwn_in": [],
                }],
            })
        );
        let ended = encode(&resolved());
        assert_eq!(ended["attachments"][0]["color"], "#1e7d34");
        assert_eq!(ended["attachments"][0]["fields"][3]["value"], "2023-11-14T22:23:20Z");
    }

    #[test]
    fn a_group_has_its_notes_and_each_alert_what_is_special() {
        let payload = encode(&group());
        assert_eq!(payload["text"], "[FIRING:2] CpuHigh: CPU of eu above 90 %\ndata incomplete since 12:00");
        let memory = &payload["attachments"][1];
        assert_eq!(memory["title"], "FIRING: Memory &lt;low&gt;");
        assert!(memory["text"].as_str().unwrap().starts_with("There is no data"), "{memory}");
        assert_eq!(memory["title_link"], Value::Null, "javascript: is no link");
        let fields = memory["fields"].to_string();
        assert!(fields.contains("core &amp; co") && fields.contains("runbooks.example"), "{fields}");
        assert!(payload["attachments"][2]["text"].as_str().unwrap().starts_with("It began at"));
    }

    #[test]
    fn what_is_long_is_cut_and_what_is_many_counted() {
        let mut notification = example();
        let long = Alert {
            summary: "<".repeat(10_000),
            description: "d".repeat(10_000),
            labels: (0..1_000).map(|i| (format!("{i}"), "v".repeat(10_000))).collect(),
            ..alert()
        };
        notification.alerts = vec![long; 23];
        let payload = encode(&notification);
        let attachments = payload["attachments"].as_array().unwrap();
        assert_eq!(attachments.len(), LISTED + 1);
        assert_eq!(attachments[LISTED]["text"], "and 3 more");
        assert!(payload.to_string().len() < 200_000, "{}", payload.to_string().len());
    }

    proptest! {
        #[test]
        fn no_text_becomes_markup(text in ".{0,40}|[<>&!@#| a]{0,40}") {
            let mut notification = group();
            notification.notes.push(text.clone());
            for alert in &mut notification.alerts {
                alert.summary = text.clone();
                alert.description = text.clone();
                alert.rule = text.clone();
                alert.owner = Some(text.clone());
                alert.labels.insert(text.clone(), text.clone());
            }
            let payload = encode(&notification).to_string();
            prop_assert!(!payload.contains(['<', '>']), "{}", payload);
        }
    }
}
