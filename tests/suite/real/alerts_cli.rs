//! What people do about alerts: look, ask, silence, acknowledge.

use serde_json::Value;
use tidemark_tests::http::Http;
use tidemark_tests::tidemark::Tidemark;

use super::{Body, Deployment, PATIENCE, Servers};

const CPU: &str = "CREATE MATERIALIZED VIEW cpu AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start, labels['host'] AS host, avg(value) AS avg
FROM points WHERE name = 'cpu' GROUP BY 1, 2";

pub(super) fn trials() -> Vec<(&'static str, Body)> {
    vec![("people_see_silence_and_acknowledge_alerts_and_are_told_why", people)]
}

fn people(servers: &Servers) {
    let http = Http::start();
    let topic = servers.kafka.unique_topic("people", 2);
    let deployment = Deployment::new(servers, "people", &topic, 2).without_influx().with_rules("alerts.toml");
    let mut tidemark = deployment.process("data", &[("cpu", CPU)]);
    tidemark.write("alerts.toml", &rules(&http.url()));
    tidemark.write("points.jsonl", &points());
    tidemark.call(&["topics", "create"]);
    let said = tidemark.call(&["alerts", "list"]);
    assert_eq!(said.trim(), "no alert is pending or fires");
    let silence = ["alerts", "silence", "host=\"a\"", "--for", "1h", "--comment", "new disks", "--by", "ada"];
    let said = tidemark.call(&silence);
    let id = said.split_whitespace().nth(1).expect("silence <id> holds until …").to_owned();
    tidemark.call(&["load", "points.jsonl", "--topic", &topic, "--close"]);
    tidemark.run("ingest,rollup,notify");

    let posts = http.wait_for(1, PATIENCE);
    assert_eq!(posts[0].json()["alerts"][0]["labels"]["host"], "b");
    ask_until(&mut tidemark, "a", &format!("for silence {id} of ada, new disks"));
    ask_until(&mut tidemark, "b", "`hook` was told at");
    let listed = tidemark.call(&["alerts", "list"]);
    assert!(listed.contains("firing   cpu_high{host=\"a\"}") && listed.contains("{host=\"b\"}"), "{listed}");
    assert!(tidemark.call(&["alerts", "silences"]).contains("active"));

    // Taken on by somebody; the end of the silence.
    let incident = posts[0].json()["alerts"][0]["incident"].as_str().expect("an incident").to_owned();
    tidemark.call(&["alerts", "ack", &incident[..13], "--by", "grace"]);
    ask_until(&mut tidemark, "b", "grace has acknowledged it");
    tidemark.call(&["alerts", "unsilence", &id]);
    let posts = http.wait_for(2, PATIENCE);
    assert_eq!(posts[1].json()["alerts"][0]["labels"]["host"], "a");
    ask_until(&mut tidemark, "a", "`hook` was told at");

    let shown = tidemark.call(&["alerts", "show", &incident[..13]]);
    assert!(shown.contains("received") && shown.contains("delivered hook"), "{shown}");
    let log = tidemark.call(&["alerts", "log", "--rule", "cpu_high"]);
    assert!(log.contains("silenced") && log.contains("delivered"), "{log}");
    let page: Value = serde_json::from_str(&tidemark.page("/api/alerts").expect("an answer")).expect("JSON");
    assert_eq!(page["alerts"].as_array().map(Vec::len), Some(2), "{page}");
    let answer = tidemark.page("/api/alerts/why?rule=cpu_high&host=a").expect("an answer");
    assert!(answer.contains("`hook` was told at"), "{answer}");
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());
}

/// What happens in one process is in the topics a moment later.
fn ask_until(tidemark: &mut Tidemark, host: &str, part: &str) {
    let path = format!("/api/alerts/why?rule=cpu_high&host={host}");
    let url = tidemark.url();
    tidemark.wait_until(PATIENCE, part, || match tidemark_tests::tidemark::page(&format!("{url}{path}")) {
        Ok(answer) if answer.contains(part) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let asked = tidemark.call(&["alerts", "why", "cpu_high", &format!("host={host}")]);
    assert!(asked.contains(part), "{asked}");
}

/// Two hosts above the threshold until the end, one below.
fn points() -> String {
    let mut lines = String::new();
    for minute in 0..10 {
        for (host, value) in [("a", 95), ("b", 96), ("c", 10)] {
            let time = 1_767_571_200_000_i64 + minute * 60_000;
            lines += &format!(r#"{{"name":"cpu","labels":{{"host":"{host}"}},"ts":{time},"value":{value}}}"#);
            lines.push('\n');
        }
    }
    lines
}

fn rules(hook: &str) -> String {
    format!(
        r#"
[[rule]]
name = "cpu_high"
rollup = "cpu"
condition = "avg > 90"
for = "2m"
summary = "{{{{ labels.host }}}}"
receivers = ["hook"]

[[receiver]]
name = "hook"
[receiver.webhook]
url = "{hook}"
allow_private = true
"#
    )
}
