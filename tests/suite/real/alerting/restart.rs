//! kill -9 at the moments at which others lose what they knew.

use std::collections::BTreeSet;

use alerts::Status;
use alerts::dispatch::What;
use libtest_mimic::Trial;
use serde_json::Value;
use tidemark_tests::http::Http;
use tidemark_tests::kafka::Kafka;
use tidemark_tests::tidemark::Tidemark;
use tidemark_tests::wait_until;

use super::super::{PATIENCE, Servers, trial};
use super::feed::{Feed, LOAD, deployment};
use super::ledger::Ledger;

const ROLES: &str = "ingest,rollup,notify";

const RULES: &str = r#"
[[rule]]
name = "Held"
rollup = "load"
condition = "avg > 90"
for = "30s"
receivers = ["hook"]

[[rule]]
name = "Kept"
rollup = "load"
condition = "avg > 90"
keep_firing_for = "30s"
receivers = ["hook"]

[[receiver]]
name = "hook"
[receiver.webhook]
allow_private = true
"#;

/// Pending in the second window; firing in the fifth; well again in the sixth, and no longer kept
/// in the ninth.
const LOADS: [f64; 10] = [50.0, 95.0, 95.0, 95.0, 95.0, 50.0, 50.0, 50.0, 50.0, 50.0];

pub(super) fn trials() -> Vec<Trial> {
    let name = "kill_9_while_pending_and_while_kept_firing_tells_what_no_restart_tells";
    vec![trial(&format!("real::alerting::{name}"), kills)]
}

/// One of two deployments over the same points.
struct Site {
    id: String,
    kafka: &'static Kafka,
    ledger: Ledger,
    http: Http,
    tidemark: Tidemark,
}

impl Site {
    fn start(servers: &Servers, id: &str, topic: &str, checkpoint_interval: &str) -> Self {
        let mut deployment = deployment(servers, id, topic, 2);
        let interval = format!("checkpoint_interval = \"{checkpoint_interval}\"");
        deployment.config = deployment.config.replace("checkpoint_interval = \"1s\"", &interval);
        let http = Http::start();
        let mut tidemark = deployment.process("data", &[("load", LOAD)]);
        tidemark.write("alerts.toml", &format!("{RULES}url = \"{}\"\n", http.url()));
        tidemark.call(&["topics", "create"]);
        tidemark.run(ROLES);
        let ledger = Ledger::new(servers.kafka, &deployment.id);
        Self { id: deployment.id, kafka: servers.kafka, ledger, http, tidemark }
    }

    /// Waits for a rule to have said so of its alert, and for what it has told to be in the ledger
    /// as delivered.
    fn wait_for(&self, rule: &str, status: Status, delivered: usize) {
        wait_until(PATIENCE, &format!("{rule} to be {status}, {delivered} told"), || {
            let transitions = self.ledger.transitions();
            let is_there = transitions.iter().any(|it| it.rule == rule && it.status == status);
            let entries = self.ledger.entries();
            let dispatches: BTreeSet<_> = entries
                .iter()
                .filter(|entry| entry.what == What::Delivered)
                .map(|entry| entry.dispatch.clone())
                .collect();
            let enough = is_there && dispatches.len() >= delivered;
            if enough { Ok(()) } else { Err(format!("{transitions:#?}\n{entries:#?}")) }
        });
    }

    /// Waits until `rollup` has a snapshot of all that it has read until now.
    fn wait_for_snapshot(&self) {
        let (topic, group) = (format!("{}-partials", self.id), format!("{}-rollup", self.id));
        let ends = self.kafka.end_offsets(&topic);
        wait_until(PATIENCE, "a snapshot of every partition", || {
            let committed = self.kafka.committed(&group, &topic);
            let has = |(partition, end): (&i32, &i64)| committed.get(partition).is_some_and(|at| at >= end);
            if ends.iter().all(has) { Ok(()) } else { Err(format!("{committed:?} of {ends:?}")) }
        });
    }

    /// Waits until `notify` has read all transitions there are, those that crashes made `rollup`
    /// repeat among them.
    fn wait_for_repetitions(&self) {
        let (topic, group) = (format!("{}-alerts", self.id), format!("{}-notify", self.id));
        wait_until(PATIENCE, "repeated transitions to be read", || {
            let distinct = self.ledger.transitions().len();
            let (end, read) = (self.kafka.end_offsets(&topic), self.kafka.committed(&group, &topic));
            let is_repeated = end.values().sum::<i64>() >= 2 * i64::try_from(distinct).unwrap();
            let seen = format!("{distinct} transitions, {read:?} of {end:?}");
            if is_repeated && read == end { Ok(()) } else { Err(seen) }
        });
    }

    /// What people were notified: the key, and of each alert what it is about.
    fn told(&self) -> Vec<(String, Vec<String>)> {
        let mut told: Vec<(String, Vec<String>)> = Vec::new();
        for post in self.http.requests() {
            let body = post.json();
            let alerts = body["alerts"].as_array().unwrap().iter().map(describe).collect();
            told.push((post.headers["idempotency-key"].clone(), alerts));
        }
        told.sort();
        told
    }
}

fn describe(alert: &Value) -> String {
    let (labels, transitions) = (&alert["labels"], &alert["transitions"]);
    let (rule, host, status) = (&labels["alertname"], &labels["host"], &alert["status"]);
    let (from, to) = (&alert["startsAt"], &alert["endsAt"]);
    format!("{rule} {host} {status} {from} {to} {transitions}")
}

fn feed(from: i64, to: i64) -> Feed {
    let points = (from..=to).fold(Feed::default(), |feed, window| {
        let load = LOADS[usize::try_from(window - 1).unwrap()];
        ["a", "b", "c"].iter().fold(feed, |feed, host| feed.load(window, "restart", host, load))
    });
    points.close(to)
}

fn kills(servers: &Servers) {
    let topic = servers.kafka.unique_topic("restart", 1);
    let calm = Site::start(servers, "calm", &topic, "1s");
    // The one goes on from snapshots; the other has none, and says again what it has said since its
    // start.
    let mut restored = Site::start(servers, "restored", &topic, "1s");
    let mut replayed = Site::start(servers, "replayed", &topic, "1h");
    // Up to which window, what is awaited then, and how many messages there are by then. Then comes
    // a crash.
    let steps = [
        (3, "Held", Status::Pending, 3),
        (5, "Held", Status::Firing, 6),
        (7, "Held", Status::Resolved, 9),
        (10, "Kept", Status::Resolved, 12),
    ];
    let mut from = 1;
    for (to, rule, status, told) in steps {
        feed(from, to).send(servers, &topic);
        from = to + 1;
        for site in [&calm, &restored, &replayed] {
            site.wait_for(rule, status, told);
        }
        restored.wait_for_snapshot();
        // Together: each waits for the group to notice.
        restored.tidemark.kill9();
        replayed.tidemark.kill9();
        for site in [&mut restored, &mut replayed] {
            site.tidemark.run(ROLES);
        }
    }
    replayed.wait_for_repetitions();
    let expected = calm.told();
    assert_eq!(expected.len(), 12, "{expected:#?}");
    assert_eq!(restored.told(), expected, "after restarts from snapshots");
    assert_eq!(replayed.told(), expected, "after restarts from the beginning of the log");
    for mut site in [calm, restored, replayed] {
        assert!(site.tidemark.terminate().success(), "{}", site.tidemark.log_text());
    }
}
