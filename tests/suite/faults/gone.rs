//! Logs whose ends are no messages, and what is gone while it is read: topics, messages, parts of
//! the configuration.

use std::thread::park_timeout;
use std::time::Duration;

use libtest_mimic::Trial;
use tidemark_tests::kafka::Message;
use tidemark_tests::tidemark::Tidemark;

use crate::real::{Deployment, PATIENCE, Servers};

const SQL: &str = "CREATE MATERIALIZED VIEW cpu WITH (allowed_lateness = '0 seconds') AS
SELECT tumble(time, INTERVAL '10 seconds') AS window_start, labels['host'] AS host, count(*) AS count FROM points GROUP BY 1, 2";

/// 2026-01-01T00:00:00Z, in seconds.
const START: i64 = 1_767_225_600;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        real("logs_that_end_in_transactions_do_not_hold_event_time", transactions),
        real("data_behind_an_open_transaction_are_not_taken_for_read", open_transaction),
        real("a_topic_that_is_made_again_while_it_is_read_is_refused", made_again),
        real("messages_that_retention_removes_before_they_are_read_are_counted", overtaken),
        real("a_topic_taken_out_of_the_configuration_does_not_hold_event_time", taken_out),
    ]
}

fn real(name: &str, body: fn(&Servers)) -> Trial {
    crate::real::trial(&format!("faults::gone::{name}"), body)
}

fn point(partition: i32, host: &str, second: i64) -> Message {
    let ts = START + second;
    Message::new(partition, format!(r#"{{"name":"cpu","labels":{{"host":"{host}"}},"ts":{ts},"value":1}}"#))
}

fn heartbeat(partition: i32, second: i64) -> Message {
    Message::new(partition, format!(r#"{{"heartbeat":{}}}"#, START + second))
}

const IDLE_SOON: [(&str, &str); 1] = [("TIDEMARK_INGEST__IDLE_TIMEOUT", "1s")];

fn started(deployment: &Deployment, environment: &[(&str, &str)]) -> Tidemark {
    let mut tidemark = deployment.process("data", &[("cpu", SQL)]);
    tidemark.call(&["topics", "create"]);
    tidemark.spawn(&["run", "--roles", "ingest,rollup"], environment);
    tidemark.wait_until_ready();
    tidemark
}

fn wait_for_count(servers: &Servers, deployment: &Deployment, tidemark: &mut Tidemark, expected: usize) {
    tidemark.wait_until(PATIENCE, "all points in influxdb", || {
        let rows = servers.influx.rows(&deployment.id, "cpu");
        let count: f64 = rows.values().filter_map(|fields| fields["count"].as_f64()).sum();
        if count as usize == expected { Ok(()) } else { Err(format!("{count} of {expected}")) }
    });
}

/// Two source topics, so that nothing but offsets tells their partitions apart.
fn transactions(servers: &Servers) {
    let kafka = servers.kafka;
    let (first, second) = (kafka.unique_topic("ends", 2), kafka.unique_topic("ends", 1));
    let deployment = Deployment::new(servers, "gone-ends", &format!("{first}\", \"{second}"), 2);
    let mut tidemark = started(&deployment, &IDLE_SOON);
    let producer = kafka.transactions(&deployment.id);
    producer.begin(&first, (0..5).map(|at| point(0, "a", at)));
    producer.commit();
    producer.begin(&first, (0..5).map(|at| point(1, "b", at)));
    producer.abort();
    producer.begin(&second, (0..5).map(|at| point(0, "c", at)));
    producer.abort();
    wait_for_count(servers, &deployment, &mut tidemark, 5);
    assert!(tidemark.terminate().success());
}

fn open_transaction(servers: &Servers) {
    let kafka = servers.kafka;
    let topic = kafka.unique_topic("open", 2);
    let deployment = Deployment::new(servers, "gone-open", &topic, 2);
    let mut tidemark = started(&deployment, &IDLE_SOON);
    kafka.produce(&topic, [point(0, "a", 0), point(1, "b", 0)]);
    tidemark.wait_for_metric(PATIENCE, "tidemark_rollup_points_total", &[], 2.0);
    let producer = kafka.transactions(&deployment.id);
    producer.begin(&topic, [point(1, "b", 1)]);
    // Partition 1 is silent for far longer than the idle timeout, and what is open in it is of the
    // first window.
    for at in 0..40 {
        kafka.produce(&topic, [point(0, "a", 60 + at)]);
        park_timeout(Duration::from_millis(100));
    }
    producer.commit();
    kafka.produce(&topic, [heartbeat(0, 300), heartbeat(1, 300)]);
    wait_for_count(servers, &deployment, &mut tidemark, 43);
    assert_eq!(tidemark.metric("tidemark_rollup_late_points_total", &[("rollup", "cpu")]), None);
    assert!(tidemark.terminate().success());
}

fn made_again(servers: &Servers) {
    let kafka = servers.kafka;
    let topic = kafka.unique_topic("again", 1);
    let deployment =
        Deployment::new(servers, "gone-again", &topic, 1).with("\n[archive]\nroll_age = \"1s\"\n");
    let mut tidemark = started(&deployment, &[]);
    kafka.produce(&topic, (0..100).map(|at| point(0, "a", at)));
    tidemark.wait_for_metric(PATIENCE, "tidemark_rollup_points_total", &[], 100.0);
    park_timeout(Duration::from_secs(3));
    kafka.delete_topic(&topic);
    kafka.create_topic(&topic, 1);
    kafka.produce(&topic, (0..50).map(|at| point(0, "b", at)));
    assert!(!tidemark.wait_for_end().success(), "{}", tidemark.log_text());
    let log = tidemark.log_text();
    assert!(
        log.contains("it was created again")
            || log.contains("it was made again")
            || log.contains("the archive holds files of topic"),
        "{log}"
    );
}

fn overtaken(servers: &Servers) {
    let kafka = servers.kafka;
    let topic = kafka.unique_topic("overtaken", 1);
    let deployment = Deployment::new(servers, "gone-overtaken", &topic, 1);
    let mut tidemark = started(&deployment, &[]);
    kafka.produce(&topic, [point(0, "a", 0)]);
    tidemark.wait_for_metric(PATIENCE, "tidemark_rollup_points_total", &[], 1.0);
    tidemark.signal("STOP");
    // What it had asked for is answered by then.
    park_timeout(Duration::from_secs(1));
    kafka.produce(&topic, (1..100).map(|at| point(0, "a", at)));
    kafka.delete_before(&topic, 0, 51);
    tidemark.signal("CONT");
    kafka.produce(&topic, [heartbeat(0, 300)]);
    wait_for_count(servers, &deployment, &mut tidemark, 50);
    let log = tidemark.log_text();
    assert!(
        log.contains("messages were removed by retention before they were read") && log.contains("lost=50"),
        "{log}"
    );
    assert!(tidemark.terminate().success());
}

fn taken_out(servers: &Servers) {
    let kafka = servers.kafka;
    let (kept, gone) = (kafka.unique_topic("kept", 1), kafka.unique_topic("kept", 1));
    let both = format!("{kept}\", \"{gone}");
    let deployment = Deployment::new(servers, "gone-taken-out", &both, 1);
    let mut tidemark = started(&deployment, &[]);
    kafka.produce(&kept, [point(0, "a", 0)]);
    kafka.produce(&gone, [point(0, "b", 0)]);
    tidemark.wait_for_metric(PATIENCE, "tidemark_rollup_points_total", &[], 2.0);
    assert!(tidemark.terminate().success());

    tidemark.spawn(&["run", "--roles", "ingest,rollup"], &[("TIDEMARK_TOPICS__POINTS", &kept)]);
    tidemark.wait_until_ready();
    // A report each epoch, until the topic has not been named for long enough.
    for at in 1..200 {
        kafka.produce(&kept, [heartbeat(0, 100 + at)]);
        park_timeout(Duration::from_millis(100));
        if !servers.influx.rows(&deployment.id, "cpu").is_empty() {
            break;
        }
    }
    wait_for_count(servers, &deployment, &mut tidemark, 2);
    assert!(tidemark.terminate().success());
}
