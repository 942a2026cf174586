//! Starting without servers, and ending whatever is away.

use std::time::Instant;

use libtest_mimic::Trial;
use tidemark_tests::kafka::Kafka;
use tidemark_tests::tidemark::Tidemark;

use super::{program, real, trial};
use crate::real::{Deployment, PATIENCE, Servers};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("without_kafka_a_process_waits_in_few_words_and_says_since_when", without_kafka),
        trial("a_second_signal_ends_at_once", second_signal),
        real("a_process_ends_in_order_whatever_is_away", whatever_is_away),
        real("a_broker_that_is_frozen_while_all_roles_start_ends_none_of_them", frozen_at_the_start),
    ]
}

/// Sends a signal, waits for the end, and prints how long that took.
fn end(tidemark: &mut Tidemark, signal: &str, state: &str) {
    let started = Instant::now();
    tidemark.signal(signal);
    let status = tidemark.wait_for_end();
    println!("{state}: ended {:.1} s after SIG{signal}", started.elapsed().as_secs_f64());
    assert!(status.success(), "{state}: {status}\n{}", tidemark.log_text());
}

/// Lines of the log that say something is wrong.
fn complaints(tidemark: &Tidemark) -> usize {
    let log = tidemark.log_text();
    log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).count()
}

fn without_kafka() {
    for signal in ["TERM", "HUP", "INT"] {
        let mut tidemark = program("[kafka]\nbrokers = \"127.0.0.1:1\"\n");
        tidemark.spawn(&["run"], &[]);
        let url = tidemark.url();
        tidemark.wait_until(PATIENCE, "word of Kafka", || {
            let said = tidemark_tests::tidemark::text(&format!("{url}/readyz"))?;
            let says_it = said.contains("kafka: away since 20") && said.contains("no Kafka broker answered");
            if says_it { Ok(()) } else { Err(said) }
        });
        // Dozens of attempts have failed by now.
        let lines = complaints(&tidemark);
        println!("{lines} lines until the process has said that Kafka is away");
        assert!(lines <= 10, "{}", tidemark.log_text());
        end(&mut tidemark, signal, "without Kafka");
    }
}

fn second_signal() {
    let mut tidemark = program("[kafka]\nbrokers = \"127.0.0.1:1\"\n");
    tidemark.spawn(&["run"], &[]);
    let url = format!("{}/healthz", tidemark.url());
    tidemark.wait_until(PATIENCE, "the first answer", || tidemark_tests::tidemark::page(&url).map(drop));
    // Its roles wait for a broker, so there is time for another signal.
    tidemark.signal("TERM");
    let log = tidemark.directory().join("tidemark.log");
    tidemark.wait_until(PATIENCE, "word of the first signal", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        if text.contains("a signal: the process ends in order") { Ok(()) } else { Err(text) }
    });
    tidemark.signal("TERM");
    let status = tidemark.wait_for_end();
    assert_eq!(status.code(), Some(128 + 15), "{status}\n{}", tidemark.log_text());
}

fn whatever_is_away(servers: &Servers) {
    let kafka = Kafka::start().expect("the shared one could be started");
    kafka.create_topic("points", 2);
    let text =
        format!("[kafka]\nbrokers = \"{}\"\n[rollup]\ncheckpoint_interval = \"200ms\"\n", kafka.brokers());
    let mut tidemark = program(&text);
    tidemark.call(&["topics", "create"]);
    tidemark.run("ingest,rollup,notify");
    end(&mut tidemark, "TERM", "all well");
    tidemark.run("ingest,rollup,notify");
    kafka.pause();
    end(&mut tidemark, "TERM", "Kafka frozen");
    kafka.resume();
    tidemark.run("ingest,rollup,notify");
    kafka.kill9();
    end(&mut tidemark, "TERM", "Kafka killed");

    let topic = servers.kafka.unique_topic("ends", 2);
    let influx = tidemark_tests::influx::Influx::start().expect("the shared one could be started");
    let deployment = Deployment::new(servers, "ends", &topic, 2).with_influx(servers, &influx.url());
    let mut tidemark = deployment.process("data", &[("cpu", super::SQL)]);
    tidemark.call(&["topics", "create"]);
    tidemark.run("ingest,rollup,notify");
    influx.kill9();
    let points: String = (0..200)
        .map(|second| {
            format!(
                "{{\"name\":\"cpu\",\"labels\":{{\"host\":\"a\"}},\"ts\":{},\"value\":1}}\n",
                1_767_571_200 + 10 * second
            )
        })
        .collect();
    tidemark.write("points.jsonl", &points);
    tidemark.call(&["load", "points.jsonl", "--topic", &topic, "--close"]);
    tidemark.wait_for_metric(PATIENCE, "tidemark_rollup_windows_closed_total", &[], 10.0);
    end(&mut tidemark, "TERM", "InfluxDB away, with results for it");
}

fn frozen_at_the_start(_: &Servers) {
    let kafka = Kafka::start().expect("the shared one could be started");
    kafka.create_topic("points", 2);
    let mut tidemark = program(&format!("[kafka]\nbrokers = \"{}\"\n", kafka.brokers()));
    tidemark.call(&["topics", "create"]);
    kafka.pause();
    tidemark.spawn(&["run"], &[]);
    // Each role has given up once and tries again.
    let log = tidemark.directory().join("tidemark.log");
    tidemark.wait_until(PATIENCE, "a role to start again", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        if text.contains("role starts again") { Ok(()) } else { Err(text) }
    });
    kafka.resume();
    tidemark.wait_until_ready();
    end(&mut tidemark, "TERM", "after a broker that was frozen at the start");
}
