//! What people do about alerts: look, ask, silence, acknowledge.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;

use serde_json::Value;
use tidemark_tests::duckdb::DuckDb;
use tidemark_tests::http::Http;
use tidemark_tests::tidemark::Tidemark;

use super::{Body, Deployment, PATIENCE, Servers};

const CPU: &str = "CREATE MATERIALIZED VIEW cpu AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start, labels['host'] AS host, avg(value) AS avg
FROM points WHERE name = 'cpu' GROUP BY 1, 2";

pub(super) fn trials() -> Vec<(&'static str, Body)> {
    vec![
        ("people_see_silence_and_acknowledge_alerts_and_are_told_why", people),
        ("an_acknowledged_alert_is_not_repeated_and_parquet_has_the_ledger_once", repeats),
    ]
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
    ask_until(&mut tidemark, "b", "`hook` was notified at");
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
    ask_until(&mut tidemark, "a", "`hook` was notified at");

    let shown = tidemark.call(&["alerts", "show", &incident[..13]]);
    assert!(shown.contains("received") && shown.contains("delivered hook"), "{shown}");
    let log = tidemark.call(&["alerts", "log", "--rule", "cpu_high"]);
    assert!(log.contains("silenced") && log.contains("delivered"), "{log}");
    let page: Value = serde_json::from_str(&tidemark.page("/api/alerts").expect("an answer")).expect("JSON");
    assert_eq!(page["alerts"].as_array().map(Vec::len), Some(2), "{page}");
    let answer = tidemark.page("/api/alerts/why?rule=cpu_high&host=a").expect("an answer");
    assert!(answer.contains("`hook` was notified at"), "{answer}");
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());
}

/// Alerts that are repeated every other second, through a restart and a kill.
fn repeats(servers: &Servers) {
    let http = Http::start();
    let topic = servers.kafka.unique_topic("repeats", 2);
    let deployment =
        Deployment::new(servers, "repeats", &topic, 2).without_influx().with_rules("alerts.toml");
    let mut tidemark = deployment.process("data", &[("cpu", CPU)]);
    tidemark.write("alerts.toml", &format!("repeat_interval = \"2s\"\n{}", rules(&http.url())));
    tidemark.write("points.jsonl", &points());
    tidemark.call(&["topics", "create"]);
    tidemark.call(&["load", "points.jsonl", "--topic", &topic, "--close"]);
    tidemark.run("ingest,rollup,notify");
    let posts_of = |host: &str| {
        let posts = http.requests();
        posts.iter().filter(|post| post.json()["alerts"][0]["labels"]["host"] == host).count()
    };
    let wait_for = |tidemark: &mut Tidemark, host: &str, count: usize| {
        tidemark.wait_until(PATIENCE, &format!("{count} posts of {host}"), || match posts_of(host) {
            posts if posts >= count => Ok(()),
            posts => Err(format!("{posts} posts")),
        });
    };
    wait_for(&mut tidemark, "b", 2);
    let of_b = |post: &tidemark_tests::http::Request| post.json()["alerts"][0]["labels"]["host"] == "b";
    let post = http.requests().into_iter().find(of_b).expect("it was notified");
    let incident = post.json()["alerts"][0]["incident"].as_str().expect("an incident").to_owned();
    tidemark.call(&["alerts", "ack", &incident, "--by", "grace"]);
    ask_until(&mut tidemark, "b", "grace has acknowledged it");
    let (before, others) = (posts_of("b"), posts_of("a"));
    wait_for(&mut tidemark, "a", others + 3);
    assert_eq!(posts_of("b"), before, "it was acknowledged");

    // The ledger as it grows; the one who reads it ends by being killed.
    let known = tidemark.call(&["alerts", "log", "--json"]).lines().count();
    let mut following = tidemark.command();
    following.args(["alerts", "log", "--follow", "--json"]).stdout(Stdio::piped());
    let mut following = following.spawn().expect("the program starts");
    let lines = BufReader::new(following.stdout.take().expect("it is piped")).lines();
    let lines: Vec<Value> = lines
        .take(known + 2)
        .map(|line| serde_json::from_str(&line.expect("a line")).expect("JSON"))
        .collect();
    following.kill().expect("it runs");
    following.wait().expect("it ends");
    let time =
        chrono::DateTime::parse_from_rfc3339(lines[known]["at"].as_str().expect("a time")).expect("a time");
    let since = tidemark.call(&["alerts", "log", "--json", "--since", &time.to_rfc3339()]);
    let newer: Vec<Value> = since.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let at = |line: &Value| {
        chrono::DateTime::parse_from_rfc3339(line["at"].as_str().expect("a time")).expect("a time")
    };
    let not_older = |line: &&Value| at(line) >= time;
    let expected: Vec<&Value> = lines.iter().filter(not_older).collect();
    assert!(newer.iter().take(expected.len()).eq(expected), "{newer:#?}\n{lines:#?}");

    by_http(&tidemark);
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());
    tidemark.run("ingest,rollup,notify");
    wait_for(&mut tidemark, "a", posts_of("a") + 2);
    tidemark.kill9();
    tidemark.run("ingest,rollup,notify");
    wait_for(&mut tidemark, "a", posts_of("a") + 2);
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());
    check_parquet(servers, &deployment, &tidemark);
}

/// A silence over HTTP, which a page of another site cannot make.
fn by_http(tidemark: &Tidemark) {
    let silence = r#"{"matchers":["host=\"z\""],"for":"1h","by":"ada","comment":"disks"}"#;
    let evil = ["Origin: https://evil.example", "Content-Type: application/json"];
    assert!(request(tidemark, "POST", "/api/silences", &evil, silence).starts_with("HTTP/1.1 403"));
    let text = ["Content-Type: text/plain"];
    assert!(request(tidemark, "POST", "/api/silences", &text, silence).starts_with("HTTP/1.1 415"));
    let json = ["Content-Type: application/json"];
    let answer = request(tidemark, "POST", "/api/silences", &json, silence);
    let body = answer.split("\r\n\r\n").nth(1).expect("a body");
    let made: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    let id = made["id"].as_str().expect("an id");
    let known: Value =
        serde_json::from_str(&tidemark.page("/api/silences").expect("an answer")).expect("JSON");
    assert_eq!((&known[0]["id"], &known[0]["state"]), (&made["id"], &Value::from("active")), "{known}");
    let path = format!("/api/silences/{}", &id[..8]);
    assert!(request(tidemark, "DELETE", &path, &evil, "").starts_with("HTTP/1.1 403"));
    assert!(request(tidemark, "DELETE", &path, &[], "").starts_with("HTTP/1.1 200"));
    assert_eq!(tidemark.page("/api/silences").expect("an answer"), "[]");
    assert!(request(tidemark, "DELETE", &path, &[], "").starts_with("HTTP/1.1 404"));
}

/// The whole answer.
fn request(tidemark: &Tidemark, method: &str, path: &str, headers: &[&str], body: &str) -> String {
    let address = tidemark.url().replace("http://", "");
    let mut stream = TcpStream::connect(&address).expect("it listens");
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}");
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

/// Every entry of the topic is in one file, and nothing else is.
fn check_parquet(servers: &Servers, deployment: &Deployment, tidemark: &Tidemark) {
    let line = |entry: &Value| {
        let names = ["at", "transition", "dispatch", "rule", "incident", "what", "receiver", "by", "reason"];
        names
            .map(|name| entry[name].as_str().map_or_else(|| entry[name].to_string(), str::to_owned))
            .join("|")
    };
    let messages = servers.kafka.consume_all(&format!("{}-alerts-log", deployment.id));
    let entries =
        messages.iter().map(|message| serde_json::from_slice::<Value>(&message.payload).expect("JSON"));
    let mut expected: Vec<String> = entries.map(|entry| line(&entry)).collect();
    let duckdb = DuckDb::find().expect("the other servers are there");
    let files = tidemark.directory().join("data/alerts/*/*.parquet");
    let sql = format!(
        "SELECT * REPLACE (epoch_ns(\"at\") AS \"at\", json_extract_string(labels, '$.host') AS labels) FROM \
         read_parquet('{}')",
        files.display()
    );
    let rows = duckdb.query(&sql);
    assert!(rows.iter().any(|row| row["labels"] == "b" && row["what"] == "acknowledged"), "{rows:#?}");
    let mut found: Vec<String> = rows.iter().map(line).collect();
    expected.sort();
    found.sort();
    assert!(expected.len() > 10);
    assert_eq!(found, expected);
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
