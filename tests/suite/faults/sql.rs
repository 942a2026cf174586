//! Rollups: expressions that fail for one group.

use libtest_mimic::Trial;
use tidemark_tests::kafka::Message;

use crate::real::{Deployment, PATIENCE, Servers};

/// Of a value that stays the same the difference is a little below zero for many numbers, and its
/// root none.
const SQL: &str = "CREATE MATERIALIZED VIEW cpu WITH (allowed_lateness = '1 minute') AS
SELECT tumble(time, INTERVAL '10 seconds') AS window_start, labels['host'] AS host,
       sqrt(avg(value * value) - avg(value) * avg(value)) AS spread, count(*) AS count
FROM points GROUP BY 1, 2";

pub(crate) fn trials() -> Vec<Trial> {
    vec![crate::real::trial("faults::sql::a_group_whose_expression_fails_costs_its_field_alone", one_group)]
}

fn one_group(servers: &Servers) {
    let topic = servers.kafka.unique_topic("spread", 1);
    let deployment = Deployment::new(servers, "spread", &topic, 1).with("\n[archive]\nroll_age = \"1s\"\n");
    let mut tidemark = deployment.process("data", &[("cpu", SQL)]);
    tidemark.call(&["topics", "create"]);
    tidemark.spawn(&["run", "--roles", "ingest,rollup"], &[]);
    tidemark.wait_until_ready();
    let point = |host: &str, second: i64, value: f64| {
        let ts = 1_767_225_600 + second;
        Message::new(0, format!(r#"{{"name":"cpu","labels":{{"host":"{host}"}},"ts":{ts},"value":{value}}}"#))
    };
    let heartbeat = |second: i64| Message::new(0, format!(r#"{{"heartbeat":{}}}"#, 1_767_225_600 + second));
    let hosts: Vec<String> = (0..8).map(|host| format!("h{host}")).collect();
    let mut messages = Vec::new();
    for second in 0..10 {
        messages.extend(hosts.iter().map(|host| point(host, second, second as f64)));
        messages.extend(["0.1", "0.7"].map(|value| point(value, second, value.parse().unwrap())));
    }
    let on_time = messages.len();
    servers.kafka.produce(&topic, messages.into_iter().chain([heartbeat(30)]));
    let wait_for = |tidemark: &mut tidemark_tests::tidemark::Tidemark, expected: usize| {
        tidemark.wait_until(PATIENCE, "every point in influxdb", || {
            let rows = servers.influx.rows(&deployment.id, "cpu");
            let count: f64 = rows.values().filter_map(|fields| fields["count"].as_f64()).sum();
            if count as usize == expected { Ok(rows) } else { Err(format!("{count} of {expected}")) }
        })
    };
    let rows = wait_for(&mut tidemark, on_time);
    let with_spread = rows.values().filter(|fields| fields.contains_key("spread")).count();
    assert!((8..10).contains(&with_spread), "{rows:?}");
    // Late points of groups that fail, with others, and windows that close with them.
    let late = [point("0.1", 4, 0.1), point("h0", 4, 3.0), point("0.7", 35, 0.7), point("h1", 36, 1.0)];
    servers.kafka.produce(&topic, late.into_iter().chain([heartbeat(600)]));
    wait_for(&mut tidemark, on_time + 4);
    let failures = tidemark.metrics().unwrap();
    assert!(
        failures.lines().any(|line| line.contains("failures_total{") && line.contains("cpu")),
        "{failures}"
    );
    let range = ["cpu", "--from", "2026-01-01T00:00:00Z", "--to", "2026-01-01T00:01:00Z"];
    tidemark.call(&[&["reconcile"], &range[..]].concat());
    tidemark.call(&[&["recompute"], &range[..]].concat());
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());
}
