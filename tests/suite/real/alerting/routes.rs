//! Who is notified, and when: grouping, repetition, what holds alerts back, escalation, and what
//! the messages say.

use alerts::dispatch::{Entry, What};
use serde_json::{Value, json};
use tidemark_tests::http::Request;
use tidemark_tests::wait_until;

use super::super::PATIENCE;
use super::Check;
use super::told::{GROUP_INTERVAL, Notified, is_about, is_host, silence};

pub(super) const CHECKS: [Check<Notified>; 8] = [
    ("two_hosts_of_a_group_are_one_mail_and_the_next_one_waits_for_the_groups_interval", pair),
    ("what_still_fires_is_told_again_after_the_repeat_interval", repeated),
    ("an_alert_is_inhibited_while_its_cause_fires_and_told_after_it", inhibited),
    ("a_silenced_alert_is_told_once_the_silence_is_lifted", silenced),
    ("a_muted_route_tells_nothing_and_the_ledger_says_why", muted),
    ("what_nobody_takes_on_is_escalated_and_what_is_acknowledged_is_not", escalated),
    ("a_template_that_fails_costs_its_text_and_not_the_alert", template),
    ("late_points_that_change_a_verdict_are_told_as_a_correction", corrected),
];

/// Rule, status and host of each alert of a post.
pub(super) fn alerts(post: &Request) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let post = post.json();
    let alerts = post["alerts"].as_array().unwrap().iter();
    alerts
        .map(|alert| {
            let labels = &alert["labels"];
            (text(&labels["alertname"]), text(&alert["status"]), text(&labels["host"]))
        })
        .collect()
}

pub(super) fn alert(rule: &str, status: &str, host: &str) -> (String, String, String) {
    (rule.to_owned(), status.to_owned(), host.to_owned())
}

fn whats(entries: &[Entry]) -> Vec<What> {
    entries.iter().map(|entry| entry.what).collect()
}

fn pair(told: &Notified) {
    let mails = told.starttls.wait_for(2, PATIENCE);
    let text = |index: usize| mails[index].mail.text("text/plain");
    let subject = |index: usize| mails[index].mail.header("Subject");
    assert!(subject(0).contains("[FIRING:2]"), "{}", subject(0));
    for host in ["p1", "p2"] {
        assert!(text(0).contains(&format!("load of {host} is 95")), "{}", text(0));
        assert!(!text(1).contains(&format!("load of {host}")), "{}", text(1));
    }
    assert!(subject(1).contains("load of p3 is 95"), "{}", subject(1));
    assert!(mails.iter().all(|delivery| delivery.encrypted), "{mails:#?}");
    assert_eq!(mails.len(), 2);
    // When they were made, by the ledger.
    let made = |host: &str| {
        let entries = told.said_of("High", host);
        entries.iter().find(|entry| is_about(entry, "mail-pair", What::Dispatched)).unwrap().at
    };
    assert_eq!(made("p1"), made("p2"));
    let between = made("p3") - made("p1");
    assert!(between >= GROUP_INTERVAL * 1_000_000_000, "{between} ns between two mails of a group");
}

fn repeated(told: &Notified) {
    let posts = told.wait_for_posts("repeated", 3);
    let bodies: Vec<Value> = posts.iter().map(Request::json).collect();
    let reasons: Vec<&Value> = bodies.iter().map(|body| &body["reason"]).collect();
    assert_eq!(reasons[..3], ["changed", "repeated", "repeated"]);
    for (post, body) in posts.iter().zip(&bodies) {
        assert_eq!(alerts(post), [alert("High", "firing", "r1")]);
        assert_eq!(body["alerts"][0]["incident"], bodies[0]["alerts"][0]["incident"]);
    }
    // Each is a message of its own, and only the first tells of a transition.
    assert!(bodies[0]["id"] != bodies[1]["id"] && bodies[1]["id"] != bodies[2]["id"], "{bodies:#?}");
    let news: Vec<usize> =
        bodies.iter().map(|body| body["alerts"][0]["transitions"].as_array().unwrap().len()).collect();
    assert_eq!(news[..3], [1, 0, 0]);
}

fn inhibited(told: &Notified) {
    let posts = told.wait_for_posts("inhibited", 3);
    let mut seen: Vec<_> = posts.iter().flat_map(alerts).collect();
    assert_eq!(seen.remove(0), alert("Down", "firing", "i1"));
    // On their way at the same time.
    seen.sort();
    assert_eq!(seen, [alert("Down", "resolved", "i1"), alert("Slow", "firing", "i1")]);
    let entries = told.said_of("Slow", "i1");
    assert_eq!(whats(&entries), [What::Received, What::Inhibited, What::Dispatched]);
    assert!(entries[1].by.as_ref().is_some_and(|by| by.starts_with("Down ")), "{entries:#?}");
}

fn silenced(told: &Notified) {
    let entry = told.ledger.wait_for("`s1` is silenced", |entry| {
        is_host(entry, "s1") && is_about(entry, "silenced", What::Silenced)
    });
    assert_eq!(entry.by.as_deref(), Some("s1"));
    assert_eq!(told.posts("silenced").len(), 0);
    // Over since long ago.
    told.ledger.command("silence/s1", &silence(1));
    let posts = told.wait_for_posts("silenced", 1);
    assert_eq!(alerts(&posts[0]), [alert("High", "firing", "s1")]);
    assert_eq!(
        whats(&told.said_of("High", "s1")),
        [What::Received, What::Silenced, What::Dispatched],
        "told once, and not before"
    );
}

fn muted(told: &Notified) {
    let entry = told
        .ledger
        .wait_for("`m1` is muted", |entry| is_host(entry, "m1") && is_about(entry, "muted", What::Muted));
    assert_eq!(entry.by.as_deref(), Some("always"));
    // What was due with it, and later, has been notified.
    told.wait_for_posts("repeated", 2);
    assert_eq!(whats(&told.said_of("High", "m1")), [What::Received, What::Muted]);
    assert_eq!(told.posts("muted").len(), 0);
}

fn escalated(told: &Notified) {
    let by = told.ledger.wait_for("`c1` is acknowledged", |entry| {
        is_host(entry, "c1") && entry.what == What::Acknowledged && entry.receiver.is_none()
    });
    assert_eq!((by.by.as_deref(), by.reason.as_deref()), (Some("kim"), Some("on it")));
    let posts = told.wait_for_posts("second", 1);
    // Both were to be escalated at about the same time: the ledger says of each what became of it.
    told.ledger.wait_for("`c1` is not escalated", |entry| {
        is_host(entry, "c1") && is_about(entry, "second", What::Acknowledged)
    });
    assert_eq!(alerts(&posts[0]), [alert("High", "firing", "c2")]);
    assert_eq!(posts[0].json()["reason"], json!("escalated"));
    assert_eq!(told.posts("second").len(), 1);
    assert_eq!(told.posts("first").len(), 2);
}

fn template(told: &Notified) {
    let posts = told.wait_for_posts("template", 1);
    assert_eq!(alerts(&posts[0]), [alert("Broken", "firing", "t1")]);
    let summary = posts[0].json()["alerts"][0]["annotations"]["summary"].as_str().unwrap().to_owned();
    let plain = "Broken firing host=t1 job=template avg=95 (the rule's summary template failed: ";
    assert!(summary.starts_with(plain), "{summary}");
}

fn corrected(told: &Notified) {
    let posts = told.wait_for_posts("corrected", 2);
    let seen: Vec<_> = posts.iter().flat_map(alerts).collect();
    assert_eq!(seen, [alert("High", "firing", "l1"), alert("High", "resolved", "l1")]);
    let of = |index: usize, key: &str| posts[index].json()["alerts"][0][key].clone();
    assert_eq!((of(0, "cause"), of(1, "cause")), (json!("condition"), json!("correction")));
    assert_eq!(of(0, "incident"), of(1, "incident"));
    // The average of what came in time and what came late.
    assert_eq!(of(1, "values"), json!({ "avg": 50.0 }));
    wait_until(PATIENCE, "both to be delivered", || {
        let entries = told.ledger.entries();
        let delivered = entries.iter().filter(|entry| is_about(entry, "corrected", What::Delivered)).count();
        if delivered == 2 { Ok(()) } else { Err(format!("{delivered} delivered")) }
    });
}
