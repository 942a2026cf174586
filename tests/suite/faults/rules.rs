//! Rules: what was announced before a snapshot, and edits while results wait for their store.

use libtest_mimic::Trial;
use serde_json::Value;
use tidemark_tests::influx::Influx;
use tidemark_tests::kafka::Message;
use tidemark_tests::tidemark::Tidemark;
use tidemark_tests::wait::wait_until;

use crate::real::{Deployment, PATIENCE, Servers};

const SQL: &str = "CREATE MATERIALIZED VIEW cpu WITH (allowed_lateness = '0 seconds') AS
SELECT tumble(time, INTERVAL '10 seconds') AS window_start, labels['host'] AS host, max(value) AS max FROM points GROUP BY 1, 2";

pub(crate) fn trials() -> Vec<Trial> {
    vec![crate::real::trial(
        "faults::rules::an_alert_whose_rule_is_edited_while_influxdb_is_away_ends",
        edited_during_an_outage,
    )]
}

/// Status and host of what the topic of alerts has.
fn announced(servers: &Servers, topic: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let messages = servers.kafka.consume_all(topic);
    let read = messages.iter().map(|message| serde_json::from_slice::<Value>(&message.payload).unwrap());
    read.map(|said| (text(&said["status"]), text(&said["labels"]["host"]))).collect()
}

/// The threshold is raised, as people do, while nothing of what has fired is in a snapshot; the
/// rule of the other alert stays. Then the process is killed, so all of it is replayed by rules
/// under which one of the alerts never fired.
fn edited_during_an_outage(servers: &Servers) {
    let influx = Influx::start().expect("the shared one could be started");
    let topic = servers.kafka.unique_topic("edited", 1);
    let deployment = Deployment::new(servers, "edited", &topic, 1)
        .with_rules("alerts.toml")
        .with_influx(servers, &influx.url());
    let mut tidemark = deployment.process("data", &[("cpu", SQL)]);
    let rules = |limit: u32| {
        format!(
            "[[rule]]\nname = \"high\"\nrollup = \"cpu\"\ncondition = \"max > {limit}\"\n\n\
             [[rule]]\nname = \"any\"\nrollup = \"cpu\"\ncondition = \"max > 1 AND host = 'b'\"\n"
        )
    };
    tidemark.write("alerts.toml", &rules(90));
    tidemark.call(&["topics", "create"]);
    tidemark.spawn(&["run", "--roles", "ingest,rollup"], &[]);
    tidemark.wait_until_ready();
    influx.kill9();
    let point = |host: &str, second: i64, value: i64| {
        let ts = 1_767_225_600 + second;
        Message::new(0, format!(r#"{{"name":"cpu","labels":{{"host":"{host}"}},"ts":{ts},"value":{value}}}"#))
    };
    servers
        .kafka
        .produce(&topic, [point("a", 0, 95), point("b", 1, 50), point("a", 30, 95), point("b", 31, 50)]);
    let alerts = format!("{}-alerts", deployment.id);
    let of = |status: &str, host: &str| (status.to_owned(), host.to_owned());
    let wait_for = |tidemark: &mut Tidemark, what: &str, expected: &[(String, String)]| {
        tidemark.wait_until(PATIENCE, what, || {
            let mut found = announced(servers, &alerts);
            found.sort();
            found.dedup();
            if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
        });
    };
    wait_for(&mut tidemark, "both to fire", &[of("firing", "a"), of("firing", "b")]);
    tidemark.write("alerts.toml", &rules(99));
    let log = tidemark.directory().join("tidemark.log");
    wait_until(PATIENCE, "the edit to be seen", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        if text.contains("alerts changed") { Ok(()) } else { Err(text) }
    });
    tidemark.kill9();
    influx.restart();
    tidemark.spawn(&["run", "--roles", "ingest,rollup"], &[]);
    wait_for(&mut tidemark, "one to end", &[of("firing", "a"), of("firing", "b"), of("resolved", "a")]);
    servers.kafka.produce(&topic, [point("a", 60, 95), point("b", 61, 0), point("b", 90, 0)]);
    let all = [of("firing", "a"), of("firing", "b"), of("resolved", "a"), of("resolved", "b")];
    wait_for(&mut tidemark, "the other to end by its own rule", &all);
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());
}
