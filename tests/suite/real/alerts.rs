//! From a closed window to a mail and a webhook, and the same again.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use tidemark_tests::http::Http;
use tidemark_tests::smtp::{Security, Smtp};

use super::{Body, Deployment, PATIENCE, Servers};

const CPU: &str = "CREATE MATERIALIZED VIEW nab_cpu WITH (allowed_lateness = '3 hours') AS
SELECT tumble(time, INTERVAL '1 hour') AS window_start, labels['instance'] AS instance, avg(value) AS avg
FROM points WHERE name = 'ec2_cpu_utilization' GROUP BY 1, 2";

pub(super) fn trials() -> Vec<(&'static str, Body)> {
    vec![("a_cpu_rule_sends_one_mail_and_one_webhook_each_and_replays_give_the_same_ids", one_of_each)]
}

fn one_of_each(servers: &Servers) {
    let smtp = Smtp::start(Security::StartTls);
    let http = Http::start();
    let rules = format!(
        r#"
[[rule]]
name = "CpuHigh"
rollup = "nab_cpu"
condition = "avg > 70"
recovery = "avg < 60"
severity = "critical"
summary = "CPU of {{{{ labels.instance }}}} is {{{{ values.avg | round(1) }}}} %"
description = "Hourly average."
receivers = ["mail", "hook"]

[[receiver]]
name = "mail"
[receiver.email]
host = "127.0.0.1"
port = {port}
tls = "starttls"
from = "tidemark@example.org"
to = ["oncall@example.org"]
ca_file = "{ca}"

[[receiver]]
name = "hook"
[receiver.webhook]
url = "{url}"
# The receiver is on this machine.
allow_private = true
"#,
        port = smtp.port(),
        ca = smtp.ca_pem().display(),
        url = http.url(),
    );
    let topic = servers.kafka.unique_topic("alerts", 4);
    let first = Deployment::new(servers, "alerts-first", &topic, 4);
    let first = first.with_rules("alerts.toml");
    let mut tidemark = first.process("data", &[("nab_cpu", CPU)]);
    tidemark.write("alerts.toml", &rules);
    tidemark.call(&["topics", "create"]);
    // In order, so that which windows a rule sees first does not depend on the disorder.
    let files = tidemark_tests::nab::files().unwrap();
    let mut load = vec!["load"];
    load.extend(files.iter().map(|file| file.to_str().unwrap()));
    load.extend(["--topic", &topic, "--file-pattern", "(?<name>.+)_(?<instance>[^_]+)"]);
    load.extend(["--time-column", "timestamp", "--value-column", "value", "--close"]);
    tidemark.call(&load);
    tidemark.run("ingest,rollup,notify");

    let mails = smtp.wait_for(2, PATIENCE);
    let posts = http.wait_for(2, PATIENCE);
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());
    assert_eq!((mails.len(), posts.len()), (2, 2));
    let subjects: Vec<&str> = mails.iter().map(|delivery| delivery.mail.header("Subject")).collect();
    assert!(
        subjects[0].contains("CPU of 77c1ca is") && subjects[1].to_lowercase().contains("resolved"),
        "{subjects:?}"
    );
    let states: Vec<String> = posts.iter().map(|post| text(&post.json()["status"])).collect();
    assert_eq!(states, ["firing", "resolved"]);
    assert_eq!(text(&posts[0].json()["version"]), "4");

    // The same process again, from its committed offsets: nothing is sent twice.
    tidemark.run("ingest,rollup,notify");
    tidemark.wait_for_metric(PATIENCE, "tidemark_ingest_epochs_total", &[], 5.0);
    assert!(tidemark.terminate().success());

    // A deployment of its own over the same points: the same transitions, with the same ids.
    let second = Deployment::new(servers, "alerts-second", &topic, 2).with_rules("alerts.toml");
    let mut replay = second.process("data", &[("nab_cpu", CPU)]);
    replay.write("alerts.toml", &rules);
    replay.call(&["topics", "create"]);
    replay.run("ingest,rollup");
    let alerts_of = |deployment: &Deployment| -> BTreeSet<String> {
        let messages = servers.kafka.consume_all(&format!("{}-alerts", deployment.id));
        let id = |payload: &[u8]| text(&serde_json::from_slice::<Value>(payload).unwrap()["id"]);
        messages.iter().map(|message| id(&message.payload)).collect()
    };
    replay.wait_until(PATIENCE, "two transitions", || match alerts_of(&second).len() {
        2 => Ok(()),
        other => Err(format!("{other} transitions")),
    });
    assert!(replay.terminate().success());
    assert_eq!(alerts_of(&first), alerts_of(&second));
    assert_eq!((smtp.deliveries().len(), http.requests().len()), (2, 2), "a restart sends nothing again");
    let keys: BTreeSet<String> = http
        .wait_for(2, Duration::from_secs(1))
        .iter()
        .map(|post| post.headers["idempotency-key"].clone())
        .collect();
    assert_eq!(keys.len(), 2);
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
