//! Labels, rows and messages that are larger than something on their way takes.

use libtest_mimic::Trial;
use tidemark_tests::kafka::Message;

use super::real;
use crate::real::{Deployment, PATIENCE, Servers};

/// A rollup by what points say, and one by texts that SQL makes a thousand times as long.
const BY_HOST: &str = "CREATE MATERIALIZED VIEW by_host WITH (allowed_lateness = '0 seconds') AS
SELECT tumble(time, INTERVAL '10 seconds') AS window_start, labels['host'] AS host, count(*) AS count FROM points GROUP BY 1, 2";
const BY_LONG: &str = "CREATE MATERIALIZED VIEW by_long WITH (allowed_lateness = '0 seconds') AS
SELECT tumble(time, INTERVAL '10 seconds') AS window_start, repeat(labels['host'], 1000) AS host, count(*) AS count FROM points GROUP BY 1, 2";

const RULES: &str = r#"
[[rule]]
name = "good"
rollup = "by_host"
condition = "count > 0"
receivers = ["hook"]

[[rule]]
name = "long"
rollup = "by_long"
condition = "count > 0"
receivers = ["hook"]

[[receiver]]
name = "hook"
webhook = { url = "http://127.0.0.1:1/", allow_private = true }
"#;

/// 2026-01-01T00:00:00Z.
const START: i64 = 1_767_225_600;

pub(super) fn trials() -> Vec<Trial> {
    vec![real("what_no_topic_takes_costs_itself_and_stops_no_role", too_large)]
}

fn point(host: &str, second: i64) -> Message {
    let second = START + second;
    Message::new(0, format!(r#"{{"name":"cpu","labels":{{"host":"{host}"}},"ts":{second},"value":1}}"#))
}

/// Letters that no compression makes fewer of.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let letters = std::iter::from_fn(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some(b'a' + u8::try_from((state >> 24) % 26).unwrap())
    });
    letters.take(bytes).collect()
}

fn too_large(servers: &Servers) {
    let topic = servers.kafka.unique_topic("sizes", 1);
    let deployment = Deployment::new(servers, "sizes", &topic, 1).with_rules("alerts.toml");
    let mut tidemark = deployment.process("data", &[("by_host", BY_HOST), ("by_long", BY_LONG)]);
    tidemark.write("alerts.toml", RULES);
    tidemark.call(&["topics", "create"]);
    let id = deployment.id.as_str();
    let limited = |what: &str, bytes: &str| {
        servers.kafka.set_property(&format!("{id}-{what}"), "max.message.bytes", bytes);
    };
    for (what, bytes) in
        [("late", "20000"), ("alerts", "20000"), ("alerts-states", "20000"), ("dead-letter", "3000")]
    {
        limited(what, bytes);
    }
    tidemark.run("ingest,rollup");
    tidemark.wait_until_ready();

    // Labels as long as may be, one that is longer, and rubbish that is longer than a dead letter
    // may be here.
    let host = |number: usize| format!("{number:04}{}", "x".repeat(4_092));
    let mut messages: Vec<Message> = (0..5).map(|number| point(&host(number), 1)).collect();
    messages.push(point(&"y".repeat(900_000), 2));
    messages.push(Message::new(0, "z".repeat(100_000)));
    messages.push(point("good", 3));
    messages.push(point("good", 100));
    // Late for good: a row of the long rollup is larger than any message.
    messages.extend((0..3).map(|number| point(&host(number), 5)));
    messages.push(point("good", 200));
    for message in messages {
        // Each in an epoch of its own, or not: it makes no difference.
        servers.kafka.produce(&topic, [message]);
    }
    let written = |second: i64| {
        move || {
            let time = (START + second) * 1_000_000_000;
            let rows = servers.influx.rows(id, "by_host");
            let found = rows.keys().any(|key| key.time == time && key.tags["host"] == "good");
            if found { Ok(()) } else { Err(format!("{} rows", rows.len())) }
        }
    };
    tidemark.wait_until(PATIENCE, "the window behind them", written(100));
    let of = |what: &str| vec![("topic", format!("{}-{what}", deployment.id))];
    let given_up = |tidemark: &mut tidemark_tests::tidemark::Tidemark, what: &str| {
        let labels = of(what);
        let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
        tidemark.wait_for_metric(PATIENCE, "tidemark_kafka_given_up_total", &labels, 1.0)
    };
    given_up(&mut tidemark, "alerts");
    let rules: Vec<String> = servers
        .kafka
        .consume_all(&format!("{}-alerts", deployment.id))
        .iter()
        .map(|message| serde_json::from_slice::<serde_json::Value>(&message.payload).unwrap())
        .map(|transition| format!("{} {}", transition["rule"], transition["labels"]["host"]))
        .collect();
    assert!(rules.contains(&r#""good" "good""#.to_owned()), "{rules:?}");
    let mut reasons: Vec<String> = servers
        .kafka
        .consume_all(&format!("{}-dead-letter", deployment.id))
        .iter()
        .flat_map(|message| message.headers.clone())
        .filter(|(key, _)| key == "reason")
        .map(|(_, value)| String::from_utf8(value).unwrap())
        .collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["label_too_long", "syntax"]);
    let late = servers.kafka.consume_all(&format!("{}-late", deployment.id));
    assert!(late.iter().any(|message| message.payload.len() > 4_000 && message.payload.len() < 20_000));

    // A limit that is lowered while it runs.
    limited("dead-letter", "300");
    servers.kafka.produce(&topic, [Message::new(0, noise(2_000)), point("good", 300), point("good", 400)]);
    tidemark.wait_until(PATIENCE, "the window behind it", written(300));
    given_up(&mut tidemark, "dead-letter");
    // What InfluxDB refuses for its length is counted, and takes nothing out of service.
    tidemark.wait_for_metric(PATIENCE, "tidemark_sink_errors_total", &[("kind", "rejected")], 1.0);
    assert_eq!(tidemark.not_ready().unwrap(), "");
    assert!(tidemark.terminate().success());
    let log = tidemark.log_text();
    assert!(!log.contains("role starts again"), "{log}");
    let longest = log.lines().map(str::len).max().unwrap_or_default();
    assert!(longest < 2_000, "a line of {longest} bytes");
    assert_eq!(log.matches("influxdb rejected a row").count(), 1, "{log}");
}
