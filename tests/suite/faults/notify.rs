//! Notifying: what people take back while nobody listens.

use libtest_mimic::Trial;
use tidemark_tests::http::Http;

use crate::real::{Deployment, PATIENCE, Servers};

const SQL: &str = "CREATE MATERIALIZED VIEW cpu AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start, labels['host'] AS host, avg(value) AS avg
FROM points WHERE name = 'cpu' GROUP BY 1, 2";

/// Both hosts fire at once.
const POINTS: &str = r#"{"name":"cpu","labels":{"host":"a"},"ts":1767225605,"value":99}
{"name":"cpu","labels":{"host":"b"},"ts":1767225605,"value":99}
"#;

pub(crate) fn trials() -> Vec<Trial> {
    vec![crate::real::trial(
        "faults::notify::a_silence_taken_back_while_no_notify_runs_holds_nothing_back",
        taken_back,
    )]
}

/// Two alerts are silenced. One silence is taken back while the process is away, the other stays.
fn taken_back(servers: &Servers) {
    let http = Http::start();
    let topic = servers.kafka.unique_topic("taken-back", 1);
    let deployment =
        Deployment::new(servers, "taken-back", &topic, 1).without_influx().with_rules("alerts.toml");
    let mut tidemark = deployment.process("data", &[("cpu", SQL)]);
    let rules = "[[rule]]\nname = \"high\"\nrollup = \"cpu\"\ncondition = \"avg > 90\"\nreceivers = [\"hook\"]\n\n\
                 [[receiver]]\nname = \"hook\"\n[receiver.webhook]\nallow_private = true\n";
    tidemark.write("alerts.toml", &format!("{rules}url = \"{}\"\n", http.url()));
    tidemark.write("points.jsonl", POINTS);
    tidemark.call(&["topics", "create"]);
    let silences = ["host=\"a\"", "host=\"b\""].map(|matcher| {
        let about = ["--for", "1h", "--comment", "disks", "--by", "ada"];
        let said = tidemark.call(&[&["alerts", "silence", matcher], &about[..]].concat());
        said.split_whitespace().nth(1).expect("silence <id> holds until …").to_owned()
    });
    tidemark.call(&["load", "points.jsonl", "--topic", &topic, "--close"]);
    tidemark.run("ingest,rollup,notify");
    let url = tidemark.url();
    let wait_for = |tidemark: &mut tidemark_tests::tidemark::Tidemark, host: &str, part: &str| {
        let asked = format!("{url}/api/alerts/why?rule=high&host={host}");
        tidemark.wait_until(PATIENCE, part, || match tidemark_tests::tidemark::page(&asked) {
            Ok(answer) if answer.contains(part) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    };
    for (host, silence) in ["a", "b"].iter().zip(&silences) {
        wait_for(&mut tidemark, host, &format!("for silence {silence}"));
    }
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());
    tidemark.call(&["alerts", "unsilence", &silences[0]]);
    tidemark.run("ingest,rollup,notify");
    http.wait_for(1, PATIENCE);
    wait_for(&mut tidemark, "a", "`hook` was notified at");
    wait_for(&mut tidemark, "b", &format!("for silence {}", silences[1]));
    let posts = http.requests();
    assert_eq!(posts.len(), 1, "{posts:?}");
    assert_eq!(posts[0].json()["alerts"][0]["labels"]["host"], "a");
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());
}
