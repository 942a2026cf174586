//! A machine's clock that is set wrongly for a moment.

use std::fs;
use std::thread::park_timeout;
use std::time::{Duration, Instant, SystemTime};

use libtest_mimic::Trial;
use tidemark_tests::kafka::Message;
use tidemark_tests::tidemark::Tidemark;

use super::real;
use crate::real::{Deployment, PATIENCE, Servers};

const SQL: &str = "CREATE MATERIALIZED VIEW cpu WITH (allowed_lateness = '0 seconds') AS
SELECT tumble(time, INTERVAL '5 seconds') AS window_start, labels['host'] AS host, count(*) AS count FROM points GROUP BY 1, 2";

pub(super) fn trials() -> Vec<Trial> {
    vec![real("a_clock_that_is_an_hour_wrong_for_two_seconds_costs_no_point", jumps)]
}

fn jumps(servers: &Servers) {
    let topic = servers.kafka.unique_topic("clock-jumps", 2);
    let deployment = Deployment::new(servers, "clock-jumps", &topic, 2);
    let mut tidemark = deployment.process("data", &[("cpu", SQL)]);
    tidemark.call(&["topics", "create"]);
    let clock = tidemark.directory().join("clock");
    let environment = [
        ("TIDEMARK_TEST_CLOCK", clock.to_str().unwrap()),
        // Both partitions are idle between the spells below, so that event time follows time
        // itself.
        ("TIDEMARK_INGEST__IDLE_TIMEOUT", "1s"),
        ("TIDEMARK_INGEST__MAX_OUT_OF_ORDERNESS", "3s"),
    ];
    tidemark.spawn(&["run", "--roles", "ingest,rollup"], &environment);
    tidemark.wait_until_ready();

    let mut sent = 0;
    let mut send = |spell: Duration| {
        let started = Instant::now();
        while started.elapsed() < spell {
            let now = milliseconds();
            let point = |partition: i32| {
                let host = format!("h{partition}");
                Message::new(
                    partition,
                    format!(r#"{{"name":"cpu","labels":{{"host":"{host}"}},"ts":{now},"value":1}}"#),
                )
            };
            servers.kafka.produce(&topic, [point(0), point(1)]);
            sent += 2;
            park_timeout(Duration::from_millis(100));
        }
    };
    let set = |tidemark: &mut Tidemark, ahead: &str| {
        fs::write(&clock, ahead).unwrap();
        let steps = tidemark.log_text().matches("the machine's clock was set").count();
        tidemark.wait_until(PATIENCE, "the clock to be seen", || {
            match tidemark_log(&clock).matches("the machine's clock was set").count() {
                now if now > steps || ahead == "0" => Ok(()),
                now => Err(format!("{now} of {}", steps + 1)),
            }
        });
        park_timeout(Duration::from_secs(2));
        fs::write(&clock, "0").unwrap();
    };
    send(Duration::from_secs(5));
    // All are idle, and then are not.
    park_timeout(Duration::from_secs(4));
    set(&mut tidemark, "3600000");
    park_timeout(Duration::from_secs(2));
    send(Duration::from_secs(5));
    for ahead in ["-3600000", "3600000"] {
        std::thread::scope(|scope| {
            scope.spawn(|| set(&mut tidemark, ahead));
            send(Duration::from_secs(5));
        });
    }
    tidemark.wait_until(PATIENCE, "every point to be in a window", || {
        let rows = servers.influx.rows(&deployment.id, "cpu");
        let count: f64 = rows.values().filter_map(|fields| fields["count"].as_f64()).sum();
        if count as usize == sent { Ok(()) } else { Err(format!("{count} of {sent}")) }
    });
    let page = tidemark.metrics().unwrap();
    let lost = |line: &&str| {
        line.starts_with("tidemark_ingest_rejected_total")
            || line.starts_with("tidemark_rollup_late_points_total")
    };
    assert_eq!(page.lines().filter(lost).collect::<Vec<_>>(), Vec::<&str>::new());
    let log = tidemark.log_text();
    assert_eq!(log.matches("the machine's clock was set").count(), 3, "{log}");
    assert!(!log.contains("is followed to where it was set"), "{log}");
    assert!(tidemark.terminate().success());
}

#[expect(clippy::disallowed_methods, reason = "live points are of this moment")]
fn milliseconds() -> u128 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()
}

/// The log beside the clock.
fn tidemark_log(clock: &std::path::Path) -> String {
    let log = clock.with_file_name("tidemark.log");
    String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned()
}
