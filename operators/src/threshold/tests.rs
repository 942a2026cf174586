//! Rows of windows to transitions, and mistakes in rules to messages.

use super::*;
use crate::sql::Shape;
use crate::window::{Tumble, Windows};
use alerts::Status;
use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringViewArray, TimestampNanosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use std::sync::Arc;
use std::time::Duration;

const SECOND: i64 = 1_000_000_000;
pub(super) const MINUTE: i64 = 60 * SECOND;

pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("window_start", DataType::Timestamp(TimeUnit::Nanosecond, None), false),
        Field::new("region", DataType::Utf8View, true),
        Field::new("avg", DataType::Float64, true),
        Field::new("points", DataType::Int64, false),
        Field::new("Max", DataType::Float64, true),
    ]))
}

pub(super) fn shape() -> Shape {
    Shape { time: 0, tags: vec![1], fields: vec![2, 3, 4] }
}

pub(super) fn spec() -> RuleSpec {
    RuleSpec {
        name: "cpu_high".into(),
        watches: rows("avg > 90"),
        severity: "page".into(),
        labels: BTreeMap::from([("team".into(), "core".into())]),
        summary: "{{ labels.region }} {{ status }}".into(),
        description: "{{ rule }} {{ values.avg|fixed(1) }} of {{ values.points }} since {{ starts_at }}"
            .into(),
        receivers: vec!["ops".into()],
        ..RuleSpec::default()
    }
}

pub(super) fn rows(condition: &str) -> Watches {
    Watches::Rows { rollup: "cpu_by_region".into(), tier: "1m".into(), condition: condition.into() }
}

pub(super) fn watched(shape: Shape) -> Watched {
    let windows = Windows::tumbling(Tumble::new(MINUTE, None).unwrap());
    let growing = vec!["avg".to_owned(), "points".to_owned()];
    Watched { schema: schema(), shape, windows, lateness: 10 * MINUTE, growing }
}

pub(super) fn compile_over(spec: RuleSpec, shape: &Shape, earlier: &[Rule]) -> Result<Rule, RuleError> {
    let known = |name: &str| {
        let is_known = ["cpu_by_region", "memory_by_region"].contains(&name);
        is_known.then(|| (watched(shape.clone()), "1m".to_owned()))
    };
    Rule::compile(spec, &known, earlier)
}

fn compile(spec: RuleSpec) -> Result<Rule, RuleError> {
    compile_over(spec, &shape(), &[])
}

fn threshold(spec: RuleSpec) -> Threshold {
    Threshold::new(vec![compile(spec).unwrap()])
}

/// Rows of one-minute windows: the minute that it ends at, region, average.
pub(super) type Row = (i64, &'static str, Option<f64>);

pub(super) fn batch(rows: &[Row]) -> (RecordBatch, Vec<i64>) {
    let ends: Vec<i64> = rows.iter().map(|row| row.0 * MINUTE).collect();
    let region = rows.iter().map(|row| Some(row.1).filter(|region| !region.is_empty()));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(ends.iter().map(|end| Some(end - MINUTE)).collect::<TimestampNanosecondArray>()),
        Arc::new(region.collect::<StringViewArray>()),
        Arc::new(rows.iter().map(|row| row.2).collect::<Float64Array>()),
        Arc::new(rows.iter().map(|_| Some(0)).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|_| None).collect::<Float64Array>()),
    ];
    (RecordBatch::try_new(schema(), columns).unwrap(), ends)
}

fn evaluate(threshold: &mut Threshold, rows: &[Row]) -> Vec<Transition> {
    let newest = rows.last().map(|row| row.0 * MINUTE);
    let (rows, ends) = batch(rows);
    apply(threshold, &closed(&rows, &ends), newest)
}

/// People are notified of; the rest is only shown.
fn apply(threshold: &mut Threshold, rows: &WindowRows<'_>, watermark: Option<i64>) -> Vec<Transition> {
    let mut transitions = threshold.apply(std::slice::from_ref(rows), watermark, StageTimes::default());
    transitions.retain(|transition| transition.status.is_told());
    transitions
}

pub(super) fn closed<'a>(rows: &'a RecordBatch, window_ends: &'a [i64]) -> WindowRows<'a> {
    WindowRows { rollup: "cpu_by_region", tier: "1m", rows, window_ends, corrected: false, withdrawn: None }
}

/// Transitions as `minute region status since minute`.
fn summary(transitions: &[Transition]) -> String {
    let parts = transitions.iter().map(|transition| {
        let region = transition.labels.get("region").map_or("-", String::as_str);
        let (end, since) = (transition.window_end / MINUTE, transition.starts_at / MINUTE);
        format!("{end} {region} {} since {since}", transition.status)
    });
    parts.collect::<Vec<_>>().join(", ")
}

#[test]
fn windows_to_transitions() {
    const HIGH: Option<f64> = Some(95.0);
    const LOW: Option<f64> = Some(50.0);
    let hold = |minutes: u64| RuleSpec { for_: Duration::from_secs(minutes * 60), ..spec() };
    let recovery = RuleSpec { recovery: Some("avg < 80".into()), ..spec() };
    let cases: Vec<(RuleSpec, &[Row], &str)> = vec![
        (spec(), &[], ""),
        (
            spec(),
            &[(1, "eu", LOW), (2, "eu", HIGH), (3, "eu", HIGH), (4, "eu", LOW)],
            "2 eu firing since 2, 4 eu resolved since 2",
        ),
        // Groups are apart, and one without a tag is one too.
        (
            spec(),
            &[(1, "eu", HIGH), (1, "us", LOW), (1, "", HIGH), (2, "eu", LOW), (2, "us", HIGH)],
            "1 eu firing since 1, 1 - firing since 1, 2 eu resolved since 1, 2 us firing since 2",
        ),
        // A group without rows, or without a value, stays as it is.
        (
            spec(),
            &[(1, "eu", HIGH), (2, "us", LOW), (3, "eu", None), (4, "eu", LOW)],
            "1 eu firing since 1, 4 eu resolved since 1",
        ),
        (hold(2), &[(1, "eu", HIGH), (2, "eu", HIGH), (3, "eu", HIGH)], "3 eu firing since 1"),
        (hold(2), &[(1, "eu", HIGH), (2, "eu", LOW), (3, "eu", HIGH), (4, "eu", HIGH)], ""),
        (hold(2), &[(1, "eu", HIGH), (2, "us", HIGH), (4, "eu", HIGH)], "4 eu firing since 1"),
        // Hysteresis.
        (
            recovery,
            &[(1, "eu", HIGH), (2, "eu", Some(85.0)), (3, "eu", HIGH), (4, "eu", Some(79.0))],
            "1 eu firing since 1, 4 eu resolved since 1",
        ),
        // Windows that were seen.
        (
            spec(),
            &[(2, "eu", HIGH), (2, "eu", LOW), (1, "eu", LOW), (1, "us", HIGH), (2, "us", HIGH)],
            "2 eu firing since 2, 2 us firing since 2",
        ),
        (
            spec(),
            &[(1, "eu", HIGH), (2, "eu", LOW), (2, "eu", HIGH), (1, "eu", HIGH)],
            "1 eu firing since 1, 2 eu resolved since 1",
        ),
    ];
    for (spec, rows, expected) in cases {
        // All at once, or a row at a time: only the order counts.
        let mut at_once = threshold(spec.clone());
        let transitions = evaluate(&mut at_once, rows);
        assert_eq!(summary(&transitions), expected, "rows {rows:?}");
        let mut one_by_one = threshold(spec);
        let mut again = Vec::new();
        for row in rows {
            again.extend(evaluate(&mut one_by_one, std::slice::from_ref(row)));
        }
        assert_eq!(again, transitions, "rows {rows:?}");
        assert_eq!(one_by_one.snapshot(), at_once.snapshot(), "rows {rows:?}");
        assert_eq!(at_once.take_failures(), []);
    }
}

#[test]
fn a_transition_is_complete() {
    let mut threshold = threshold(spec());
    let fired = evaluate(&mut threshold, &[(2, "eu", Some(95.25))]).remove(0);
    let resolved = evaluate(&mut threshold, &[(3, "eu", Some(10.0))]).remove(0);
    let expected = Transition {
        id: fired.id.clone(),
        rule: "cpu_high".into(),
        status: Status::Firing,
        severity: "page".into(),
        labels: BTreeMap::from([("region".into(), "eu".into()), ("team".into(), "core".into())]),
        summary: "eu firing".into(),
        description: "cpu_high 95.2 of 0.0 since 1970-01-01T00:02:00Z".into(),
        values: BTreeMap::from([("avg".into(), 95.25), ("points".into(), 0.0)]),
        starts_at: 2 * MINUTE,
        ends_at: None,
        window_start: MINUTE,
        window_end: 2 * MINUTE,
        receivers: vec!["ops".into()],
        ..fired.clone()
    };
    assert_eq!(fired, expected);
    assert_eq!((resolved.starts_at, resolved.ends_at), (2 * MINUTE, Some(3 * MINUTE)));
    assert_ne!(resolved.id, fired.id);
    let json = serde_json::to_string(&fired).unwrap();
    assert_eq!(serde_json::from_str::<Transition>(&json).unwrap(), fired);
}

#[test]
fn replays_from_any_snapshot_give_equal_transitions() {
    let spec = RuleSpec { for_: Duration::from_secs(60), recovery: Some("avg < 80".into()), ..spec() };
    let values = [95.0, 96.0, 85.0, 70.0, 99.0, 99.0, 50.0];
    let mut rows: Vec<Row> = Vec::new();
    for (minute, value) in (1..).zip(values) {
        rows.push((minute, "eu", Some(value)));
        rows.push((minute, "us", Some(180.0 - value)));
    }
    let mut whole = threshold(spec.clone());
    let expected = evaluate(&mut whole, &rows);
    assert_eq!(expected.len(), 5, "{}", summary(&expected));
    for cut in 0..=rows.len() {
        let mut before = threshold(spec.clone());
        let mut transitions = evaluate(&mut before, &rows[..cut]);
        let mut after = threshold(spec.clone());
        after.restore(&before.snapshot()).unwrap();
        assert_eq!((after.snapshot(), after.active()), (before.snapshot(), before.active()));
        // What was already evaluated may come again.
        transitions.extend(evaluate(&mut after, &rows[cut..]));
        assert_eq!(transitions, expected, "cut {cut}");
    }
}

#[test]
fn states_are_bounded_by_active_alerts() {
    let mut threshold = threshold(spec());
    for minute in 1..100 {
        evaluate(&mut threshold, &[(minute, "eu", Some(99.0)), (minute, "us", Some(10.0))]);
    }
    evaluate(&mut threshold, &[(200, "eu", Some(10.0)), (200, "us", Some(10.0))]);
    evaluate(&mut threshold, &[(220, "eu", Some(10.0))]);
    assert_eq!(threshold.active(), (0, 0));
    assert!(threshold.rules[0].groups.len() <= 1);
}

#[test]
fn snapshots_of_other_rules() {
    let mut source = threshold(spec());
    evaluate(&mut source, &[(1, "eu", Some(99.0))]);
    let snapshot = source.snapshot();
    // The condition changed, the rule is the same.
    let mut target = threshold(RuleSpec { watches: rows("avg > 50"), ..spec() });
    target.restore(&snapshot).unwrap();
    assert_eq!(target.active(), (0, 1));
    let mut target = threshold(RuleSpec { name: "other".into(), ..spec() });
    target.restore(&snapshot).unwrap();
    assert_eq!(target.active(), (0, 0));
    let other_tags = Shape { tags: vec![], ..shape() };
    let rule = RuleSpec { summary: String::new(), ..spec() };
    let mut target = Threshold::new(vec![compile_over(rule, &other_tags, &[]).unwrap()]);
    target.restore(&snapshot).unwrap();
    assert_eq!(target.active(), (0, 0));

    assert!(matches!(target.restore(b"{"), Err(SnapshotError::Damaged(_))));
    assert!(matches!(target.restore(br#"{"version":9,"rules":{}}"#), Err(SnapshotError::Version(9))));
}

#[test]
fn only_the_rollup_of_a_rule_is_evaluated() {
    let mut threshold = threshold(spec());
    let (rows, ends) = batch(&[(1, "eu", Some(99.0))]);
    let given = closed(&rows, &ends);
    assert_eq!(apply(&mut threshold, &WindowRows { rollup: "other", ..given }, None), []);
    assert_eq!(apply(&mut threshold, &WindowRows { tier: "1h", ..given }, None), []);
    assert_eq!(apply(&mut threshold, &given, None).len(), 1);
}

#[test]
fn a_row_that_cannot_be_evaluated_stops_no_other() {
    // The average is cast, and 1e30 is no integer.
    let condition = "CAST(avg AS BIGINT) > 90";
    let mut threshold = threshold(RuleSpec { watches: rows(condition), ..spec() });
    let transitions = evaluate(&mut threshold, &[(1, "eu", Some(1e30)), (1, "us", Some(99.0))]);
    assert_eq!(summary(&transitions), "1 us firing since 1");
    let failures = threshold.take_failures();
    assert_eq!((failures.len(), failures[0].rule.as_str()), (1, "cpu_high"));
    assert_eq!(threshold.take_failures(), []);

    let (rows, _) = batch(&[(1, "eu", Some(99.0))]);
    assert_eq!(apply(&mut threshold, &closed(&rows, &[]), None), []);
    let narrow = rows.project(&[0]).unwrap();
    assert_eq!(apply(&mut threshold, &closed(&narrow, &[MINUTE]), None), []);
    assert_eq!(threshold.take_failures().len(), 2);
}

#[test]
fn a_template_that_fails_swallows_no_alert() {
    // The template is right for some windows only.
    let description = "{{ values.Max|fixed(1) }}";
    let mut threshold = threshold(RuleSpec { description: description.into(), ..spec() });
    let transition = evaluate(&mut threshold, &[(1, "eu", Some(99.0))]).remove(0);
    assert_eq!(transition.summary, "eu firing");
    let text = &transition.description;
    assert!(
        text.starts_with(
            "cpu_high firing region=eu team=core avg=99 points=0 (the rule's description template failed: "
        ),
        "{text}"
    );
}

#[test]
fn rendered_texts_are_bounded() {
    let summary = "{{ 'ä' * 9999 }}";
    let mut threshold = threshold(RuleSpec { summary: summary.into(), ..spec() });
    let transition = evaluate(&mut threshold, &[(1, "eu", Some(99.0))]).remove(0);
    assert_eq!(transition.summary.len(), (16 << 10) + "…".len());
}

#[test]
fn mistakes_in_rules() {
    let condition = |condition: &str| RuleSpec { watches: rows(condition), ..spec() };
    let text = |summary: &str| RuleSpec { summary: summary.into(), ..spec() };
    // (rule, key, a part of the message)
    let cases: Vec<(RuleSpec, &str, &str)> = vec![
        (condition(""), "condition", "the expression is empty"),
        (condition("avgg > 90"), "condition", "there is no column `avgg`; did you mean `avg`?"),
        (condition("max > 90"), "condition", "there is no column `max`; write \"Max\", with double quotes"),
        (condition("temperature > 90"), "condition", "there are the columns `window_start`, `region`, `avg`"),
        (condition("region = eu"), "condition", "text is written in single quotes"),
        (condition("avg"), "condition", "compare it, for example `(avg) > 90`"),
        (condition("NULL"), "condition", "not true or false"),
        (condition("t.avg > 90"), "condition", "there is no column `t.avg`; did you mean `avg`?"),
        (condition("avg >"), "condition", ": Expected: an expression, found: EOF; write an SQL expression"),
        (condition("avg LIKE 'x'"), "condition", ": There isn't a common type"),
        (condition("avg > 90; DROP TABLE x"), "condition", "an SQL expression"),
        (condition("avgg(avg) > 90"), "condition", "nvalid function 'avgg'"),
        (
            condition("avg > random()"),
            "condition",
            "`random()` gives another answer when a window is replayed",
        ),
        (condition("window_start < now()"), "condition", "`now()` gives another answer"),
        (condition("avg > (SELECT 1)"), "condition", "a condition cannot hold a subquery"),
        (condition("sum(avg) > 90"), "condition", "`sum()` is an aggregate"),
        (condition("avg > $1"), "condition", "there are no parameters or variables"),
        (condition("avg > 'x'"), "condition", ": Cannot cast string 'x'"),
        (RuleSpec { recovery: Some("avgg < 1".into()), ..spec() }, "recovery", "there is no column `avgg`"),
        (RuleSpec { name: " ".into(), ..spec() }, "name", "the rule has no name"),
        (RuleSpec { for_: Duration::MAX, ..spec() }, "for", "292 years"),
        (
            RuleSpec { labels: BTreeMap::from([("region".into(), "x".into())]), ..spec() },
            "labels",
            "also a tag",
        ),
        (text("{{ labels.region"), "summary", "the template has a mistake in line 1"),
        (text("{{ labels.regoin }}"), "summary", "there is no label `regoin`; did you mean `region`?"),
        (text("{{ values.p95 }}"), "summary", "there is no value `p95`; there are `avg`, `points`, `Max`"),
        (text("{{ region }}"), "summary", "there is no variable `region`; write `labels.region`"),
        (text("{{ rule|shout }}"), "summary", "unknown filter"),
        (text("{{ values.avg|fixed }}"), "summary", "missing argument"),
        (text("{% for x in range(9) %}{% endfor %}"), "summary", "there is no variable `range`"),
        (text("{% include 'x' %}"), "summary", "there are no other templates"),
    ];
    for (spec, key, part) in cases {
        let error = compile(spec.clone()).expect_err(&format!("{spec:?}"));
        let message = error.to_string();
        assert_eq!(error.key, key, "{message}");
        assert!(message.starts_with(&format!("alert rule `{}`, key `{key}`: ", spec.name)), "{message}");
        assert!(message.contains(part), "{message}\nlacks {part}");
        assert!(!message.contains('\n') && !message.is_empty(), "{message}");
    }
}

#[test]
fn rules_that_compile() {
    for condition in [
        "avg > 90 AND points >= 10",
        "\"Max\" / avg > 2 OR avg IS NULL",
        "region IN ('eu', 'us') AND avg BETWEEN 90 AND 100",
        "abs(avg - 50) > 40",
        "CASE WHEN region = 'eu' THEN avg > 90 ELSE avg > 95 END",
        "window_start >= TIMESTAMP '2020-01-01T00:00:00'",
        "true",
    ] {
        compile(RuleSpec { watches: rows(condition), ..spec() }).unwrap();
    }
    for summary in [
        "",
        "plain",
        "{{ labels['region']|upper }} {{ values.avg|round(1) }} {{ values.avg|si }}",
        "{% for name, value in labels|items %}{{ name }}={{ value }} {% endfor %}",
        "{{ labels.team }} {{ severity }} {{ window_start }} {{ window_end }} {{ ends_at }}",
    ] {
        let mut threshold = threshold(RuleSpec { summary: summary.into(), ..spec() });
        let transition = evaluate(&mut threshold, &[(1, "eu", Some(99.0))]).remove(0);
        assert!(!transition.summary.contains("failed"), "{}", transition.summary);
    }
}
