//! A real Alertmanager and a consumer of its webhook, posted to by hand: what trials of ours may
//! rely on.

use std::env;
use std::fs;

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};
use tidemark_tests::alertmanager::{Alertmanager, recording, shape};
use tidemark_tests::http::{Answered, Http, Request};
use tidemark_tests::provided::Unavailable;
use tidemark_tests::wait_until;
use tidemark_tests::webhook_consumer::WebhookConsumer;

use crate::golden;
use crate::real::PATIENCE;

/// Long ago, because trials have no clock. What matters is that the end is later.
const START: &str = "2024-05-01T12:00:00Z";
const END: &str = "2024-05-01T12:30:00Z";

type Body = fn() -> Result<(), Failed>;

pub(crate) fn trials() -> Vec<Trial> {
    let missing = Alertmanager::find().and_then(|_| WebhookConsumer::find()).err();
    if let Some(reason) = &missing {
        eprintln!("skipped: trials on a real Alertmanager: {reason}");
    }
    let ignored = missing.is_some() && env::var_os("TIDEMARK_REQUIRE_SERVERS").is_none();
    let trials: [(&str, Body); 2] = [
        ("alerts_are_grouped_told_and_gone_and_its_webhook_is_as_recorded", grouped_told_and_gone),
        ("the_consumer_reads_its_webhook_and_refuses_what_is_none", read_by_the_consumer),
    ];
    let trial = |(name, run)| Trial::test(format!("alertmanager::{name}"), run).with_ignored_flag(ignored);
    trials.into_iter().map(trial).collect()
}

fn grouped_told_and_gone() -> Result<(), Failed> {
    let http = Http::start();
    let server = start(&http.url())?;
    server.post_alerts(&json!([alert("a", None), alert("b", None)]));
    let firing = payload(&http, "two that fire", |it| statuses(it) == ["firing", "firing"]);
    assert_eq!(hosts(&server.alerts()), ["a", "b"]);
    let groups = server.groups();
    assert_eq!(groups.len(), 1, "{groups:#?}");
    assert_eq!(groups[0]["labels"], json!({ "alertname": "CpuHigh", "region": "eu" }));
    assert_eq!(groups[0]["receiver"]["name"], json!("hook"));

    server.post_alerts(&json!([alert("b", Some(END))]));
    let mixed = payload(&http, "one that is resolved", |it| statuses(it) == ["firing", "resolved"]);
    assert_eq!(mixed["groupKey"], firing["groupKey"]);
    assert_eq!(hosts(&server.alerts()), ["a"]);

    server.post_alerts(&json!([alert("a", Some(END))]));
    payload(&http, "all resolved", |it| it["status"] == "resolved" && statuses(it) == ["resolved"]);
    assert!(server.alerts().is_empty(), "{:#?}", server.alerts());
    let none_left = || match server.groups() {
        groups if groups.is_empty() => Ok(()),
        groups => Err(format!("{groups:#?}")),
    };
    wait_until(PATIENCE, "a group that is gone", none_left);

    // The body as it came, in its own order of fields.
    let body = http.requests().into_iter().find(|request| request.json() == mixed).unwrap().body;
    golden::check(&recording(), &String::from_utf8(body)?, |recorded| {
        let (recorded, mixed) = (shape(&serde_json::from_str(recorded)?), shape(&mixed));
        let differences: Vec<&String> = recorded.symmetric_difference(&mixed).collect();
        if differences.is_empty() { Ok(()) } else { Err(format!("not as recorded: {differences:#?}").into()) }
    })
}

fn read_by_the_consumer() -> Result<(), Failed> {
    let consumer = WebhookConsumer::start()?;
    let server = start(&consumer.url())?;
    server.post_alerts(&json!([alert("a", None)]));
    let read = consumer.wait_for(1, PATIENCE).remove(0);
    assert_eq!(read["subject"], "[FIRING:1] CpuHigh eu (a critical)");
    assert_eq!(read["message"]["alerts"][0]["annotations"]["summary"], "CPU of a is high");
    assert_eq!(read["message"]["alerts"][0]["startsAt"], START);

    // What Alertmanager sent long ago is read in the same way, field by field.
    let recorded: Value = serde_json::from_str(&fs::read_to_string(recording())?)?;
    let refused = [
        (json!({ "version": "4", "alerts": [] }), "a message without alerts"),
        (json!({ "version": "3", "alerts": [{}] }), "not version 4: version=`3`"),
        (json!({ "version": "4", "alerts": [{ "startsAt": "noon" }] }), "cannot parse"),
        (json!({ "version": "4", "alerts": [{ "labels": { "host": 1 } }] }), "cannot unmarshal number"),
        (json!({ "version": 4, "alerts": [{}] }), "cannot unmarshal number"),
    ];
    assert_eq!(post(&consumer, &recorded), 200);
    let read = consumer.received().pop().unwrap();
    assert_eq!((&read["message"], &read["idempotencyKey"]), (&recorded, &json!("by-hand")));
    for (body, why) in refused {
        assert_eq!(post(&consumer, &body), 400, "{body}");
        let read = consumer.received().pop().unwrap();
        assert!(read["error"].as_str().is_some_and(|error| error.contains(why)), "{body}: {read}");
    }
    Ok(())
}

/// With a webhook, and no patience.
fn start(url: &str) -> Result<Alertmanager, Unavailable> {
    Alertmanager::start(&format!(
        "
route:
  receiver: hook
  group_by: [alertname, region]
  group_wait: 0s
  group_interval: 1s
  repeat_interval: 1h
receivers:
- name: hook
  webhook_configs:
  - url: {url}
    send_resolved: true
"
    ))
}

fn alert(host: &str, end: Option<&str>) -> Value {
    let mut alert = json!({
        "labels": { "alertname": "CpuHigh", "region": "eu", "host": host, "severity": "critical" },
        "annotations": { "summary": format!("CPU of {host} is high") },
        "generatorURL": "http://tidemark.example/rules/CpuHigh",
        "startsAt": START,
    });
    if let Some(end) = end {
        alert["endsAt"] = json!(end);
    }
    alert
}

/// Waits for a webhook of this kind.
fn payload(http: &Http, what: &str, is_meant: impl Fn(&Value) -> bool) -> Value {
    wait_until(PATIENCE, what, || {
        let requests = http.requests();
        assert!(requests.iter().all(|it| matches!(it.answered, Answered::Nothing | Answered::Status(200))));
        let bodies: Vec<Value> = requests.iter().map(Request::json).collect();
        bodies.iter().find(|body| is_meant(body)).cloned().ok_or_else(|| format!("{bodies:#?}"))
    })
}

fn statuses(body: &Value) -> Vec<&str> {
    body["alerts"].as_array().unwrap().iter().map(|alert| alert["status"].as_str().unwrap()).collect()
}

fn hosts(alerts: &[Value]) -> Vec<&str> {
    let mut hosts: Vec<&str> = alerts.iter().map(|alert| alert["labels"]["host"].as_str().unwrap()).collect();
    hosts.sort_unstable();
    hosts
}

fn post(consumer: &WebhookConsumer, body: &Value) -> u16 {
    let request = reqwest::Client::new().post(consumer.url()).header("idempotency-key", "by-hand").json(body);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(request.send()).unwrap().status().as_u16()
}
