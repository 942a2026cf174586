//! Stores: which storage it is, and files that are none of ours.

use std::fs;
use std::path::PathBuf;

use libtest_mimic::Trial;
use tidemark_tests::drill::proxy::{Fault, Proxy};
use tidemark_tests::influx::Field;
use tidemark_tests::kafka::Message;
use tidemark_tests::tidemark::Tidemark;
use tidemark_tests::wait::wait_until;

use super::operation::program;
use crate::real::{Deployment, PATIENCE, Servers};

const SQL: &str = "CREATE MATERIALIZED VIEW cpu WITH (allowed_lateness = '0 seconds') AS
SELECT tumble(time, INTERVAL '10 seconds') AS window_start, labels['host'] AS host, count(*) AS count FROM points GROUP BY 1, 2";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        crate::real::trial("faults::stores::a_folder_of_another_machine_is_another_storage", another_storage),
        crate::real::trial("faults::stores::two_storages_that_start_at_one_moment_are_noticed", two_at_once),
        crate::real::trial("faults::stores::files_that_are_none_of_ours_cost_themselves", foreign_files),
        Trial::test("faults::stores::sql_reaches_no_file_and_ends_no_process", || {
            hostile_queries();
            Ok(())
        }),
        crate::real::trial("faults::stores::a_column_that_was_an_integer_is_read_as_a_float", widened),
        crate::real::trial(
            "faults::stores::a_request_that_arrives_after_its_successor_is_found_and_mended",
            overtaken,
        ),
        crate::real::trial("faults::stores::a_field_that_changes_its_type_is_seen_before_and_after", retyped),
    ]
}

fn point(partition: i32, second: i64) -> Message {
    let ts = 1_767_225_600 + second;
    Message::new(partition, format!(r#"{{"name":"cpu","labels":{{"host":"a"}},"ts":{ts},"value":1}}"#))
}

fn started(deployment: &Deployment) -> Tidemark {
    let mut tidemark = deployment.process("data", &[("cpu", SQL)]);
    tidemark.call(&["topics", "create"]);
    tidemark.spawn(&["run", "--roles", "ingest"], &[("TIDEMARK_ARCHIVE__ROLL_AGE", "1s")]);
    tidemark.wait_until_ready();
    tidemark
}

/// What a command says when it fails.
fn refusal(tidemark: &Tidemark, arguments: &[&str]) -> String {
    let output = tidemark.command().args(arguments).output().unwrap();
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Each process has a folder of its own, as two machines with the default storage have.
fn another_storage(servers: &Servers) {
    let topic = servers.kafka.unique_topic("storage", 2);
    let deployment = Deployment::new(servers, "storage", &topic, 1);
    let mut first = started(&deployment);
    servers.kafka.produce(&topic, (0..20).map(|at| point(at % 2, i64::from(at))));
    first.wait_for_metric(PATIENCE, "tidemark_ingest_points_total", &[], 20.0);
    let group = format!("{}-ingest", deployment.id);
    first.wait_until(PATIENCE, "offsets of both partitions", || {
        let committed = servers.kafka.committed(&group, &topic);
        if committed.values().sum::<i64>() == 20 { Ok(()) } else { Err(format!("{committed:?}")) }
    });

    let mut second = deployment.process("data", &[("cpu", SQL)]);
    second.spawn(&["run", "--roles", "ingest"], &[]);
    assert!(!second.wait_for_end().success(), "{}", second.log_text());
    assert!(second.log_text().contains("is in the storage"), "{}", second.log_text());
    let range = ["--from", "2026-01-01T00:00:00Z", "--to", "2026-01-01T00:01:00Z", "--force"];
    let said = refusal(&second, &[&["recompute", "cpu"], &range[..]].concat());
    assert!(said.contains("`url` of [storage]"), "{said}");
    assert!(first.terminate().success(), "{}", first.log_text());
}

/// Neither takes over from the other: each reads its own partition from the start.
fn two_at_once(servers: &Servers) {
    let topic = servers.kafka.unique_topic("moment", 2);
    let deployment = Deployment::new(servers, "moment", &topic, 1);
    let mut processes = [(), ()].map(|()| deployment.process("data", &[("cpu", SQL)]));
    processes[0].call(&["topics", "create"]);
    for process in &mut processes {
        process.spawn(&["run", "--roles", "ingest"], &[("TIDEMARK_ARCHIVE__ROLL_AGE", "1s")]);
    }
    let mut second = 0;
    wait_until(PATIENCE, "one to notice the other", || {
        second += 1;
        servers.kafka.produce(&topic, (0..2).map(|partition| point(partition, second)));
        match processes.iter_mut().any(|process| process.ended().is_some()) {
            true => Ok(()),
            false => Err(processes.iter().map(Tidemark::log_text).collect()),
        }
    });
    let logs: String = processes.iter().map(Tidemark::log_text).collect();
    assert!(logs.contains("is in the storage") && logs.contains("`url` of [storage]"), "{logs}");
}

fn foreign_files(servers: &Servers) {
    let topic = servers.kafka.unique_topic("foreign", 1);
    let deployment = Deployment::new(servers, "foreign", &topic, 1).without_influx();
    let mut tidemark = started(&deployment);
    servers.kafka.produce(&topic, (0..20).map(|at| point(0, at)));
    let hour = tidemark.directory().join("data/raw/date=2026-01-01/hour=00");
    let files = || -> Vec<PathBuf> {
        let found = fs::read_dir(&hour).into_iter().flatten().map(|file| file.unwrap().path());
        found.filter(|path| path.extension().is_some_and(|extension| extension == "parquet")).collect()
    };
    tidemark.wait_until(
        PATIENCE,
        "a file",
        || if files().is_empty() { Err("none".to_owned()) } else { Ok(()) },
    );
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());
    let ours = files();
    fs::copy(&ours[0], hour.join("._copy.parquet")).unwrap();
    fs::write(hour.join("empty.parquet"), "").unwrap();
    fs::write(hour.join("0-text.parquet"), "no Parquet at all, but long enough to be taken for some")
        .unwrap();
    let output = tidemark.command().args(["query", "SELECT count(*) AS n FROM points"]).output().unwrap();
    let (table, log) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(output.status.success() && table.contains("| 20 |"), "{table}{log}");
    for name in ["empty.parquet", "0-text.parquet"] {
        assert!(log.contains(name), "{log}");
    }
}

/// SQL that would read or write a file, change something, or exhaust the stack: an error of the
/// command each, and never the end of the process by a signal.
fn hostile_queries() {
    let tidemark = program("");
    tidemark.write("sql/cpu.sql", SQL);
    let secret = tidemark.directory().join("secret.csv");
    fs::write(&secret, "planted\n").unwrap();
    let (secret, copy) = (secret.display(), tidemark.directory().join("copy.csv"));
    let cases = [
        (format!("COPY (SELECT 1) TO '{}'", copy.display()), "COPY is no query"),
        (format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{secret}'"), "cannot be"),
        (format!("SELECT * FROM '{secret}'"), "cannot be planned"),
        (format!("SELECT * FROM 'file://{secret}'"), "cannot be planned"),
        (format!("SELECT * FROM read_csv('{secret}')"), "cannot be planned"),
        ("CREATE TABLE t AS SELECT 1".to_owned(), "CREATE TABLE is no query"),
        ("SET datafusion.execution.batch_size = 1".to_owned(), "SET is no query"),
        (format!("SELECT 1 WHERE true{}", " OR true".repeat(10_000)), "bytes, more than"),
        (format!("SELECT 1{}", "+1".repeat(2_000)), "too many operations"),
        (format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000)), "cannot be run"),
        (format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(2_000)), "cannot be run"),
        ("SELECT repeat('x', 2000000000)".to_owned(), "cannot be planned"),
        ("SELECT range(1, 3000000000)".to_owned(), "cannot be planned"),
        ("SELECT array_repeat(1, 3000000000)".to_owned(), "cannot be planned"),
    ];
    for (sql, expected) in cases {
        let start: String = sql.chars().take(60).collect();
        let output = tidemark.command().args(["query", &sql]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{start}: {said}");
        assert!(said.contains(expected) && !said.contains("planted"), "{start}: {said}");
    }
    assert!(!copy.exists());
    // As deep as is allowed.
    let deep = format!("SELECT 1{} AS n", "+1".repeat(590));
    assert!(tidemark.call(&["query", &deep]).contains("591"));
    assert!(tidemark.call(&["query", "SELECT count(*) AS n FROM generate_series(1, 1000)"]).contains("1000"));
    let either = format!("SELECT count(*) AS n FROM (SELECT 1 AS x) WHERE x = 0{}", " OR x = 1".repeat(290));
    assert!(tidemark.call(&["query", &either]).contains("| 1 |"));
}

/// What was counted is averaged under the same name: InfluxDB takes no float where it has integers.
fn retyped(servers: &Servers) {
    let topic = servers.kafka.unique_topic("retyped", 1);
    let deployment = Deployment::new(servers, "retyped", &topic, 1);
    let mut tidemark = deployment.process("data", &[("cpu", SQL)]);
    tidemark.call(&["topics", "create"]);
    tidemark.spawn(&["run", "--roles", "ingest,rollup"], &[]);
    tidemark.wait_until_ready();
    servers.kafka.produce(&topic, [point(0, 0), point(0, 30)]);
    let rows = |count: usize| {
        let found = servers.influx.rows(&deployment.id, "cpu");
        if found.len() == count { Ok(()) } else { Err(format!("{found:?}")) }
    };
    tidemark.wait_until(PATIENCE, "the first window", || rows(1));
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());

    tidemark.write("sql/cpu.sql", &SQL.replace("count(*) AS count", "avg(value) AS count"));
    let said = tidemark.call(&["check", "--against-state"]);
    assert!(said.contains("`count` was an integer, and is a float: InfluxDB refuses"), "{said}");
    tidemark.spawn(&["run", "--roles", "ingest,rollup"], &[]);
    servers.kafka.produce(&topic, [point(0, 60), point(0, 90)]);
    wait_until(PATIENCE, "the refusal to be shown", || match tidemark.not_ready()? {
        text if text.contains("influx rows: rows are refused") && text.contains("conflict") => Ok(()),
        text => Err(text),
    });
    let why = tidemark.call(&["why", "cpu"]);
    assert!(why.contains("rows are refused"), "{why}");
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());
}

/// The same with Parquet, which has files of both.
fn widened(servers: &Servers) {
    let topic = servers.kafka.unique_topic("widened", 1);
    let deployment = Deployment::new(servers, "widened", &topic, 1)
        .without_influx()
        .with("\n[archive]\nroll_age = \"1s\"\n");
    let mut tidemark = deployment.process("data", &[("cpu", SQL)]);
    tidemark.call(&["topics", "create"]);
    let averaged = SQL.replace("count(*) AS count", "avg(value) AS count");
    for (second, sql) in [(0, SQL), (60, averaged.as_str())] {
        tidemark.write("sql/cpu.sql", sql);
        tidemark.spawn(&["run", "--roles", "ingest,rollup"], &[]);
        tidemark.wait_until_ready();
        servers.kafka.produce(&topic, [point(0, second), point(0, second + 1), point(0, second + 30)]);
        tidemark.wait_for_metric(PATIENCE, "tidemark_rollup_rows_written_total", &[], 1.0);
        assert!(tidemark.terminate().success(), "{}", tidemark.log_text());
    }
    let counts =
        tidemark.call(&["query", "SELECT count, arrow_typeof(count) AS type FROM cpu ORDER BY window_start"]);
    let cells: Vec<&str> = counts.split_whitespace().filter(|cell| *cell != "|").collect();
    assert!(counts.contains("2.0") && counts.contains("1.0") && !cells.contains(&"Int64"), "{counts}");
    assert!(tidemark.call(&["query", "SELECT count(*) AS n FROM points"]).contains('6'));
    let range = ["cpu", "--from", "2026-01-01T00:01:00Z", "--to", "2026-01-01T00:01:10Z"];
    tidemark.call(&[&["reconcile"], &range[..]].concat());
    tidemark.call(&[&["recompute"], &range[..]].concat());
}

/// The network keeps a request back for longer than its sender waits, and delivers it after the
/// correction of the same window. InfluxDB keeps what comes last, and nothing there can refuse it.
fn overtaken(servers: &Servers) {
    let proxy = Proxy::start(&servers.influx.url());
    let topic = servers.kafka.unique_topic("overtaken", 1);
    let deployment = Deployment::new(servers, "overtaken", &topic, 1)
        .with_influx(servers, &proxy.url())
        .with("timeout = \"2s\"\n\n[archive]\nroll_age = \"1s\"\n");
    let mut tidemark = deployment
        .process("data", &[("cpu", &SQL.replace("lateness = '0 seconds'", "lateness = '10 minutes'"))]);
    let stored = || {
        let rows = servers.influx.rows(&deployment.id, "cpu");
        let first = rows.into_iter().find(|(key, _)| key.time == 1_767_225_600_000_000_000);
        first.map(|(_, fields)| fields["count"].clone())
    };
    let wait_for = |tidemark: &mut Tidemark, count: i64| {
        tidemark.wait_until(PATIENCE, "the row of the first window", || match stored() {
            Some(Field::Integer(found)) if found == count => Ok(()),
            other => Err(format!("{other:?}")),
        });
    };
    tidemark.call(&["topics", "create"]);
    tidemark.spawn(&["run", "--roles", "ingest,rollup"], &[]);
    tidemark.wait_until_ready();
    proxy.inject(Some(Fault::Held));
    servers.kafka.produce(&topic, [point(0, 0), point(0, 1), point(0, 60)]);
    tidemark.wait_until(PATIENCE, "a request to be kept back", || match proxy.injected() {
        0 => Err("none came".to_owned()),
        _ => Ok(()),
    });
    assert!(stored().is_none());
    proxy.inject(None);
    wait_for(&mut tidemark, 2);
    servers.kafka.produce(&topic, [point(0, 2), point(0, 1_200)]);
    wait_for(&mut tidemark, 3);

    assert!(proxy.release() > 0);
    wait_for(&mut tidemark, 2);
    let range = ["cpu", "--from", "2026-01-01T00:00:00Z", "--to", "2026-01-01T00:00:10Z"];
    let found = tidemark.command().arg("reconcile").args(range).output().unwrap();
    assert_eq!(found.status.code(), Some(1), "{}", String::from_utf8_lossy(&found.stderr));
    tidemark.call(&[&["recompute"], &range[..]].concat());
    wait_for(&mut tidemark, 3);
    tidemark.call(&[&["reconcile"], &range[..]].concat());
    assert!(tidemark.terminate().success(), "{}", tidemark.log_text());
}
