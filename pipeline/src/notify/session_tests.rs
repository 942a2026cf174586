//! One session each on librdkafka's mock cluster. Joining a group takes three seconds there, joining it again thirty:
//! restarts are told by the offset and text that are committed before the session and found after it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use rdkafka::consumer::{CommitMode, DefaultConsumerContext};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer};
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use super::*;
use crate::config::Config;
use crate::notify::message::tests::transition;
use crate::notify::sink_fake::{Answer, FakeSink};
use crate::telemetry::DeliveryLabels;

/// Ends a test that has failed.
const LIMIT: Duration = Duration::from_secs(60);

struct Bench {
    context: Context,
    /// For the deliveries; ends with the test.
    _runtime: Runtime,
    _cluster: MockCluster<'static, DefaultProducerContext>,
}

impl Bench {
    /// A cluster whose alerts topic holds `log`, and whose group has committed an offset with a text.
    fn new(log: &[Vec<u8>], offset: i64, text: &str) -> Self {
        let cluster = MockCluster::new(1).expect("mock cluster");
        let config = Config::local(&cluster.bootstrap_servers(), Path::new("/tmp"));
        cluster.create_topic(&config.topics.alerts, 1, 1).expect("mock topic");
        let runtime = Runtime::new().expect("a runtime");
        let catalog = Arc::new(operators::sql::compile(&[]));
        let context = Context::new(config, catalog, runtime.handle().clone());
        let bench = Self { context, _runtime: runtime, _cluster: cluster };
        bench.produce(log);
        let list = bench.list();
        let mut element = list.find_partition(&bench.context.config.topics.alerts, 0).expect("the partition");
        element.set_offset(Offset::Offset(offset)).expect("an offset");
        element.set_metadata(text);
        bench.bystander().commit(&list, CommitMode::Sync).expect("a group without members takes offsets");
        bench
    }

    fn produce(&self, log: &[Vec<u8>]) {
        let config = &self.context.config;
        let producer = kafka::producer(&config.kafka, DefaultProducerContext).expect("a producer");
        for payload in log {
            let record = BaseRecord::<str, [u8]>::to(&config.topics.alerts).key("alert").payload(payload);
            producer.send(record).map_err(|(error, _)| error).expect("room in the queue");
        }
        producer.flush(LIMIT).expect("the broker takes messages");
    }

    /// Runs a session until `done`, then shuts it down.
    fn run(&self, receivers: &[Receiver], mut done: impl FnMut() -> bool) {
        let context = &self.context;
        thread::scope(|scope| {
            let role = scope.spawn(|| run(context, receivers));
            let started = Instant::now();
            while !done() && started.elapsed() < LIMIT && !role.is_finished() {
                thread::park_timeout(Duration::from_millis(10));
            }
            context.shutdown.trigger();
            role.join().expect("no panic").expect("a clean end");
        });
        assert!(done(), "not done within {LIMIT:?}");
    }

    fn committed(&self) -> (Offset, String) {
        let committed = self.bystander().committed_offsets(self.list(), LIMIT).expect("the broker answers");
        let element = committed.elements().remove(0);
        (element.offset(), element.metadata().to_owned())
    }

    fn counted(&self, receiver: &str, result: &'static str) -> u64 {
        let labels = DeliveryLabels { receiver: receiver.to_owned(), result };
        self.context.metrics.notify.deliveries.get_or_create(&labels).get()
    }

    /// A consumer that never joins the group.
    fn bystander(&self) -> BaseConsumer<DefaultConsumerContext> {
        let settings = ConsumerSettings::new(&self.context.config.alerts.group);
        kafka::consumer(&self.context.config.kafka, settings, DefaultConsumerContext).expect("a consumer")
    }

    fn list(&self) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.context.config.topics.alerts, 0);
        list
    }
}

fn message(id: &str, host: &str, receivers: &[&str]) -> Vec<u8> {
    serde_json::to_vec(&transition(id, host, receivers)).expect("JSON")
}

#[test]
fn receivers_are_told_once_over_failures_replays_and_restarts() {
    let log = [
        // From before the committed offset: told already.
        message("0", "a", &["well", "away"]),
        b"no transition".to_vec(),
        // One receiver is away, an earlier owner told the other.
        message("1", "a", &["well", "away"]),
        // From here on nobody was told.
        message("2", "b", &["well", "away"]),
        b"no transition".to_vec(),
        message("0", "a", &["well", "away"]),
        message("3", "a", &["well", "nobody"]),
        message("2", "b", &["well"]),
    ];
    let bench = Bench::new(&log, 2, r#"{"well":[[0,1]]}"#);
    let (well, away) = (FakeSink::new(), FakeSink::new());
    away.answer("1", vec![Answer::Busy; 1_000]);
    let receivers = [well.receiver("well"), away.receiver("away")];
    bench.run(&receivers, || {
        let told = well.taken().len() == 2 && away.taken().len() == 1 && !away.attempts().is_empty();
        told && bench.counted("nobody", "failed") == 1 && bench.context.readiness.is_ready()
    });
    assert_eq!((well.taken(), away.taken()), (vec!["2".to_owned(), "3".to_owned()], vec!["2".to_owned()]));
    assert_eq!((bench.counted("", "unreadable"), bench.counted("well", "delivered")), (1, 2));
    // The message that one receiver waits for holds the offset, and only for that receiver.
    let (offset, text) = bench.committed();
    assert_eq!((offset, text.as_str()), (Offset::Offset(2), r#"{"away":[[1,6]],"well":[[0,6]]}"#));
}

#[test]
fn a_topic_that_was_made_anew_is_read_from_its_beginning() {
    let bench = Bench::new(&[message("0", "a", &["well"]), message("1", "a", &["well"])], 100, "");
    let well = FakeSink::new();
    bench.run(&[well.receiver("well")], || well.taken().len() == 2);
    assert_eq!(bench.committed(), (Offset::Offset(2), String::new()));
}

#[test]
fn reading_pauses_while_too_much_is_unsettled_and_goes_on_after() {
    let ids: Vec<String> = (0..1_500).map(|id| id.to_string()).collect();
    let log: Vec<Vec<u8>> = ids.iter().map(|id| message(id, id, &["well", "away"])).collect();
    let bench = Bench::new(&log, 0, "");
    let (well, away) = (FakeSink::new(), FakeSink::new());
    let permits = Arc::new(Semaphore::new(0));
    for id in &ids {
        away.answer(id, [Answer::When(Arc::clone(&permits))]);
    }
    let mut released = false;
    bench.run(&[well.receiver("well"), away.receiver("away")], || {
        if !released && well.taken().len() >= 1_000 && bench.committed().1 == r#"{"well":[[0,1000]]}"# {
            assert_eq!(well.taken().len(), 1_000);
            permits.add_permits(ids.len());
            released = true;
        }
        well.taken().len() >= ids.len() && away.taken().len() >= ids.len()
    });
    // Each once: different alerts may overtake each other.
    let told: BTreeSet<String> = well.taken().into_iter().collect();
    assert_eq!((told.len(), well.taken().len(), away.taken().len()), (ids.len(), ids.len(), ids.len()));
    assert_eq!(bench.committed(), (Offset::Offset(1_500), String::new()));
}
