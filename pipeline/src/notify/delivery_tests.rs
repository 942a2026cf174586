use std::iter::repeat_n;

use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use super::*;
use crate::notify::message::notification;
use crate::notify::message::tests::transition;
use crate::notify::sink_fake::{Answer, FakeSink};

const LONG: Duration = Duration::from_secs(30);

struct Bench {
    runtime: Runtime,
    metrics: Arc<Metrics>,
    deliveries: Deliveries,
}

impl Bench {
    /// `min` is the first pause between attempts.
    fn start(receivers: &[Receiver], min: Duration, total: Duration) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let metrics = Arc::new(Metrics::new());
        let retry = Retry { min, max: 4 * min, total };
        let deliveries = Deliveries::start(runtime.handle(), &metrics, receivers, retry);
        Self { runtime, metrics, deliveries }
    }

    /// Submits jobs of `receiver` at offsets from 0: ids, and the hosts their alerts are about.
    fn submit(&self, receiver: &str, jobs: &[(&str, &str)]) {
        for (offset, (id, host)) in (0..).zip(jobs) {
            let notification = notification(&transition(id, host, &[receiver]), receiver);
            self.deliveries.submit(receiver, Job { partition: 0, offset, notification }).expect("a task");
        }
    }

    /// Waits until `what` is true; the bound only ends a test that has failed.
    fn wait_until(&self, mut what: impl FnMut() -> bool) {
        self.runtime.block_on(async {
            let waiting = async {
                while !what() {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            timeout(LONG, waiting).await.expect("it happens before long");
        });
    }

    /// Waits for `count` settled jobs, as receiver and offset in order of offset.
    fn settled(&self, count: usize) -> Vec<(String, i64)> {
        let mut settled = Vec::new();
        self.wait_until(|| {
            settled.extend(self.deliveries.settled().expect("the tasks live"));
            settled.len() >= count
        });
        shown(settled)
    }

    fn counted(&self, receiver: &str, result: &'static str) -> u64 {
        let labels = DeliveryLabels { receiver: receiver.to_owned(), result };
        self.metrics.notify.deliveries.get_or_create(&labels).get()
    }
}

fn shown(settled: Vec<Settled>) -> Vec<(String, i64)> {
    let mut shown: Vec<_> =
        settled.into_iter().map(|settled| (settled.receiver.to_string(), settled.offset)).collect();
    shown.sort_by_key(|(_, offset)| *offset);
    shown
}

fn quick(receivers: &[Receiver]) -> Bench {
    Bench::start(receivers, Duration::from_millis(1), LONG)
}

#[test]
fn a_failure_is_tried_again_or_given_up() {
    let long = Duration::from_secs(3600);
    for (answers, total, attempts, [delivered, retried, failed]) in [
        (vec![], long, 1, [1, 0, 0]),
        (vec![Answer::Busy; 3], long, 4, [1, 3, 0]),
        (vec![Answer::Refused], long, 1, [0, 0, 1]),
        (vec![Answer::Busy, Answer::Refused], long, 2, [0, 1, 1]),
        (vec![Answer::Busy], Duration::ZERO, 1, [0, 0, 1]),
    ] {
        let sink = FakeSink::new();
        sink.answer("i", answers.clone());
        let bench = Bench::start(&[sink.receiver("r")], Duration::from_millis(1), total);
        bench.submit("r", &[("i", "a")]);
        assert_eq!(bench.settled(1), [("r".to_owned(), 0)], "{answers:?}");
        assert_eq!(sink.attempts().len(), attempts, "{answers:?}");
        let counted = ["delivered", "retried", "failed"].map(|result| bench.counted("r", result));
        assert_eq!(counted, [delivered, retried, failed], "{answers:?}");
    }
}

#[test]
fn one_alert_is_told_in_order() {
    let sink = FakeSink::new();
    sink.answer("1", repeat_n(Answer::Busy, 5));
    sink.answer("2", [Answer::Refused]);
    sink.answer("3", [Answer::Busy]);
    let bench = quick(&[sink.receiver("r")]);
    bench.submit("r", &[("1", "a"), ("2", "a"), ("3", "a"), ("4", "a")]);
    assert_eq!(bench.settled(4).len(), 4);
    assert_eq!(sink.taken(), ["1", "3", "4"]);
    assert_eq!(sink.attempts(), ["1", "1", "1", "1", "1", "1", "2", "3", "3", "4"]);
}

#[test]
fn a_stuck_alert_holds_up_no_other_and_a_stuck_receiver_no_other() {
    let (stuck, well) = (FakeSink::new(), FakeSink::new());
    stuck.answer("1", [Answer::Never]);
    let bench = quick(&[stuck.receiver("stuck"), well.receiver("well")]);
    bench.submit("stuck", &[("1", "a"), ("2", "a"), ("3", "b")]);
    assert_eq!(bench.settled(1), [("stuck".to_owned(), 2)]);
    for id in ["4", "5", "6", "7"] {
        stuck.answer(id, [Answer::Never]);
    }
    bench.submit("stuck", &[("4", "d"), ("5", "e"), ("6", "f"), ("7", "g")]);
    bench.submit("well", &[("1", "a"), ("2", "a")]);
    assert_eq!(bench.settled(2), [("well".to_owned(), 0), ("well".to_owned(), 1)]);
    // At most so many are under way.
    bench.wait_until(|| stuck.attempts().len() == 1 + PARALLEL);
    assert!(!stuck.attempts().contains(&"7".to_owned()));
}

#[test]
fn stopping_waits_for_what_is_under_way_and_starts_nothing() {
    let sink = FakeSink::new();
    let permits = Arc::new(Semaphore::new(0));
    sink.answer("1", [Answer::When(Arc::clone(&permits))]);
    let bench = quick(&[sink.receiver("r")]);
    bench.submit("r", &[("1", "a"), ("2", "a")]);
    bench.wait_until(|| !sink.attempts().is_empty());
    let stop = bench.deliveries.stop.clone();
    bench.runtime.spawn(async move {
        stop.triggered().await;
        permits.add_permits(1);
    });
    assert_eq!(shown(bench.deliveries.stop(LONG)), [("r".to_owned(), 0)]);
    assert_eq!(sink.attempts(), ["1"]);
}

#[test]
fn stopping_ends_pauses_and_breaks_off_what_takes_too_long() {
    let sink = FakeSink::new();
    sink.answer("1", [Answer::Busy]);
    sink.answer("2", [Answer::Never]);
    let bench = Bench::start(&[sink.receiver("r")], Duration::from_secs(600), Duration::from_secs(3600));
    bench.submit("r", &[("1", "a"), ("2", "b")]);
    bench.wait_until(|| sink.attempts().len() == 2);
    assert_eq!(bench.deliveries.stop(Duration::ZERO), []);
    assert_eq!(sink.taken(), [""; 0]);
}

#[test]
fn a_task_that_is_gone_is_noticed() {
    let sink = FakeSink::new();
    sink.answer("1", [Answer::Panic]);
    let bench = quick(&[sink.receiver("r")]);
    bench.submit("r", &[("1", "a")]);
    bench.wait_until(|| bench.deliveries.settled().is_err());
    let notification = notification(&transition("2", "a", &["r"]), "r");
    assert!(bench.deliveries.submit("r", Job { partition: 0, offset: 1, notification }).is_err());
    assert!(bench.deliveries.stop(LONG).is_empty());
}

#[test]
fn pauses_grow_and_stay_below_the_longest() {
    let pauses: Vec<Duration> = Retry::default().pauses().take(20).collect();
    assert!(pauses[0] >= Duration::from_secs(1) && pauses[0] <= Duration::from_secs(2), "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(30)), "{pauses:?}");
    assert!(pauses[10..].iter().all(|pause| *pause >= Duration::from_secs(15)), "{pauses:?}");
}

#[test]
fn a_receiver_gets_the_pause_it_asks_for_within_the_time_that_is_left() {
    let retry =
        Retry { min: Duration::from_secs(1), max: Duration::from_secs(30), total: Duration::from_secs(100) };
    let busy = |asked: Option<u64>| sinks::Error::Unavailable {
        place: "r".to_owned(),
        reason: "busy".to_owned(),
        doubtful: false,
        retry_after: asked.map(Duration::from_secs),
    };
    let refused = sinks::Error::Refused { place: "r".to_owned(), status: 400, message: "no".to_owned() };
    for (error, pause, elapsed, expected) in [
        (busy(None), 5, 0, Some(5)),
        (busy(Some(2)), 5, 0, Some(5)),
        (busy(Some(60)), 5, 0, Some(60)),
        (busy(Some(3600)), 5, 40, Some(60)),
        (busy(Some(3600)), 5, 95, Some(5)),
        (busy(Some(3600)), 5, 96, None),
        (busy(None), 5, 101, None),
        (refused, 5, 0, None),
    ] {
        let wait = retry.wait(&error, Duration::from_secs(pause), Duration::from_secs(elapsed));
        assert_eq!(wait, expected.map(Duration::from_secs), "{error} {pause} {elapsed}");
    }
}
