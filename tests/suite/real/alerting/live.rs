//! A site that changes while its alerts fire: `ingest` is gone, and the rules are edited.

use libtest_mimic::Trial;
use tidemark_tests::http::{Http, Request};
use tidemark_tests::tidemark::Tidemark;
use tidemark_tests::wait_until;

use super::super::{PATIENCE, Servers};
use super::feed::{Feed, LOAD, deployment};
use super::routes::alerts;
use super::{Check, shared_trials};

const RULES: &str = r#"
[behind]
after = "10s"
receivers = ["hook"]

[[rule]]
name = "High"
rollup = "load"
condition = "avg > 90"
# If no data were taken for missing data, this one would be resolved.
missing_data = "ok"
receivers = ["hook"]

[[receiver]]
name = "hook"
[receiver.webhook]
allow_private = true
"#;

const SECOND_RULE: &str = r#"
[[rule]]
name = "Warm"
rollup = "load"
condition = "avg > 40"
receivers = ["hook"]
"#;

const BAD_RULE: &str = r#"
[[rule]]
name = "Bad"
rollup = "load"
condition = "agv > 10"
receivers = ["hook"]
"#;

/// What there was at each point of the story, and the log of the process with the rules.
struct Story {
    /// Posts at the end of each chapter.
    incomplete: Vec<String>,
    complete: Vec<String>,
    edited: Vec<String>,
    refused: Vec<String>,
    log: String,
}

pub(super) fn trials() -> Vec<Trial> {
    let checks: [Check<Story>; 2] = [
        ("while_data_are_incomplete_nothing_is_resolved_and_people_are_told_once_that_they_are", behind),
        ("a_valid_edit_of_the_rules_takes_effect_and_an_invalid_one_is_refused", edits),
    ];
    shared_trials(tell, checks)
}

/// `Down firing a` of each alert of the posts, in their order.
fn lines(posts: &[Request]) -> Vec<String> {
    let of = |(rule, status, host): (String, String, String)| format!("{rule} {status} {host}");
    posts.iter().flat_map(alerts).map(of).collect()
}

fn tell(servers: &Servers) -> Story {
    let topic = servers.kafka.unique_topic("live", 1);
    let deployment = deployment(servers, "live", &topic, 2);
    let http = Http::start();
    let alerts_file = |rules: &[&str]| format!("{RULES}url = \"{}\"\n{}", http.url(), rules.concat());
    let mut rollup = deployment.process("data", &[("load", LOAD)]);
    let storage = rollup.directory().join("data");
    let mut ingest: Tidemark = deployment.process(storage.to_str().unwrap(), &[("load", LOAD)]);
    for process in [&rollup, &ingest] {
        process.write("alerts.toml", &alerts_file(&[]));
    }
    rollup.call(&["topics", "create"]);
    rollup.run("rollup,notify");
    ingest.run("ingest");
    let wait_for = |line: &str| -> Vec<String> {
        wait_until(PATIENCE, line, || {
            let lines = lines(&http.requests());
            if lines.iter().any(|seen| seen == line) { Ok(lines) } else { Err(format!("{lines:#?}")) }
        })
    };
    let window = |number: i64, load: f64| Feed::default().load(number, "live", "a", load).close(number);

    window(1, 95.0).send(servers, &topic);
    wait_for("High firing a");
    ingest.kill9();
    wait_for("TidemarkBehind firing ");
    // Nobody reads it yet.
    window(2, 95.0).send(servers, &topic);
    let incomplete = lines(&http.requests());
    ingest.run("ingest");
    let complete = wait_for("TidemarkBehind resolved ");

    rollup.write("alerts.toml", &alerts_file(&[SECOND_RULE]));
    wait_until(PATIENCE, "the edit to be seen", || {
        if rollup.log_text().contains("alerts changed") { Ok(()) } else { Err(rollup.log_text()) }
    });
    window(3, 95.0).send(servers, &topic);
    let edited = wait_for("Warm firing a");
    rollup.write("alerts.toml", &alerts_file(&[BAD_RULE]));
    wait_until(PATIENCE, "the mistake to be seen", || {
        if rollup.log_text().contains("alerts not changed") { Ok(()) } else { Err(rollup.log_text()) }
    });
    // By the old rules the one is over, and the other is not.
    window(4, 50.0).send(servers, &topic);
    let refused = wait_for("High resolved a");
    for process in [&mut ingest, &mut rollup] {
        assert!(process.terminate().success(), "{}", process.log_text());
    }
    Story { incomplete, complete, edited, refused, log: rollup.log_text() }
}

/// Without what is said of the pipeline: while the story waits, event time stands still again.
fn of_rules(lines: &[String]) -> Vec<&str> {
    lines.iter().map(String::as_str).filter(|line| !line.starts_with("TidemarkBehind")).collect()
}

fn behind(story: &Story) {
    assert_eq!(story.incomplete, ["High firing a", "TidemarkBehind firing "]);
    assert_eq!(story.complete, ["High firing a", "TidemarkBehind firing ", "TidemarkBehind resolved "]);
    // It ends by its data, once, and by nothing else.
    assert_eq!(of_rules(&story.refused).iter().filter(|line| **line == "High resolved a").count(), 1);
    assert_eq!(of_rules(&story.edited).first(), Some(&"High firing a"));
}

fn edits(story: &Story) {
    assert_eq!(of_rules(&story.edited), ["High firing a", "Warm firing a"]);
    assert_eq!(of_rules(&story.refused), ["High firing a", "Warm firing a", "High resolved a"]);
    let refusal = story.log.lines().find(|line| line.contains("alerts not changed")).unwrap();
    assert!(
        refusal.contains("those before stay in use") && refusal.contains("did you mean `avg`?"),
        "{refusal}"
    );
}
