//! A notification as an email: subject, text, HTML and the ids that thread it.
//!
//! The Message-ID comes from the notification's id, so a message that is sent twice can be notified
//! to be one. All messages of a group refer to one id that no message has: mail readers then show
//! firing and resolved as one thread (RFC 5322, 3.6.4).

use std::fmt::Write as _;

use crate::notify::{fnv, web_address};
use crate::plain::{plain, plain_lines};
use crate::timestamp::rfc3339;
use crate::wording::{headline, notes, one_line, remarks, upper};
use crate::{Alert, Notification, Status};

/// Subjects are cut to this many characters.
const SUBJECT_LENGTH: usize = 200;

/// The parts of a message that do not depend on the recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    pub subject: String,
    pub text: String,
    pub html: String,
    pub message_id: String,
    /// For References and In-Reply-To.
    pub thread: String,
}

/// `domain` is that of the sender.
pub fn encode(notification: &Notification, subject_prefix: &str, domain: &str) -> Mail {
    let subject = one_line(&format!("{subject_prefix} {}", headline(notification)));
    let group = fnv([notification.receiver.as_str(), &notification.group_key].into_iter());
    Mail {
        subject: subject.chars().take(SUBJECT_LENGTH).collect(),
        text: text(notification),
        html: html(notification),
        message_id: format!("<{}@{domain}>", id_token(&notification.id)),
        thread: format!("<group.{group:016x}@{domain}>"),
    }
}

/// What is listed of an alert, as name and value.
fn rows(alert: &Alert) -> Vec<(String, String)> {
    let mut rows = vec![("rule".to_owned(), alert.rule.clone())];
    if !alert.severity.is_empty() {
        rows.push(("severity".into(), alert.severity.clone()));
    }
    for (name, value) in &alert.labels {
        rows.push((name.clone(), value.clone()));
    }
    for (name, value) in &alert.values {
        rows.push((name.clone(), value.to_string()));
    }
    let window = format!("{} to {}", rfc3339(alert.window_start), rfc3339(alert.window_end));
    rows.push(("window".into(), window));
    rows.push(("started".into(), rfc3339(alert.starts_at)));
    if let Some(ends_at) = alert.ends_at {
        rows.push(("ended".into(), rfc3339(ends_at)));
    }
    if let Some(owner) = &alert.owner {
        rows.push(("owner".into(), owner.clone()));
    }
    if let Some(runbook) = &alert.runbook {
        rows.push(("runbook".into(), runbook.clone()));
    }
    // A line break in a label would begin a row of its own.
    rows.into_iter().map(|(name, value)| (plain(&name).into_owned(), plain(&value).into_owned())).collect()
}

/// The alerts in sections: those that fire, then those that have ended. A title, `2 firing`, where
/// there are several alerts.
fn sections(notification: &Notification) -> Vec<(Option<String>, Vec<&Alert>)> {
    let several = notification.alerts.len() > 1;
    let mut sections = Vec::new();
    for status in [Status::Firing, Status::Resolved] {
        let alerts: Vec<&Alert> = notification.with_status(status).collect();
        if !alerts.is_empty() {
            sections.push((several.then(|| format!("{} {status}", alerts.len())), alerts));
        }
    }
    sections
}

fn text(notification: &Notification) -> String {
    let mut text = String::new();
    for note in notes(notification) {
        text += &format!("{note}\n\n");
    }
    for (title, alerts) in sections(notification) {
        if let Some(title) = title {
            text += &format!("==== {title} ====\n\n");
        }
        for alert in alerts {
            alert_text(&mut text, alert);
            text.push('\n');
        }
    }
    // The blank line after the last alert.
    text.pop();
    text
}

fn alert_text(text: &mut String, alert: &Alert) {
    *text += &format!("{}: {}\n", upper(alert.status), plain(&alert.summary));
    for remark in remarks(alert) {
        *text += &format!("\n{remark}\n");
    }
    if !alert.description.is_empty() {
        *text += &format!("\n{}\n", plain_lines(&alert.description));
    }
    text.push('\n');
    let rows = rows(alert);
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, value) in rows {
        writeln!(text, "{name:width$}  {value}").expect("writing to a string cannot fail");
    }
    if let Some(url) = &alert.generator_url {
        *text += &format!("\n{url}\n");
    }
}

fn html(notification: &Notification) -> String {
    let mut html = "<!DOCTYPE html>\n<html><body style=\"font-family:sans-serif\">\n".to_owned();
    for note in notes(notification) {
        html += &format!("<p>{}</p>\n", escaped(&note));
    }
    for (title, alerts) in sections(notification) {
        if let Some(title) = title {
            html += &format!("<h1>{title}</h1>\n");
        }
        for alert in alerts {
            alert_html(&mut html, alert);
        }
    }
    html += "</body></html>\n";
    html
}

fn alert_html(html: &mut String, alert: &Alert) {
    let color = match alert.status {
        Status::Firing => "#b3261e",
        Status::Resolved => "#1e7d34",
    };
    let (status, summary) = (upper(alert.status), escaped(&plain(&alert.summary)));
    *html += &format!("<h2 style=\"color:{color}\">{status}: {summary}</h2>\n");
    for remark in remarks(alert) {
        *html += &format!("<p><em>{}</em></p>\n", escaped(&remark));
    }
    if !alert.description.is_empty() {
        *html +=
            &format!("<p style=\"white-space:pre-line\">{}</p>\n", escaped(&plain_lines(&alert.description)));
    }
    *html += "<table cellpadding=\"4\">\n";
    for (name, value) in rows(alert) {
        let shown = match web_address(&value).filter(|_| name == "runbook") {
            Some(url) => link(url),
            None => escaped(&value),
        };
        *html += &format!("<tr><th align=\"left\">{}</th><td>{shown}</td></tr>\n", escaped(&name));
    }
    *html += "</table>\n";
    if let Some(url) = alert.generator_url.as_deref().and_then(web_address) {
        *html += &format!("<p>{}</p>\n", link(url));
    }
}

fn link(url: &str) -> String {
    format!("<a href=\"{0}\">{0}</a>", escaped(url))
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// The id in characters that may stand in a Message-ID; others as `%` and two hexadecimal digits a
/// byte.
fn id_token(id: &str) -> String {
    let mut token = String::with_capacity(id.len());
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            token.push(char::from(byte));
        } else {
            write!(token, "%{byte:02x}").expect("writing to a string cannot fail");
        }
    }
    token
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::notify::tests::{alert, example, group, resolved};

    #[test]
    fn firing_as_text_and_html() {
        let mail = encode(&example(), "[prod]", "example.org");
        assert_eq!(mail.subject, "[prod] [FIRING] CpuHigh: CPU of eu above 90 %");
        assert_eq!(mail.message_id, "<cpu-high%2feu%20%3c1%3e@example.org>");
        assert_eq!(
            mail.text,
            "FIRING: CPU of eu above 90 %\n\
             \n\
             avg is \"95.5\" & rising\n\
             \n\
             rule      CpuHigh\n\
             severity  critical\n\
             region    eu\n\
             team      <b>core</b>\n\
             avg       95.5\n\
             max       100\n\
             window    2023-11-14T22:12:20Z to 2023-11-14T22:13:20Z\n\
             started   2023-11-14T22:13:20Z\n\
             \n\
             http://tidemark.example/rollups/cpu?a=1&b=2\n"
        );
        assert_eq!(
            mail.html,
            "<!DOCTYPE html>\n\
             <html><body style=\"font-family:sans-serif\">\n\
             <h2 style=\"color:#b3261e\">FIRING: CPU of eu above 90 %</h2>\n\
             <p style=\"white-space:pre-line\">avg is &quot;95.5&quot; &amp; rising</p>\n\
             <table cellpadding=\"4\">\n\
             <tr><th align=\"left\">rule</th><td>CpuHigh</td></tr>\n\
             <tr><th align=\"left\">severity</th><td>critical</td></tr>\n\
             <tr><th align=\"left\">region</th><td>eu</td></tr>\n\
             <tr><th align=\"left\">team</th><td>&lt;b&gt;core&lt;/b&gt;</td></tr>\n\
             <tr><th align=\"left\">avg</th><td>95.5</td></tr>\n\
             <tr><th align=\"left\">max</th><td>100</td></tr>\n\
             <tr><th align=\"left\">window</th><td>2023-11-14T22:12:20Z to 2023-11-14T22:13:20Z</td></tr>\n\
             <tr><th align=\"left\">started</th><td>2023-11-14T22:13:20Z</td></tr>\n\
             </table>\n\
             <p><a href=\"http://tidemark.example/rollups/cpu?a=1&amp;b=2\">\
             http://tidemark.example/rollups/cpu?a=1&amp;b=2</a></p>\n\
             </body></html>\n"
        );
    }

    #[test]
    fn resolved_joins_the_thread_under_its_own_id() {
        let (firing, resolved) = (encode(&example(), "", "x.org"), encode(&resolved(), "", "x.org"));
        assert_eq!(firing.thread, resolved.thread);
        assert_ne!(firing.message_id, resolved.message_id);
        assert_eq!(resolved.subject, "[RESOLVED] CpuHigh: CPU of eu above 90 %");
        assert!(resolved.text.contains("ended     2023-11-14T22:23:20Z\n"), "{}", resolved.text);
    }

    #[test]
    fn a_group_lists_what_fires_and_what_has_ended_apart() {
        let mail = encode(&group(), "", "x.org");
        assert_eq!(mail.subject, "[FIRING:2] CpuHigh: CPU of eu above 90 %");
        assert_eq!(mail.thread, encode(&example(), "", "x.org").thread, "it is the same group");
        for text in [&mail.text, &mail.html] {
            let mut from = 0;
            for part in [
                "data incomplete since 12:00",
                "2 firing",
                "FIRING: CPU of eu",
                "FIRING: Memory",
                "There is no data",
                "Provisional",
                "owner",
                "runbook",
                "1 resolved",
                "RESOLVED: Disk of eu full",
                "It began at 2023-11-14T22:13:20Z and ended at 2023-11-14T22:23:20Z.",
                "ended",
            ] {
                let at = text[from..].find(part);
                from += at.unwrap_or_else(|| panic!("{part} is missing or misplaced in\n{text}"));
            }
        }
        let runbook = "<td><a href=\"https://runbooks.example/memory?a=1&amp;b=2\">";
        assert!(mail.html.contains(runbook), "{}", mail.html);
        assert!(!mail.text.contains("\n\n\n") && mail.text.ends_with("b=2\n"), "{}", mail.text);
    }

    #[test]
    fn threads_are_those_of_receiver_and_group() {
        let thread = |notification: &Notification| encode(notification, "", "x.org").thread;
        let group = Notification { group_key: "other".into(), ..example() };
        let receiver = Notification { receiver: "other".into(), ..example() };
        assert_ne!(thread(&example()), thread(&group));
        assert_ne!(thread(&example()), thread(&receiver));
    }

    #[test]
    fn only_web_addresses_become_links() {
        let script = Some("javascript:alert(1)".to_owned());
        let alert = Alert { generator_url: script.clone(), runbook: script, ..alert() };
        let notification = Notification { alerts: vec![alert], ..example() };
        let mail = encode(&notification, "", "x.org");
        assert!(!mail.html.contains("href"));
        assert!(mail.text.contains("runbook   javascript:alert(1)\n"), "{}", mail.text);
    }

    proptest! {
        #[test]
        fn nothing_in_a_template_breaks_out(text in ".{0,40}|[<>&\"'\r\n a]{0,40}") {
            let mut notification = group();
            let plain = encode(&notification, "", "x.org").html.matches('<').count();
            notification.id = text.clone();
            notification.notes = vec![text.clone()];
            for alert in &mut notification.alerts {
                alert.summary = text.clone();
                alert.description = format!("d{text}");
                alert.rule = text.clone();
                alert.owner = alert.owner.as_ref().map(|_| text.clone());
                alert.runbook = alert.runbook.as_ref().map(|_| format!("https://{text}"));
                alert.labels.values_mut().for_each(|value| value.clone_from(&text));
            }
            let mail = encode(&notification, "", "x.org");
            prop_assert_eq!(mail.html.matches('<').count(), plain);
            prop_assert!(!mail.subject.contains(['\r', '\n']));
            prop_assert_eq!(mail.message_id.matches(['<', '>', '@', ' ', '\r', '\n']).count(), 3);
        }
    }
}
