//! Rows of windows to notifications, at their own times.

use std::sync::Arc;

use alerts::dispatch::{Silence, What};
use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringViewArray, TimestampNanosecondArray,
};
use operators::sql::compile;

use super::*;
use crate::config::Environment;

const MINUTE: i64 = 60_000_000_000;
/// Of the wall clock ahead of the watermark.
const AHEAD: i64 = 5_000_000_000;

const SQL: &str = "CREATE MATERIALIZED VIEW cpu WITH (tiers = '1m', allowed_lateness = '10 minutes') AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start, labels['host'] AS host, max(value) AS max,
       count(*) AS points
FROM points GROUP BY 1, 2";

const RULES: &str = r#"
[[receiver]]
name = "direct"
[receiver.webhook]
url = "https://direct.example.com/"

[[receiver]]
name = "grouped"
[receiver.webhook]
url = "https://grouped.example.com/"

[[rule]]
name = "high"
rollup = "cpu"
condition = "max > 90"
for = "1m"
receivers = ["direct"]

[[route]]
receivers = ["grouped"]
group_by = []
group_wait = "30s"
group_interval = "5m"
repeat_interval = "1h"
escalate = [{ after = "15m", receivers = ["direct"] }]
"#;

fn simulation() -> Simulation {
    let catalog = compile(&[("cpu.sql".to_owned(), SQL.to_owned())]);
    assert!(catalog.errors.is_empty(), "{:?}", catalog.errors);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), RULES).unwrap();
    let config = AlertsConfig::load(file.path(), &Environment::default()).unwrap();
    Simulation::new(&config, &catalog).unwrap()
}

/// Rows of the windows that end at this minute.
fn step(simulation: &mut Simulation, minute: i64, rows: &[(&str, f64)], corrected: bool, watermark: i64) {
    let columns: [(&str, ArrayRef); 4] = [
        ("window_start", Arc::new(TimestampNanosecondArray::from(vec![(minute - 1) * MINUTE; rows.len()]))),
        ("host", Arc::new(StringViewArray::from_iter_values(rows.iter().map(|row| row.0)))),
        ("max", Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.1)))),
        ("points", Arc::new(Int64Array::from(vec![1; rows.len()]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let ends = vec![minute * MINUTE; rows.len()];
    let rows = WindowRows {
        rollup: "cpu",
        tier: "1m",
        rows: &batch,
        window_ends: &ends,
        corrected,
        withdrawn: None,
    };
    let watermark = watermark * MINUTE;
    simulation.step(&[], &[rows], Some(watermark), watermark + AHEAD);
}

/// `seconds receiver (reason) host status, …`
fn notified(outcome: &Outcome) -> Vec<String> {
    let line = |notified: &Notified| {
        let alerts =
            notified.alerts.iter().map(|alert| format!("{} {}", alert.alert.labels["host"], alert.status));
        let alerts = alerts.collect::<Vec<_>>().join(", ");
        format!(
            "{} {} {} {alerts}",
            notified.at.0 / 1_000_000_000,
            notified.receiver,
            notified.reason.as_str()
        )
    };
    outcome.notified.iter().map(line).collect()
}

#[test]
fn everything_is_told_at_its_own_time() {
    let mut simulation = simulation();
    assert_eq!(simulation.sources().iter().collect::<Vec<_>>(), [&("cpu".to_owned(), "1m".to_owned())]);
    step(&mut simulation, 1, &[("a", 95.0), ("b", 95.0)], false, 1);
    assert_eq!(notified(&simulation.take()), Vec::<String>::new());
    let pending = simulation.active().values().map(|alert| alert.status).collect::<Vec<_>>();
    assert_eq!(pending, [Status::Pending, Status::Pending]);
    step(&mut simulation, 2, &[("a", 95.0), ("b", 10.0)], false, 2);
    assert_eq!(simulation.active().len(), 1, "b was never notified of");
    // The rule's own receiver at once, the group when it has waited; then the next one, and again
    // after an hour.
    simulation.advance(80 * MINUTE);
    assert_eq!(
        notified(&simulation.take()),
        [
            "125 direct changed a firing",
            "155 grouped changed a firing",
            "1055 direct escalated a firing",
            "3755 grouped repeated a firing",
            "4655 direct repeated a firing",
        ]
    );
    step(&mut simulation, 81, &[("a", 10.0)], false, 81);
    simulation.finish();
    assert!(simulation.active().is_empty());
    let outcome = simulation.take();
    assert_eq!(notified(&outcome)[0], "4865 direct changed a resolved", "{outcome:?}");
    assert!(
        notified(&outcome).contains(&"4895 grouped changed a resolved".to_owned()),
        "{:?}",
        notified(&outcome)
    );
}

#[test]
fn corrections_and_silences() {
    let mut simulation = simulation();
    let silence = Silence {
        id: "s".to_owned(),
        matchers: vec![alerts::dispatch::Matcher::parse("host=\"b\"").unwrap()],
        starts_at: 0,
        ends_at: 10 * MINUTE,
        created_by: "test".to_owned(),
        comment: String::new(),
        created_at: 0,
    };
    simulation.command("silence/s", &Command::Silence(silence), 0);
    step(&mut simulation, 1, &[("a", 95.0), ("b", 95.0)], false, 1);
    step(&mut simulation, 2, &[("a", 10.0), ("b", 95.0)], false, 2);
    let outcome = simulation.take();
    assert_eq!(notified(&outcome), Vec::<String>::new(), "b is silenced, and a was over in time");
    assert!(outcome.ledger.iter().any(|entry| entry.what == What::Silenced), "{:?}", outcome.ledger);
    // A late point of the second minute: `a` should have fired.
    step(&mut simulation, 2, &[("a", 99.0)], true, 3);
    let outcome = simulation.take();
    assert_eq!(notified(&outcome), ["185 direct changed a firing"]);
    assert_eq!(outcome.notified[0].alerts[0].cause, Cause::Correction);
    // What still fires as the silence ends is notified then.
    simulation.advance(10 * MINUTE);
    let later = notified(&simulation.take());
    assert!(later.contains(&"600 direct changed b firing".to_owned()), "{later:?}");
}

#[test]
fn rules_with_mistakes_are_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), RULES.replace("max > 90", "most > 90")).unwrap();
    let config = AlertsConfig::load(file.path(), &Environment::default()).unwrap();
    let catalog = compile(&[("cpu.sql".to_owned(), SQL.to_owned())]);
    let problems = Simulation::new(&config, &catalog).unwrap_err();
    assert!(problems[0].to_string().contains("most"), "{problems:?}");
}

#[test]
fn alerts_as_series() {
    let labels = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<BTreeMap<_, _>>()
    };
    for (labels, expected) in [
        (labels(&[]), "r"),
        (labels(&[("a", "x")]), r#"r{a="x"}"#),
        (labels(&[("b", "\"y\""), ("a", "x")]), r#"r{a="x",b="\"y\""}"#),
    ] {
        assert_eq!(AlertKey { rule: "r".to_owned(), labels }.to_string(), expected);
    }
}
