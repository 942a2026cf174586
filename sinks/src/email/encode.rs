//! A notification as an email: subject, text, HTML and the ids that thread it.
//!
//! The Message-ID comes from the notification's id, so a message that is sent twice can be told to be one.
//! All messages of a rule and its labels refer to one id that no message has: mail readers then show
//! firing and resolved as one thread (RFC 5322, 3.6.4).

use std::fmt::Write as _;

use crate::timestamp::rfc3339;
use crate::{Notification, Status};

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
    let status = match notification.status {
        Status::Firing => "FIRING",
        Status::Resolved => "RESOLVED",
    };
    let rows = rows(notification);
    Mail {
        subject: subject(notification, subject_prefix, status),
        text: text(notification, status, &rows),
        html: html(notification, status, &rows),
        message_id: format!("<{}@{domain}>", id_token(&notification.id)),
        thread: format!("<alert.{}@{domain}>", notification.fingerprint()),
    }
}

fn subject(notification: &Notification, prefix: &str, status: &str) -> String {
    let subject = format!("{prefix} [{status}] {}: {}", notification.rule, notification.summary);
    // Line breaks and tabs from a template become spaces.
    let mut one_line = String::new();
    for word in subject.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !one_line.is_empty() {
            one_line.push(' ');
        }
        one_line.push_str(word);
    }
    one_line.chars().take(SUBJECT_LENGTH).collect()
}

/// What both forms list, as name and value.
fn rows(notification: &Notification) -> Vec<(String, String)> {
    let mut rows = vec![("rule".to_owned(), notification.rule.clone())];
    if !notification.severity.is_empty() {
        rows.push(("severity".into(), notification.severity.clone()));
    }
    for (name, value) in &notification.labels {
        rows.push((name.clone(), value.clone()));
    }
    for (name, value) in &notification.values {
        rows.push((name.clone(), value.to_string()));
    }
    let window = format!("{} to {}", rfc3339(notification.window_start), rfc3339(notification.window_end));
    rows.push(("window".into(), window));
    rows.push(("started".into(), rfc3339(notification.starts_at)));
    if let Some(ends_at) = notification.ends_at {
        rows.push(("ended".into(), rfc3339(ends_at)));
    }
    rows
}

fn text(notification: &Notification, status: &str, rows: &[(String, String)]) -> String {
    let mut text = format!("{status}: {}\n", notification.summary);
    if !notification.description.is_empty() {
        text += &format!("\n{}\n", notification.description);
    }
    text.push('\n');
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, value) in rows {
        writeln!(text, "{name:width$}  {value}").expect("writing to a string cannot fail");
    }
    if let Some(url) = &notification.generator_url {
        text += &format!("\n{url}\n");
    }
    text
}

fn html(notification: &Notification, status: &str, rows: &[(String, String)]) -> String {
    let color = match notification.status {
        Status::Firing => "#b3261e",
        Status::Resolved => "#1e7d34",
    };
    let mut html = format!(
        "<!DOCTYPE html>\n<html><body style=\"font-family:sans-serif\">\n\
         <h2 style=\"color:{color}\">{status}: {}</h2>\n",
        escaped(&notification.summary)
    );
    if !notification.description.is_empty() {
        html += &format!("<p style=\"white-space:pre-line\">{}</p>\n", escaped(&notification.description));
    }
    html += "<table cellpadding=\"4\">\n";
    for (name, value) in rows {
        html += &format!("<tr><th align=\"left\">{}</th><td>{}</td></tr>\n", escaped(name), escaped(value));
    }
    html += "</table>\n";
    // Other schemes than these could run something on a click.
    let url = notification.generator_url.as_deref();
    if let Some(url) = url.filter(|url| url.starts_with("http://") || url.starts_with("https://")) {
        html += &format!("<p><a href=\"{0}\">{0}</a></p>\n", escaped(url));
    }
    html += "</body></html>\n";
    html
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

/// The id in characters that may stand in a Message-ID; others as `%` and two hexadecimal digits a byte.
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
    use crate::notify::tests::{example, resolved};

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
    fn only_web_addresses_become_links() {
        let mut notification = example();
        notification.generator_url = Some("javascript:alert(1)".into());
        assert!(!encode(&notification, "", "x.org").html.contains("href"));
    }

    proptest! {
        #[test]
        fn nothing_in_a_template_breaks_out(text in ".{0,40}|[<>&\"'\r\n a]{0,40}") {
            let plain = encode(&example(), "", "x.org").html.matches('<').count();
            let notification =
                Notification { summary: text.clone(), description: format!("d{text}"), id: text, ..example() };
            let mail = encode(&notification, "", "x.org");
            prop_assert_eq!(mail.html.matches('<').count(), plain);
            prop_assert!(!mail.subject.contains(['\r', '\n']));
            prop_assert_eq!(mail.message_id.matches(['<', '>', '@', ' ', '\r', '\n']).count(), 3);
        }
    }
}
