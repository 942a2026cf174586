//! Loading files beside others who send.

use std::time::{SystemTime, UNIX_EPOCH};

use libtest_mimic::Trial;
use tidemark_tests::kafka::Message;

use super::{ended, program, real};
use crate::real::Servers;

pub(super) fn trials() -> Vec<Trial> {
    vec![real("closing_makes_nobody_elses_points_late", close)]
}

#[expect(clippy::disallowed_methods, reason = "live points are of this moment")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn heartbeats(messages: &[Message]) -> Vec<u64> {
    let read = |message: &Message| {
        let json: serde_json::Value = serde_json::from_slice(&message.payload).ok()?;
        Some(json.get("heartbeat")?.as_u64()? / 1_000_000_000)
    };
    messages.iter().filter_map(read).collect()
}

fn close(servers: &Servers) {
    let load = |topic: &str, time: u64, options: &[&str]| {
        let tidemark = program(&format!("[kafka]\nbrokers = \"{}\"\n", servers.kafka.brokers()));
        tidemark.write("cpu.csv", &format!("ts,value\n{},1\n{time},2\n", time - 600));
        let mut arguments = vec!["load", "cpu.csv", "--topic", topic, "--close"];
        arguments.extend(options);
        ended(tidemark.command(), &arguments)
    };
    // Alone, event time comes to the clock and not beyond it.
    let alone = servers.kafka.unique_topic("alone", 2);
    let said = load(&alone, now(), &[]);
    assert!(said.success, "{}", said.stderr);
    assert!(said.stderr.contains("the last windows end in the future"), "{}", said.stderr);
    let sent = heartbeats(&servers.kafka.consume_all(&alone));
    assert!(sent.len() == 2 && sent.iter().all(|time| *time <= now()), "{sent:?}, now {}", now());

    // Beside somebody who sends, it is refused before anything is sent.
    let shared = servers.kafka.unique_topic("shared", 2);
    let live = || {
        let point = format!("{{\"name\":\"live\",\"ts\":{},\"value\":1}}", now());
        servers.kafka.produce(&shared, [Message::new(0, point)]);
    };
    live();
    let said = load(&shared, now(), &[]);
    assert!(!said.success && said.stderr.contains("others send to the topic"), "{}", said.stderr);
    assert_eq!(servers.kafka.consume_all(&shared).len(), 1, "only the live point is there");
    // Unless it is forced, or far from the clock.
    live();
    assert!(load(&shared, now(), &["--force"]).success);
    live();
    assert!(load(&shared, 1_500_000_000, &[]).success);
}
