//! `tidemark backtest` tells of archived points what the pipeline told while they came.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;
use tidemark_tests::http::Http;
use tidemark_tests::nab;
use tidemark_tests::tidemark::Tidemark;
use tidemark_tests::wait_until;

use super::{Body, Deployment, PATIENCE, Servers};

/// The rollups that the example rules look at, over the recordings: a value every five minutes, so
/// windows as long.
const ROLLUPS: [(&str, &str); 2] = [
    (
        "cpu_by_host",
        "CREATE MATERIALIZED VIEW cpu_by_host WITH (allowed_lateness = '10 minutes') AS
SELECT tumble(time, INTERVAL '5 minutes') AS window_start, labels['instance'] AS host, avg(value) AS avg,
       max(value) AS max, count(*) AS points
FROM points WHERE name LIKE '%_cpu_utilization' GROUP BY 1, 2",
    ),
    // The recordings have no memory: that of the same machines follows their CPU.
    (
        "memory_by_host",
        "CREATE MATERIALIZED VIEW memory_by_host WITH (allowed_lateness = '10 minutes') AS
SELECT tumble(time, INTERVAL '5 minutes') AS window_start, labels['instance'] AS host,
       max(value) AS used_percent, 100 - max(value) AS available
FROM points WHERE name LIKE '%_cpu_utilization' GROUP BY 1, 2",
    ),
];

/// Of the first recording's first point to the end of the last one's last window.
const RANGE: [&str; 4] = ["--from", "2014-02-14", "--to", "2014-04-16T14:25"];

pub(super) fn trials() -> Vec<(&'static str, Body)> {
    vec![("a_backtest_tells_of_archived_points_what_the_pipeline_told", same_as_live)]
}

fn same_as_live(servers: &Servers) {
    let (hook, pager) = (Http::start(), Http::start());
    let topic = servers.kafka.unique_topic("backtest", 4);
    let deployment = Deployment::new(servers, "backtest", &topic, 3)
        .without_influx()
        .with("[archive]\nroll_age = \"1s\"\n")
        .with_rules("alerts.toml");
    let mut tidemark = deployment.process("data", &ROLLUPS);
    tidemark.write("alerts.toml", &rules(&hook.url(), &pager.url()));
    tidemark.call(&["topics", "create"]);
    tidemark.run("ingest,rollup,notify");
    let mut files = nab::files().unwrap();
    files.retain(|file| file.to_string_lossy().contains("_cpu_utilization_"));
    let mut load = vec!["load"];
    load.extend(files.iter().map(|file| file.to_str().unwrap()));
    load.extend(["--topic", &topic, "--file-pattern", "(?<name>.+)_(?<instance>[^_]+)"]);
    load.extend(["--time-column", "timestamp", "--value-column", "value", "--close"]);
    tidemark.call(&load);
    let total =
        nab::points().unwrap().iter().filter(|point| point.series.name.ends_with("_cpu_utilization")).count();
    wait_until(PATIENCE, "all points in the archive", || {
        // Before the first file there is no table to ask.
        let output =
            tidemark.command().args(["query", "SELECT count(*) AS points FROM points"]).output().unwrap();
        let archived = String::from_utf8_lossy(&output.stdout).into_owned();
        match archived.contains(&format!("| {total} ")) {
            true => Ok(()),
            false => Err(format!("{archived} of {total}")),
        }
    });

    let report = backtest(&tidemark, &[], 0);
    let expected = of_backtest(&report);
    let rules: BTreeSet<&str> = expected.values().flatten().map(|alert| alert.rule.as_str()).collect();
    assert_eq!(rules.len(), 6, "every example rule has something to tell: {rules:?}");
    let differences = || {
        let told = of_receivers(&hook, &pager);
        let differs = |id: &&Id| match (told.get(*id), expected.get(*id)) {
            (Some(Some(told)), Some(Some(expected))) => told != expected,
            (Some(_), Some(_)) => false,
            _ => true,
        };
        let all: BTreeSet<&Id> = told.keys().chain(expected.keys()).collect();
        let line = |id: &Id| format!("{id:?}: {:?}, not {:?}", told.get(id), expected.get(id));
        all.into_iter().filter(differs).map(line).collect::<Vec<_>>()
    };
    wait_until(PATIENCE, "the same to be notified", || match differences() {
        none if none.is_empty() => Ok(()),
        some => Err(format!("{} differ, of {}: {:#?}", some.len(), expected.len(), &some[..1])),
    });
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());
    assert_eq!(differences(), [""; 0]);
    let whole = of_receivers(&hook, &pager).values().flatten().count();
    assert!(whole > expected.len() / 2, "{whole} of {} are notified as they are", expected.len());

    // Other rules: a difference, and one that the exit status tells.
    let text = std::fs::read_to_string(tidemark.directory().join("alerts.toml")).unwrap();
    tidemark.write("other.toml", &text.replace("condition = \"avg > 90\"", "condition = \"avg > 95\""));
    let against = backtest(&tidemark, &["--against", "other.toml"], 1);
    assert_eq!(against["equal"], false, "{against}");
    let differences = against["differences"]["only_in_rules"].as_array().unwrap();
    assert!(differences.iter().any(|line| line["rule"] == "cpu_high"), "{differences:#?}");
    assert!(differences.iter().all(|line| line["rule"] != "cpu_peak"), "{differences:#?}");
    backtest(&tidemark, &["--against", "alerts.toml"], 0);
    backtest(&tidemark, &["--against", "missing.toml"], 2);
}

/// The example rules, with receivers that are notified of each alert once.
fn rules(hook: &str, pager: &str) -> String {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/alerts.toml");
    let example = std::fs::read_to_string(example).unwrap();
    let rules = example
        .replacen("receivers = []", "receivers = [\"hook\", \"pager\"]", 1)
        .replace("receivers = []", "receivers = [\"hook\"]")
        .replace("# repeat_interval = \"4h\"\n\n[[rule]]", "repeat_interval = \"0s\"\n\n[[rule]]");
    assert!(rules.contains("\nrepeat_interval = \"0s\"\n"), "the example shows the interval");
    let receiver = |name: &str, url: &str| {
        format!(
            "\n[[receiver]]\nname = \"{name}\"\n[receiver.webhook]\nurl = \"{url}\"\nallow_private = true\n"
        )
    };
    rules + &receiver("hook", hook) + &receiver("pager", pager)
}

/// A receiver, and a transition that it is notified.
type Id = (String, String);

/// Its notification of each. None where it is notified of a later one of the same incident with
/// it: months in seconds are more than one alert's notifications can follow, and what waits long
/// becomes one.
type Notified = BTreeMap<Id, Option<Alert>>;

#[derive(Debug, PartialEq, Eq)]
struct Alert {
    rule: String,
    labels: BTreeMap<String, String>,
    status: String,
    starts_at: String,
    ends_at: Option<String>,
}

fn backtest(tidemark: &Tidemark, options: &[&str], status: i32) -> Value {
    let output = tidemark.command().args(["backtest", "--json"]).args(RANGE).args(options).output().unwrap();
    assert_eq!(output.status.code(), Some(status), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn of_backtest(report: &Value) -> Notified {
    let mut all = Notified::new();
    for told in report["notifications"].as_array().unwrap() {
        for alert in told["alerts"].as_array().unwrap() {
            let mut labels = labels(&alert["labels"]);
            labels.insert("alertname".to_owned(), text(&alert["rule"]));
            labels.insert("severity".to_owned(), text(&alert["severity"]));
            let ends_at = alert["ends_at"].as_str().map(str::to_owned);
            add(&mut all, &text(&told["receiver"]), alert, &alert["starts_at"], ends_at, labels);
        }
    }
    all
}

/// Each notification once, however often it was sent.
fn of_receivers(hook: &Http, pager: &Http) -> Notified {
    let mut all = Notified::new();
    for (receiver, http) in [("hook", hook), ("pager", pager)] {
        for requests in http.by_key("idempotency-key").values() {
            for alert in requests[0].json()["alerts"].as_array().unwrap() {
                // The year that Alertmanager's webhooks have for none.
                let ends_at = Some(text(&alert["endsAt"])).filter(|time| !time.starts_with("0001-"));
                add(&mut all, receiver, alert, &alert["startsAt"], ends_at, labels(&alert["labels"]));
            }
        }
    }
    all
}

fn add(
    all: &mut Notified,
    receiver: &str,
    told: &Value,
    starts_at: &Value,
    ends_at: Option<String>,
    labels: BTreeMap<String, String>,
) {
    let alert = Alert {
        rule: labels["alertname"].clone(),
        labels,
        status: text(&told["status"]),
        starts_at: text(starts_at),
        ends_at,
    };
    let mut alert = Some(alert);
    // The last one made it what it is.
    for id in told["transitions"].as_array().unwrap().iter().rev().map(text) {
        let before = all.insert((receiver.to_owned(), id.clone()), alert.take());
        assert!(before.is_none(), "{receiver} is notified twice of {id}");
    }
}

fn labels(value: &Value) -> BTreeMap<String, String> {
    value.as_object().unwrap().iter().map(|(name, value)| (name.clone(), text(value))).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
