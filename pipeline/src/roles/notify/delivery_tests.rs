//! Dispatches to receivers that are well, away, slow, or refuse. Time is set by the tests.

use std::thread;
use std::time::Instant;

use alerts::dispatch::{DispatchAlert, Reason};
use tokio::runtime::Runtime;

use super::*;
use crate::roles::notify::message::tests::transition;
use crate::roles::notify::sink_fake::{Answer, FakeSink};

/// Ends a test that has failed.
const LIMIT: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn dispatch(id: &str, receiver: &str) -> Dispatch {
    Dispatch {
        id: id.to_owned(),
        receiver: receiver.to_owned(),
        group: id.to_owned(),
        group_labels: BTreeMap::new(),
        reason: Reason::Changed,
        alerts: vec![DispatchAlert {
            transition: transition(id, "a", &[]),
            transitions: vec![id.to_owned()],
        }],
        notes: Vec::new(),
        made_at: 0,
    }
}

struct Bench {
    deliveries: Deliveries,
    sink: Arc<FakeSink>,
    _runtime: Runtime,
}

impl Bench {
    /// Receivers over one sink, each with its fallback.
    fn new(receivers: &[(&str, Option<&str>)]) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let sink = FakeSink::new();
        let receivers: Vec<Receiver> = receivers
            .iter()
            .map(|(name, fallback)| Receiver { fallback: fallback.map(Into::into), ..sink.receiver(name) })
            .collect();
        let retry = Retry { min: SECOND, max: 2 * SECOND, total: 10 * SECOND };
        let deliveries = Deliveries::new(runtime.handle(), &receivers, retry, None);
        Self { deliveries, sink, _runtime: runtime }
    }

    /// Waits for reports, with the clock at `now`.
    fn reports(&mut self, now: Duration, count: usize) -> Vec<(String, String, Report)> {
        let started = Instant::now();
        let mut reports = Vec::new();
        while reports.len() < count {
            assert!(started.elapsed() < LIMIT, "{count} reports expected, there are {reports:?}");
            let new = self.deliveries.advance(now).into_iter();
            reports.extend(new.map(|(id, receiver, report)| (id, receiver.to_string(), report)));
            thread::park_timeout(Duration::from_millis(2));
        }
        reports
    }
}

#[test]
fn what_fails_in_passing_is_tried_again_after_a_pause() {
    let mut bench = Bench::new(&[("hook", None)]);
    bench.sink.answer("a", [Answer::Busy]);
    assert!(bench.deliveries.submit(&dispatch("a", "hook"), None, Duration::ZERO));
    let reports = bench.reports(Duration::ZERO, 1);
    assert!(matches!(&reports[0].2, Report::Failed { doubtful: false, .. }), "{reports:?}");
    assert_eq!(bench.deliveries.unsettled(), 1);
    // Too early.
    assert_eq!(bench.deliveries.advance(SECOND / 2), []);
    assert_eq!(bench.sink.attempts().len(), 1);
    let reports = bench.reports(3 * SECOND, 1);
    assert!(matches!(&reports[0].2, Report::Delivered(_)), "{reports:?}");
    assert_eq!((bench.sink.attempts().len(), bench.deliveries.unsettled()), (2, 0));
}

#[test]
fn what_is_in_its_place_is_sent_instead() {
    let mut bench = Bench::new(&[("hook", None)]);
    bench.sink.answer("a", [Answer::Busy]);
    bench.deliveries.submit(&dispatch("a", "hook"), None, Duration::ZERO);
    bench.reports(Duration::ZERO, 1);
    assert!(bench.deliveries.replace("a", &dispatch("b", "hook"), None, Duration::ZERO));
    assert_eq!(bench.deliveries.advance(SECOND / 2), [], "the pause is that of the one before");
    bench.reports(10 * SECOND, 1);
    assert_eq!((bench.sink.attempts(), bench.sink.taken()), (vec!["a".into(), "b".into()], vec!["b".into()]));
}

#[test]
fn the_fallback_is_told_what_fails_for_good() {
    let mut bench = Bench::new(&[("first", Some("second")), ("second", Some("third")), ("third", None)]);
    bench.sink.answer("a", [Answer::Refused, Answer::Refused]);
    bench.deliveries.submit(&dispatch("a", "first"), None, Duration::ZERO);
    let reports = bench.reports(Duration::ZERO, 1);
    let (id, receiver, report) = &reports[0];
    assert_eq!((id.as_str(), receiver.as_str()), ("a", "third"));
    let Report::GaveUp { reason, told_by_fallback: Some(notified) } = report else { panic!("{report:?}") };
    assert!(notified == "third" && reason.contains("; second: "), "{report:?}");
    // Nobody is left.
    bench.sink.answer("b", [Answer::Refused]);
    bench.deliveries.submit(&dispatch("b", "third"), None, Duration::ZERO);
    let reports = bench.reports(Duration::ZERO, 1);
    assert!(matches!(&reports[0].2, Report::GaveUp { told_by_fallback: None, .. }), "{reports:?}");
}

#[test]
fn an_hour_is_enough() {
    let mut bench = Bench::new(&[("hook", None)]);
    bench.sink.answer("a", [Answer::Busy, Answer::Busy]);
    bench.deliveries.submit(&dispatch("a", "hook"), None, Duration::ZERO);
    bench.reports(Duration::ZERO, 1);
    let reports = bench.reports(11 * SECOND, 1);
    assert!(matches!(&reports[0].2, Report::GaveUp { .. }), "{reports:?}");
}

#[test]
fn a_slow_or_panicking_receiver_delays_no_other() {
    let mut bench = Bench::new(&[("slow", None), ("hook", None)]);
    for number in 0..20 {
        bench.sink.answer(&format!("slow{number}"), [Answer::Never]);
        bench.deliveries.submit(&dispatch(&format!("slow{number}"), "slow"), None, Duration::ZERO);
    }
    bench.sink.answer("panic", [Answer::Panic]);
    bench.deliveries.submit(&dispatch("panic", "hook"), None, Duration::ZERO);
    bench.deliveries.submit(&dispatch("a", "hook"), None, Duration::ZERO);
    let mut ids: Vec<_> = bench.reports(Duration::ZERO, 2).into_iter().map(|report| report.0).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["a", "panic"]);
    assert_eq!(bench.deliveries.unsettled(), 20);
    // What is under way at the end is broken off, and left to the next owner.
    assert_eq!(bench.deliveries.stop(Duration::ZERO, Duration::ZERO), []);
    assert_eq!(bench.deliveries.unsettled(), 0);
}

#[test]
fn a_receiver_that_is_not_there_is_said_so() {
    let mut bench = Bench::new(&[]);
    assert!(!bench.deliveries.submit(&dispatch("a", "hook"), None, Duration::ZERO));
}

#[test]
fn a_receiver_may_ask_for_a_longer_pause() {
    let retry = Retry { min: SECOND, max: 2 * SECOND, total: 100 * SECOND };
    let busy = |retry_after: Option<u64>| sinks::Error::Unavailable {
        place: "hook".into(),
        reason: "busy".into(),
        doubtful: false,
        retry_after: retry_after.map(Duration::from_secs),
    };
    for (asked, elapsed, expected) in
        [(None, 0, Some(1)), (Some(30), 0, Some(30)), (Some(300), 10, Some(90)), (None, 100, None)]
    {
        let wait = retry.wait(&busy(asked), SECOND, SECOND * elapsed);
        assert_eq!(wait, expected.map(Duration::from_secs), "asked for {asked:?} after {elapsed} s");
    }
}
