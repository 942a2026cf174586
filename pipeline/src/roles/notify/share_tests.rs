//! Sessions of the role on librdkafka's mock cluster, which takes transactions and rolls none back:
//! what survives a kill is shown on real Kafka.

use std::path::Path;
use std::thread;
use std::time::Instant;

use alerts::dispatch::{Entry, Silence, What};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use tokio::runtime::Runtime;

use super::*;
use crate::config::Config;
use crate::kafka;
use crate::kafka::state_topic::Reader;
use crate::kafka::topics;
use crate::roles::notify::message::tests::transition;
use crate::roles::notify::session;
use crate::roles::notify::sink_fake::{Answer, FakeSink};

/// Ends a test that has failed.
const LIMIT: Duration = Duration::from_secs(60);

struct Bench {
    context: Context,
    alerts: AlertsConfig,
    /// For the deliveries; ends with the test.
    _runtime: Runtime,
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl Bench {
    fn new(receivers: &[&str]) -> Self {
        let cluster = MockCluster::new(1).expect("mock cluster");
        let config = Config::local(&cluster.bootstrap_servers(), Path::new("/tmp"));
        for plan in topics::plan(&config.topics, 1) {
            cluster.create_topic(&plan.name, plan.partitions, 1).expect("mock topic");
        }
        let runtime = Runtime::new().expect("a runtime");
        let catalog = Arc::new(operators::sql::compile(&[]));
        let context = Context::new(config, catalog, runtime.handle().clone());
        let mut alerts = AlertsConfig::default();
        let known = receivers
            .iter()
            .map(|name| ((*name).to_owned(), alerts::dispatch::ReceiverPolicy { send_resolved: true }));
        alerts.policy.receivers = known.collect();
        Self { context, alerts, _runtime: runtime, cluster }
    }

    fn produce(&self, topic: &str, records: &[(&str, Vec<u8>)]) {
        let producer =
            kafka::producer(&self.context.config.kafka, DefaultProducerContext).expect("a producer");
        for (key, payload) in records {
            let record = BaseRecord::<str, [u8]>::to(topic).key(key).payload(payload);
            producer.send(record).map_err(|(error, _)| error).expect("room in the queue");
        }
        producer.flush(LIMIT).expect("the broker takes messages");
    }

    /// The next process.
    fn restarted(mut self) -> Self {
        let config = Config::local(&self.cluster.bootstrap_servers(), Path::new("/tmp"));
        let catalog = Arc::new(operators::sql::compile(&[]));
        self.context = Context::new(config, catalog, self._runtime.handle().clone());
        self
    }

    /// Transitions, and the states of alerts as `rollup` keeps them.
    fn announce(&self, records: &[(&str, Vec<u8>)]) {
        let topics = &self.context.config.topics;
        self.produce(&topics.alerts, records);
        self.produce(&topics.alert_states(), records);
    }

    /// Runs a session until `done`, then shuts it down.
    fn run(&self, receivers: &[Receiver], mut done: impl FnMut() -> bool) {
        let retry = Retry { min: Duration::from_millis(10), max: Duration::from_millis(20), total: LIMIT };
        let (context, alerts) = (&self.context, &self.alerts);
        thread::scope(|scope| {
            let role = scope.spawn(|| session::run(context, alerts, receivers, retry, || true));
            let started = Instant::now();
            while !done() && started.elapsed() < LIMIT && !role.is_finished() {
                thread::park_timeout(Duration::from_millis(10));
            }
            context.shutdown.trigger();
            role.join().expect("no panic").expect("a clean end");
        });
        assert!(done(), "not done within {LIMIT:?}");
    }

    fn ledger(&self) -> Vec<Entry> {
        let config = &self.context.config;
        let mut entries = Vec::new();
        Reader::new(&config.kafka, &config.topics.alert_log(), None)
            .expect("the topic is there")
            .read_to_end(|record| {
                let value = record.value.expect("an entry");
                entries.push(serde_json::from_slice(&value).expect("an entry"));
            })
            .expect("the broker answers");
        entries
    }
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("JSON")
}

#[test]
fn transitions_are_told_to_their_receivers_and_recorded() {
    let bench = Bench::new(&["mail", "hook"]);
    let (mail, hook) = (FakeSink::new(), FakeSink::new());
    bench.announce(&[
        ("a", json(&transition("1", "a", &["mail", "hook"]))),
        ("b", b"no transition".to_vec()),
        ("c", json(&transition("2", "c", &["hook", "nobody"]))),
        // As `rollup` does after it went on from a snapshot.
        ("a", json(&transition("1", "a", &["mail", "hook"]))),
    ]);
    bench.run(&[mail.receiver("mail"), hook.receiver("hook")], || {
        mail.taken().len() == 1 && hook.taken().len() == 2
    });
    let entries = bench.ledger();
    let count = |what: What| entries.iter().filter(|entry| entry.what == what).count();
    assert_eq!(
        (count(What::Received), count(What::Dispatched), count(What::Delivered)),
        (2, 3, 3),
        "{entries:#?}"
    );
    let results = &bench.context.metrics.notify.deliveries;
    let delivered = DeliveryLabels { receiver: "hook".to_owned(), result: "delivered" };
    assert_eq!(results.get_or_create(&delivered).get(), 2);
    let unreadable = DeliveryLabels { receiver: String::new(), result: "unreadable" };
    assert_eq!(results.get_or_create(&unreadable).get(), 1);
}

#[test]
fn a_silence_from_before_the_start_holds() {
    let bench = Bench::new(&["hook"]);
    let hook = FakeSink::new();
    let now = bench.context.clock.now_ns();
    let silence = Command::Silence(Silence {
        id: "s1".to_owned(),
        matchers: vec![alerts::dispatch::Matcher::parse("host=\"a\"").expect("a matcher")],
        starts_at: now - 1,
        ends_at: now + 3_600_000_000_000,
        created_by: "test".to_owned(),
        comment: String::new(),
        created_at: now,
    });
    let topics = &bench.context.config.topics;
    bench.produce(&topics.alert_commands(), &[("silence/s1", json(&silence))]);
    bench.announce(&[
        ("a", json(&transition("1", "a", &["hook"]))),
        ("b", json(&transition("2", "b", &["hook"]))),
    ]);
    bench.run(&[hook.receiver("hook")], || hook.taken().len() == 1);
    let silenced: Vec<Entry> =
        bench.ledger().into_iter().filter(|entry| entry.what == What::Silenced).collect();
    assert_eq!(silenced.len(), 1, "{silenced:#?}");
    assert_eq!((silenced[0].transition.as_deref(), silenced[0].by.as_deref()), (Some("1"), Some("s1")));
}

#[test]
fn a_receiver_that_is_busy_is_told_later_and_holds_up_no_other() {
    let bench = Bench::new(&["busy", "hook"]);
    let (busy, hook) = (FakeSink::new(), FakeSink::new());
    busy.answer_all([Answer::Busy, Answer::Busy]);
    bench.announce(&[("a", json(&transition("1", "a", &["busy", "hook"])))]);
    bench.run(&[busy.receiver("busy"), hook.receiver("hook")], || {
        busy.taken().len() == 1 && hook.taken().len() == 1
    });
    assert_eq!(busy.attempts().len(), 3);
    let ids: std::collections::BTreeSet<String> = busy.attempts().into_iter().collect();
    assert_eq!(ids.len(), 1, "each attempt has the same key");
}

/// A group that was renamed, or whose offset has expired, or a topic that was made again.
#[test]
fn without_a_committed_offset_what_the_ledger_knows_is_not_sent_again() {
    let bench = Bench::new(&["hook"]);
    let hook = FakeSink::new();
    let topics = &bench.context.config.topics;
    let of = |id: &str, host: &str| json(&transition(id, host, &["hook"]));
    bench.produce(
        &topics.alerts,
        &[("over", of("1", "over")), ("known", of("2", "known")), ("new", of("3", "new"))],
    );
    bench.produce(&topics.alert_states(), &[("known", of("2", "known")), ("new", of("3", "new"))]);
    let notified = Entry {
        at: 1,
        transition: Some("2".to_owned()),
        dispatch: None,
        rule: "cpu_high".to_owned(),
        labels: [("host".to_owned(), "known".to_owned())].into(),
        incident: "incident of known".to_owned(),
        what: What::Received,
        receiver: None,
        by: None,
        reason: None,
    };
    bench.produce(&topics.alert_log(), &[("2", json(&notified))]);
    bench.run(&[hook.receiver("hook")], || hook.taken().len() == 2);
    let taken_in: Vec<Option<String>> = bench
        .ledger()
        .into_iter()
        .filter(|entry| entry.what == What::Received)
        .map(|entry| entry.transition)
        .collect();
    let expected = ["2", "1", "3"].map(|id| Some(id.to_owned()));
    assert_eq!(taken_in, expected, "the first from before");
}

#[test]
fn what_a_refused_transaction_held_is_made_last_by_no_other() {
    let bench = Bench::new(&["hook"]);
    let hook = FakeSink::new();
    bench.announce(&[("a", json(&transition("1", "a", &["hook"])))]);
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED;
    bench.cluster.request_errors(RDKafkaApiKey::TxnOffsetCommit, &[refused]);
    let retry = Retry { min: Duration::from_millis(10), max: Duration::from_millis(20), total: LIMIT };
    let receivers = [hook.receiver("hook")];
    let ended = session::run(&bench.context, &bench.alerts, &receivers, retry, || true);
    assert!(ended.is_err() && hook.taken().is_empty(), "{ended:?}");
    // The mock keeps what was aborted. What counts is that no other transaction made it last,
    // without the alert's state.
    let entries: Vec<What> = bench.ledger().into_iter().map(|entry| entry.what).collect();
    assert_eq!(entries, [What::Received, What::Dispatched]);
}

#[test]
fn a_silence_taken_back_while_nobody_listens_is_over() {
    let bench = Bench::new(&["hook"]);
    let hook = FakeSink::new();
    let now = bench.context.clock.now_ns();
    let silence = Command::Silence(Silence {
        id: "s1".to_owned(),
        matchers: vec![alerts::dispatch::Matcher::parse("host=\"a\"").expect("a matcher")],
        starts_at: now - 1,
        ends_at: now + 3_600_000_000_000,
        created_by: "test".to_owned(),
        comment: String::new(),
        created_at: now,
    });
    let commands = bench.context.config.topics.alert_commands();
    bench.produce(&commands, &[("silence/s1", json(&silence))]);
    bench.announce(&[("a", json(&transition("1", "a", &["hook"])))]);
    bench.run(&[hook.receiver("hook")], || bench.ledger().iter().any(|entry| entry.what == What::Silenced));
    assert!(hook.taken().is_empty());

    let bench = bench.restarted();
    let producer = kafka::producer(&bench.context.config.kafka, DefaultProducerContext).expect("a producer");
    let record = BaseRecord::<str, [u8]>::to(&commands).key("silence/s1");
    producer.send(record).map_err(|(error, _)| error).expect("room in the queue");
    producer.flush(LIMIT).expect("the broker takes messages");
    bench.run(&[hook.receiver("hook")], || hook.taken().len() == 1);
}
