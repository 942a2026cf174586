//! Names and texts of alerts: labels that must differ, templates that must end.

use super::complaint::Complaint;
use super::kinds_tests::{build, query};
use super::template::Templates;
use super::tests::{batch, closed, compile_over, schema, shape, spec, watched};
use super::*;
use alerts::Status;
use arrow::datatypes::Schema;
use std::sync::Arc;

/// A rollup with a tag of this name.
fn tagged(tag: &str) -> Watched {
    let given = schema();
    let fields = given.fields().iter().map(|field| match field.name().as_str() {
        "region" => field.as_ref().clone().with_name(tag),
        _ => field.as_ref().clone(),
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    Watched { schema, ..watched(shape()) }
}

fn refusal(spec: RuleSpec) -> String {
    compile_over(spec, &shape(), &[]).expect_err("it is refused").to_string()
}

#[test]
fn labels_that_two_alerts_could_share_are_refused() {
    for name in ["alertname", "severity", "no_data"] {
        let labels = BTreeMap::from([(name.to_owned(), "x".to_owned())]);
        assert!(refusal(RuleSpec { labels, ..spec() }).contains(&format!("has a label `{name}` of its own")));
        let error =
            Rule::compile(spec(), &|_| Some((tagged(name), "1m".into())), &[]).expect_err(name).to_string();
        assert!(error.contains(&format!("`{name}` is a tag of what the rule watches")), "{error}");
    }
    let labels = BTreeMap::from([("team".to_owned(), "{{ labels.region }}".to_owned())]);
    assert!(refusal(RuleSpec { labels, ..spec() }).contains("no template"));
}

#[test]
fn rows_of_a_query_that_would_be_one_alert_are_said() {
    let without = query("SELECT window_start, avg FROM cpu_by_region", "avg > 90");
    let mut threshold = build(&[RuleSpec { summary: "high".into(), ..without }]);
    let (rows, ends) = batch(&[(1, "eu", Some(95.0)), (1, "us", Some(10.0))]);
    threshold.apply(&[closed(&rows, &ends)], None, StageTimes::default());
    let failures = threshold.take_failures();
    assert!(failures[0].message.contains("several rows of one window are one alert"), "{failures:?}");
    // With the rows of one group alone the tag may be left out.
    let (rows, ends) = batch(&[(2, "eu", Some(95.0)), (3, "eu", Some(95.0))]);
    threshold.apply(&[closed(&rows, &ends)], None, StageTimes::default());
    assert_eq!(threshold.take_failures(), []);
}

#[test]
fn owner_and_runbook_are_templates() {
    let texts = RuleSpec {
        owner: Some("team-{{ labels.region }}".into()),
        runbook: Some("https://wiki.example/{{ rule }}?region={{ labels.region }}".into()),
        ..spec()
    };
    let mut threshold = Threshold::new(vec![compile_over(texts, &shape(), &[]).unwrap()]);
    let (rows, ends) = batch(&[(1, "eu", Some(95.0))]);
    let emitted = threshold.apply(&[closed(&rows, &ends)], None, StageTimes::default());
    assert_eq!(emitted[0].owner.as_deref(), Some("team-eu"));
    assert_eq!(emitted[0].runbook.as_deref(), Some("https://wiki.example/cpu_high?region=eu"));
    let misspelt = RuleSpec { runbook: Some("{{ labels.regoin }}".into()), ..spec() };
    assert!(refusal(misspelt).contains("key `runbook`"), "it is found when the rule is read");
}

#[test]
fn templates_end_soon_and_take_little_memory() {
    let doubling = format!("{{% set a = 'x' %}}{}{{{{ a|length }}}}", "{% set a = a ~ a %}".repeat(60));
    for template in [
        doubling.as_str(),
        "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
        "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ 'x' * 99999999 }}",
        "{{ ('x' * 5000)|replace('x', 'x' * 5000) }}",
        "{% for a in 'x' * 5000 %}{% for b in 'x' * 5000 %}{% for c in 'x' * 5000 %}{% endfor %}{% endfor %}{% endfor %}",
        "{{ 'x'|indent(1000000000) }}",
    ] {
        // Some can only be found when they are rendered: then they cost their text alone.
        let rule = compile_over(RuleSpec { description: template.into(), ..spec() }, &shape(), &[]);
        let Ok(rule) = rule else { continue };
        let mut threshold = Threshold::new(vec![rule]);
        let (rows, ends) = batch(&[(1, "eu", Some(95.0))]);
        let emitted = threshold.apply(&[closed(&rows, &ends)], None, StageTimes::default());
        assert!(emitted[0].description.len() < 20_000, "{template}");
        assert_eq!(emitted[0].status, Status::Firing);
    }
    let long: Result<_, (_, Complaint)> =
        Templates::compile(&RuleSpec { summary: "x".repeat(20_000), ..spec() }, &[], &[]);
    assert!(long.is_err());
}
