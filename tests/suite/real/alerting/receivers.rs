//! How receivers fail, and how strangers take what we send: mail, webhook, a real Alertmanager.

use std::fs;

use alerts::dispatch::{Entry, What};
use serde_json::{Value, json};
use tidemark_tests::alertmanager::{recording, shape};
use tidemark_tests::hmac::hmac_sha256;
use tidemark_tests::http::{Answered, Request};
use tidemark_tests::wait_until;

use super::super::PATIENCE;
use super::Check;
use super::routes::{alert, alerts};
use super::told::{Notified, RETRY_AFTER, SIGNING_KEY, is_about};

pub(super) const CHECKS: [Check<Notified>; 8] = [
    ("one_bad_recipient_does_not_block_the_other", recipients),
    ("starttls_is_never_skipped", never_in_the_clear),
    ("a_refused_notification_is_told_to_the_fallback_under_the_same_key", rejected),
    ("a_name_that_leads_to_a_private_address_is_refused_and_the_fallback_is_told", private),
    ("a_webhook_is_signed_and_waits_as_long_as_it_is_asked_to", signed),
    ("an_incident_that_came_and_went_while_the_receiver_was_away_is_told_once", away),
    (STRANGERS[0], alertmanager),
    (STRANGERS[1], consumer),
];

/// Those that need more than the servers of all other trials.
pub(super) const STRANGERS: [&str; 2] = [
    "an_alertmanager_takes_groups_and_resolves_our_alerts",
    "a_stranger_that_consumes_alertmanagers_webhook_takes_ours",
];

const KEY: &str = "idempotency-key";

#[track_caller]
fn gave_up(told: &Notified, receiver: &str) -> Entry {
    told.ledger
        .wait_for(&format!("`{receiver}` is given up"), |entry| is_about(entry, receiver, What::GaveUp))
}

/// The post to the fallback that stands for a dispatch.
#[track_caller]
fn at_fallback(told: &Notified, given_up: &Entry) -> Request {
    assert_eq!(given_up.by.as_deref(), Some("fallback"), "{given_up:#?}");
    let id = given_up.dispatch.clone().unwrap();
    let posts = told.posts("fallback");
    let mut of_dispatch = posts.into_iter().filter(|post| post.headers[KEY] == id);
    let post = of_dispatch.next().expect("the ledger says so");
    assert!(of_dispatch.next().is_none(), "told twice");
    post
}

fn recipients(told: &Notified) {
    let given_up = gave_up(told, "mail-two");
    let reason = given_up.reason.unwrap();
    assert!(reason.contains("gone@example.org") && reason.contains("550"), "{reason}");
    assert!(!reason.contains("here@example.org"), "{reason}");
    let mails = told.implicit.deliveries();
    let to: Vec<&str> = mails.iter().flat_map(|mail| &mail.to).map(String::as_str).collect();
    assert_eq!(to, ["here@example.org"]);
    assert!(mails[0].encrypted && mails[0].mail.header("Subject").contains("load of a1 is 95"), "{mails:#?}");
}

fn never_in_the_clear(told: &Notified) {
    let failed = told.ledger.wait_for("`mail-plain` is not notified", |entry| {
        is_about(entry, "mail-plain", What::Attempted) || is_about(entry, "mail-plain", What::GaveUp)
    });
    let commands = told.plain.commands();
    let said = |verb: &str| commands.iter().any(|line| line.to_ascii_uppercase().starts_with(verb));
    assert!(said("EHLO"), "{commands:?}");
    assert!(!said("MAIL") && !said("AUTH") && !said("DATA"), "{commands:?}: {failed:#?}");
    assert_eq!(told.plain.deliveries().len(), 0);
}

fn rejected(told: &Notified) {
    let given_up = gave_up(told, "strict");
    let reason = given_up.reason.clone().unwrap();
    assert!(reason.contains("400"), "{reason}");
    let told_instead = at_fallback(told, &given_up);
    let refused = told.strict.requests();
    assert_eq!(refused.len(), 1, "what is refused for good is not tried again");
    assert_eq!(refused[0].answered, Answered::Status(400));
    assert_eq!(refused[0].headers[KEY], told_instead.headers[KEY]);
    assert_eq!(alerts(&told_instead), [alert("High", "firing", "j1")]);
}

fn private(told: &Notified) {
    let given_up = gave_up(told, "private");
    let reason = given_up.reason.clone().unwrap();
    assert!(reason.contains("private network") && reason.contains("allow_private"), "{reason}");
    assert_eq!(alerts(&at_fallback(told, &given_up)), [alert("High", "firing", "v1")]);
    assert_eq!(told.private.requests().len(), 0);
}

fn signed(told: &Notified) {
    let attempts = told.signed.wait_for(2, PATIENCE);
    let answered: Vec<Answered> = attempts.iter().map(|attempt| attempt.answered).collect();
    assert_eq!(answered, [Answered::Status(429), Answered::Status(200)]);
    assert_eq!(attempts[0].headers[KEY], attempts[1].headers[KEY]);
    assert_eq!(attempts[0].body, attempts[1].body);
    let sent_at = |attempt: &Request| attempt.headers["x-tidemark-timestamp"].parse::<u64>().unwrap();
    assert!(
        sent_at(&attempts[1]) >= sent_at(&attempts[0]) + RETRY_AFTER,
        "{} and then {}",
        sent_at(&attempts[0]),
        sent_at(&attempts[1])
    );
    for attempt in &attempts {
        let signature = &attempt.headers["x-tidemark-signature"];
        assert_eq!(*signature, hmac(sent_at(attempt), &attempt.body), "{:?}", attempt.headers);
        assert_ne!(*signature, hmac(sent_at(attempt) + 1, &attempt.body));
    }
}

/// What the receiver computes from the body as it came, the header with the time, and the key.
fn hmac(timestamp: u64, body: &[u8]) -> String {
    hmac_sha256(SIGNING_KEY.as_bytes(), &[format!("{timestamp}:").as_bytes(), body].concat())
}

fn away(told: &Notified) {
    // It has refused the first message until there was a second one, of the end: one is made of
    // both.
    told.ledger.wait_for("two messages to `away` are one", |entry| is_about(entry, "away", What::Replaced));
    assert_eq!(told.away.requests().len(), 0);
    told.away.up();
    told.ledger.wait_for("`away` is notified", |entry| is_about(entry, "away", What::Delivered));
    let posts = told.away.requests();
    assert_eq!(posts.len(), 1, "{posts:#?}");
    assert_eq!(alerts(&posts[0]), [alert("High", "resolved", "w1")]);
    let body = posts[0].json();
    let note = body["notes"][0].as_str().unwrap();
    let expected = "sent late, the receiver was away: High host=w1 job=away \
                    began 2026-01-05T00:00:10Z, ended 2026-01-05T00:00:20Z";
    assert_eq!(note, expected);
    // Beginning and end, each under its own id.
    assert_eq!(body["alerts"][0]["transitions"].as_array().map(Vec::len), Some(2), "{body:#}");
}

fn alertmanager(told: &Notified) {
    let (server, _) = told.strangers.as_ref().unwrap();
    // Both came before the second window: the site waited for them.
    let alerts = wait_until(PATIENCE, "one alert to be resolved", || match server.alerts() {
        alerts if alerts.len() == 1 => Ok(alerts),
        alerts => Err(format!("{alerts:#?}")),
    });
    let labels = json!({ "alertname": "High", "host": "x2", "job": "strangers", "severity": "warning" });
    assert_eq!(alerts[0]["labels"], labels);
    assert_eq!(alerts[0]["annotations"]["summary"], json!("load of x2 is 95"));
    assert_eq!(alerts[0]["startsAt"], json!("2026-01-05T00:00:10.000Z"));
    let groups = server.groups();
    let with_x2 = groups.iter().find(|group| {
        group["alerts"].as_array().is_some_and(|alerts| alerts.iter().any(|alert| alert["labels"] == labels))
    });
    assert_eq!(with_x2.unwrap_or_else(|| panic!("{groups:#?}"))["labels"], json!({ "job": "strangers" }));
}

fn consumer(told: &Notified) {
    let (_, consumer) = told.strangers.as_ref().unwrap();
    let received = consumer.wait_for(3, PATIENCE);
    let mut seen = Vec::new();
    for line in &received {
        assert_eq!(line.get("error"), None, "{line:#}");
        assert!(line["subject"].as_str().is_some_and(|subject| subject.contains("High")), "{line:#}");
        let alert = &line["message"]["alerts"][0];
        seen.push((alert["labels"]["host"].as_str().unwrap(), alert["status"].as_str().unwrap()));
    }
    seen.sort_unstable();
    assert_eq!(seen, [("x1", "firing"), ("x1", "resolved"), ("x2", "firing")]);

    let recorded: Value = serde_json::from_str(&fs::read_to_string(recording()).unwrap()).unwrap();
    let ours = told.wait_for_posts("strangers", 3);
    for post in ours {
        let shape_of_ours = shape(&post.json());
        let missing: Vec<String> =
            shape(&recorded).into_iter().filter(|key| !shape_of_ours.contains(key)).collect();
        assert_eq!(missing, [""; 0], "keys of Alertmanager's payload that ours does not have");
    }
}
