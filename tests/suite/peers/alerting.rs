//! How others fail at alerting. Each is tried on real servers too, in `real::alerting`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alerts::dispatch::{Dispatch, Dispatcher, Effect, Policy, ReceiverPolicy};
use alerts::{Cause, StageTimes, Status, Transition};
use libtest_mimic::Trial;
use operators::fold::{Applied, ResultKind};
use operators::threshold::{MissingData, Rule, RuleSpec, Threshold, Watched, Watches, WindowRows};
use sinks::email::{EmailConfig, EmailSink, Tls};
use sinks::webhook::{WebhookConfig, WebhookSink};
use sinks::{Alert, HttpConfig, Notification, Reason, Sink};
use tidemark_tests::hmac::hmac_sha256;
use tidemark_tests::http::Http;
use tidemark_tests::smtp::{Action, Security, Smtp};
use tokio::runtime::{Builder, Runtime};

use super::{SECOND, START, Source, Stream, points};

pub(super) fn trials() -> Vec<Trial> {
    let all: [(&str, fn()); 7] = [
        ("an_incident_that_came_and_went_while_its_receiver_was_away_is_told_once", away),
        ("a_restart_forgets_no_pending_alert_and_none_that_is_kept_firing", restarts),
        ("missing_data_are_not_taken_for_resolved_nor_late_data_for_missing", missing),
        ("a_recovery_threshold_keeps_an_alert_from_flapping", flapping),
        ("a_template_that_fails_swallows_no_alert", template),
        ("a_busy_receiver_says_when_to_come_back_and_a_bad_recipient_blocks_no_other", busy),
        ("a_webhook_is_signed_over_time_and_body", signed),
    ];
    let trial = |(name, body): (&str, fn())| {
        Trial::test(format!("peers::{name}"), move || {
            body();
            Ok(())
        })
    };
    all.into_iter().map(trial).collect()
}

/// A stream of points, and a rule over its windows of ten seconds.
struct Alerts {
    stream: Stream,
    spec: RuleSpec,
    threshold: Threshold,
}

impl Alerts {
    fn new(condition: &str, spec: RuleSpec) -> Self {
        let stream = Stream::new(1);
        let watches =
            Watches::Rows { rollup: "cpu".into(), tier: tier(&stream), condition: condition.to_owned() };
        let spec = RuleSpec {
            name: "High".into(),
            watches,
            summary: if spec.summary.is_empty() { "high".into() } else { spec.summary.clone() },
            receivers: vec!["hook".into()],
            ..spec
        };
        let threshold = rules(&stream, &spec);
        Self { stream, spec, threshold }
    }

    fn epoch(&mut self, sources: &[Source]) -> Vec<Transition> {
        let applied = self.stream.epoch(sources);
        self.judge(&applied)
    }

    fn judge(&mut self, applied: &Applied) -> Vec<Transition> {
        let tier = tier(&self.stream);
        let rows: Vec<WindowRows<'_>> = applied
            .results
            .iter()
            .map(|results| WindowRows {
                rollup: &results.rollup.name,
                tier: &tier,
                rows: &results.rows,
                window_ends: &results.window_ends,
                corrected: results.kind == ResultKind::Corrected,
                withdrawn: results.withdrawn.as_ref(),
            })
            .collect();
        let said = self.threshold.apply(&rows, self.stream.fold.watermark(), StageTimes::default());
        assert_eq!(self.threshold.take_failures(), []);
        said
    }

    /// A host's value in each window, the first is 1, an epoch each; the last one is closed.
    fn values(&mut self, host: &str, values: &[f64]) -> Vec<Transition> {
        let mut said = Vec::new();
        for (window, value) in (0..).zip(values) {
            said.extend(self.epoch(&[points(0, &[(host, window * 10 + 1, *value)])]));
        }
        let end = i64::try_from(values.len()).unwrap() * 10;
        said.extend(self.epoch(&[points(0, &[("clock", end, 0.0)])]));
        said
    }

    /// As a process that goes on from what the one before has kept.
    fn restart(&mut self) {
        self.stream.restart();
        let snapshot = self.threshold.snapshot();
        self.threshold = rules(&self.stream, &self.spec);
        self.threshold.restore(&snapshot).unwrap();
    }
}

fn tier(stream: &Stream) -> String {
    stream.catalog.rollups[0].tiers()[0].name.clone()
}

fn rules(stream: &Stream, spec: &RuleSpec) -> Threshold {
    let rollup = &stream.catalog.rollups[0];
    let tier = &rollup.tiers()[0];
    let watched = |name: &str| (name == rollup.name).then(|| (Watched::of(rollup, tier), tier.name.clone()));
    Threshold::new(vec![Rule::compile(spec.clone(), &watched, &[]).unwrap()])
}

/// `3 firing since 2`, windows by their numbers, with the cause where it is not the condition.
fn said(transitions: &[Transition]) -> String {
    let window = |time: i64| (time - START) / (10 * SECOND);
    let texts = transitions.iter().map(|transition| {
        let (at, since) = (window(transition.window_end), window(transition.starts_at));
        let absence = if transition.labels.contains_key("no_data") { "no_data " } else { "" };
        let cause = match transition.cause {
            Cause::Condition => String::new(),
            cause => format!(" ({})", cause.as_str()),
        };
        format!("{absence}{at} {} since {since}{cause}", transition.status)
    });
    texts.collect::<Vec<_>>().join(", ")
}

fn away() {
    let mut alerts = Alerts::new("avg > 90", RuleSpec::default());
    let transitions = alerts.values("a", &[95.0, 50.0]);
    assert_eq!(said(&transitions), "1 firing since 1, 2 resolved since 1");
    let receivers = BTreeMap::from([("hook".to_owned(), ReceiverPolicy { send_resolved: true })]);
    let mut dispatcher = Dispatcher::new(Policy { receivers, ..Policy::default() });
    let mut told: Vec<Dispatch> = Vec::new();
    for (now, transition) in (1..).zip(&transitions) {
        dispatcher.transition(transition, now);
        if let Some(Dispatch { id, .. }) = told.first() {
            dispatcher.failed(id, "connection refused", false, now);
        }
        for effect in dispatcher.take_effects() {
            match effect {
                Effect::Send(dispatch) => told.push(dispatch),
                Effect::Replaced { old, by } => {
                    told.retain(|dispatch| dispatch.id != old);
                    told.push(by);
                }
                Effect::Log(_) => {}
            }
        }
    }
    // It is back: there is one thing to say, that it is over, and since when.
    let [dispatch] = told.as_slice() else { panic!("{told:#?}") };
    let [alert] = dispatch.alerts.as_slice() else { panic!("{dispatch:#?}") };
    assert_eq!(alert.transition.status, Status::Resolved);
    let ids: Vec<&String> = transitions.iter().map(|transition| &transition.id).collect();
    assert_eq!(alert.transitions.iter().collect::<Vec<_>>(), ids);
    assert!(dispatch.notes[0].starts_with("sent late, the receiver was away"), "{:?}", dispatch.notes);
    dispatcher.sent(&dispatch.id, 10);
    let further = dispatcher.take_effects();
    assert!(further.iter().all(|effect| matches!(effect, Effect::Log(_))), "{further:#?}");
}

fn restarts() {
    let values = [50.0, 95.0, 95.0, 95.0, 50.0, 50.0, 50.0];
    let seconds = Duration::from_secs;
    for (spec, expected) in [
        (
            RuleSpec { for_: seconds(20), ..RuleSpec::default() },
            "2 pending since 2, 4 firing since 2, 5 resolved since 2",
        ),
        (
            RuleSpec { keep_firing_for: seconds(20), ..RuleSpec::default() },
            "2 firing since 2, 7 resolved since 2",
        ),
    ] {
        let mut calm = Alerts::new("avg > 90", spec.clone());
        let calm = calm.values("a", &values);
        assert_eq!(said(&calm), expected);
        let mut restarted = Alerts::new("avg > 90", spec);
        let mut found = Vec::new();
        for (window, value) in (0..).zip(values) {
            found.extend(restarted.epoch(&[points(0, &[("a", window * 10 + 1, value)])]));
            restarted.restart();
        }
        found.extend(restarted.epoch(&[points(0, &[("clock", 70, 0.0)])]));
        assert_eq!(found, calm, "ids and times too");
    }
}

fn missing() {
    let rule = |missing_data| RuleSpec { missing_data, ..RuleSpec::default() };
    // The one host is silent, and others go on: the alert stays as it is.
    let mut kept = Alerts::new("avg > 90", rule(MissingData::Keep));
    assert_eq!(said(&kept.values("a", &[95.0])), "1 firing since 1");
    assert_eq!(said(&kept.epoch(&[points(0, &[("b", 500, 1.0)])])), "");
    // Nobody reads: no window closes, so none is missing, even where missing data would end the
    // alert.
    let mut stalled = Alerts::new("avg > 90", rule(MissingData::Ok));
    assert_eq!(said(&stalled.values("a", &[95.0])), "1 firing since 1");
    let unread = Source { silent: 3_600, ..Source::default() };
    assert_eq!(said(&stalled.epoch(&[unread.clone(), unread])), "");
    // The data were late, not missing: what was said is taken back, and says why.
    let mut late = Alerts::new("avg > 90", rule(MissingData::NoData));
    let mut transitions = late.values("a", &[50.0]);
    transitions.extend(late.epoch(&[points(0, &[("clock", 20, 0.0)])]));
    transitions.extend(late.epoch(&[points(0, &[("a", 11, 50.0)])]));
    transitions.retain(|transition| transition.labels["host"] == "a");
    assert_eq!(
        said(&transitions),
        "no_data 2 firing since 2 (no_data), no_data 2 resolved since 2 (correction)"
    );
}

fn flapping() {
    let values = [95.0, 85.0, 91.0, 85.0, 92.0, 75.0];
    let mut without = Alerts::new("avg > 90", RuleSpec::default());
    assert_eq!(without.values("a", &values).len(), 6);
    let recovery = RuleSpec { recovery: Some("avg < 80".into()), ..RuleSpec::default() };
    let mut with = Alerts::new("avg > 90", recovery);
    assert_eq!(said(&with.values("a", &values)), "1 firing since 1, 6 resolved since 1");
}

fn template() {
    // Nothing is wrong with it until a host's name is no number.
    let spec = RuleSpec { summary: "number {{ labels.host|int }}".into(), ..RuleSpec::default() };
    let mut alerts = Alerts::new("avg > 90", spec);
    let transitions = alerts.values("a", &[95.0]);
    assert_eq!(said(&transitions), "1 firing since 1");
    let summary = &transitions[0].summary;
    assert!(
        summary.starts_with("High firing host=a avg=95") && summary.contains("template failed"),
        "{summary}"
    );
    // It is text, and what it is about is in the labels all the same.
    assert_eq!(transitions[0].labels, BTreeMap::from([("host".to_owned(), "a".to_owned())]));
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

pub(crate) fn notification() -> Arc<Notification> {
    let alert = Alert {
        transitions: vec![],
        incident: String::new(),
        status: sinks::Status::Firing,
        rule: "High".to_owned(),
        severity: String::new(),
        labels: BTreeMap::new(),
        summary: String::new(),
        description: String::new(),
        values: BTreeMap::new(),
        starts_at: START,
        ends_at: None,
        window_start: START,
        window_end: START,
        cause: "condition".to_owned(),
        provisional: false,
        owner: None,
        runbook: None,
        generator_url: None,
        sample: None,
        ingested: None,
        evaluated: None,
    };
    Arc::new(Notification {
        external_url: None,
        id: "n1".to_owned(),
        receiver: "hook".to_owned(),
        group_key: "{}:{}".to_owned(),
        group_labels: BTreeMap::new(),
        alerts: vec![alert],
        reason: Reason::Changed,
        notes: vec![],
    })
}

const PATIENCE: Duration = Duration::from_secs(60);

fn webhook(http: &Http, key: &str) -> WebhookSink {
    let config = HttpConfig { allow_private: true, ..HttpConfig::new(http.url().parse().unwrap(), PATIENCE) };
    WebhookSink::new(WebhookConfig { http: config, signing_key: Some(key.to_owned().into()) }).unwrap()
}

fn busy() {
    let http = Http::start();
    http.answer(429, &[("retry-after", "7")]);
    let sink = webhook(&http, "key");
    let error = runtime().block_on(sink.write(notification())).unwrap_err();
    assert!(error.retryable(), "{error}");
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));

    let smtp = Smtp::start(Security::StartTls);
    smtp.script("RCPT TO:<gone@", usize::MAX, Action::Reply("550 5.1.1 no such user".to_owned()));
    let config = EmailConfig {
        host: "127.0.0.1".to_owned(),
        port: smtp.port(),
        tls: Tls::StartTls,
        username: None,
        password: None,
        from: "tidemark@example.org".to_owned(),
        to: vec!["gone@example.org".to_owned(), "here@example.org".to_owned()],
        timeout: PATIENCE,
        ca_file: Some(smtp.ca_pem()),
        subject_prefix: String::new(),
    };
    // Its pool of connections is made, and dropped, on the runtime.
    let written = async { EmailSink::new(&config).unwrap().write(notification()).await };
    let error = runtime().block_on(written).unwrap_err();
    assert!(error.to_string().contains("gone@example.org") && !error.retryable(), "{error}");
    let to: Vec<String> = smtp.deliveries().into_iter().flat_map(|delivery| delivery.to).collect();
    assert_eq!(to, ["here@example.org"]);
}

fn signed() {
    let http = Http::start();
    runtime().block_on(webhook(&http, "a key").write(notification())).unwrap();
    let [request] = http.requests().try_into().unwrap();
    let timestamp = request.headers["x-tidemark-timestamp"].clone();
    let of =
        |key: &str, body: &[u8]| hmac_sha256(key.as_bytes(), &[timestamp.as_bytes(), b":", body].concat());
    let signature = &request.headers["x-tidemark-signature"];
    assert_eq!(*signature, of("a key", &request.body));
    for other in [of("another key", &request.body), of("a key", &[&request.body[..], b" "].concat())] {
        assert_ne!(*signature, other);
    }
}
