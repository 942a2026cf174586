//! A real Apache Kafka: one KRaft process, its data in a temporary directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message as _, OwnedHeaders};
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tempfile::TempDir;

use crate::background;
use crate::ports::free_port;
use crate::process::Process;
use crate::provided::{Unavailable, provide};
use crate::secrets;

mod gone;

pub use gone::Transactions;

/// For one request, and for a broker that comes up on a busy machine.
const REQUEST: Duration = Duration::from_secs(30);
const START: Duration = Duration::from_secs(120);

/// A message, to be produced or as consumed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// To be produced: unset leaves the choice to the key's hash, or to chance.
    pub partition: Option<i32>,
    /// Of a consumed message; not looked at when producing.
    pub offset: i64,
    /// Milliseconds since the epoch. To be produced: unset means now.
    pub timestamp: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub payload: Vec<u8>,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Message {
    /// A message without key or headers.
    pub fn new(partition: i32, payload: impl Into<Vec<u8>>) -> Self {
        Self { partition: Some(partition), payload: payload.into(), ..Self::default() }
    }
}

/// A broker that is also its own controller. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Kafka {
    jars: PathBuf,
    brokers: String,
    /// A listener that asks for a user and a password.
    sasl: String,
    /// None between [`Kafka::kill9`] and [`Kafka::restart`].
    process: Mutex<Option<Process>>,
    directory: TempDir,
}

impl Kafka {
    /// A new broker, ready for requests. A few seconds, and half a gigabyte of memory.
    pub fn start() -> Result<Self, Unavailable> {
        let jars = provide("servers/get-kafka.sh")?.join("libs");
        let directory = tempfile::Builder::new().prefix("tidemark-kafka-").tempdir().unwrap();
        let (port, sasl) = (free_port(), free_port());
        fs::write(directory.path().join("server.properties"), properties(directory.path(), port, sasl))
            .unwrap();
        let kafka = Self {
            jars,
            brokers: format!("127.0.0.1:{port}"),
            sasl: format!("127.0.0.1:{sasl}"),
            process: Mutex::new(None),
            directory,
        };
        kafka.format();
        kafka.restart();
        Ok(kafka)
    }

    /// The process id of the broker.
    ///
    /// # Panics
    /// When it does not run.
    pub fn id(&self) -> u32 {
        self.process.lock().unwrap().as_ref().expect("the broker runs").id()
    }

    /// The broker that all trials of this process share: take topics from [`Kafka::unique_topic`],
    /// and name groups after them. Whoever stops or pauses a broker starts one of its own.
    pub fn shared() -> Result<&'static Self, Unavailable> {
        static SHARED: OnceLock<Result<Kafka, Unavailable>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref().map_err(Clone::clone)
    }

    /// `host:port`, as in `bootstrap.servers`.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// `host:port` of a listener with SASL, PLAIN, for the user `tidemark` with the secret of all
    /// trials as password.
    pub fn sasl(&self) -> &str {
        &self.sasl
    }

    /// The version of the server.
    pub fn version(&self) -> String {
        // Written by the script that provides the jars.
        fs::read_to_string(self.jars.with_file_name("complete")).unwrap().trim().to_owned()
    }

    /// Creates a topic with one replica, and waits until it can be used.
    pub fn create_topic(&self, name: &str, partitions: usize) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let count = i32::try_from(partitions).unwrap();
        let topic_name = name.to_owned();
        let results = background::wait_for(async move {
            let topic = NewTopic::new(&topic_name, count, TopicReplication::Fixed(1));
            admin.create_topics([&topic], &AdminOptions::new().operation_timeout(Some(REQUEST))).await
        });
        for result in results.expect("the broker answers") {
            result.unwrap_or_else(|(topic, error)| panic!("topic `{topic}` cannot be created: {error}"));
        }
        self.wait_for_leaders(name, partitions);
    }

    fn wait_for_leaders(&self, name: &str, partitions: usize) {
        self.wait_until(REQUEST, &format!("leaders of topic `{name}`"), || match self.partitions(name) {
            Ok(known) if known.len() == partitions => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    /// Creates a topic named after `stem` that no other trial of this process has, and gives its
    /// name.
    pub fn unique_topic(&self, stem: &str, partitions: usize) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{stem}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.create_topic(&name, partitions);
        name
    }

    /// Adds partitions to a topic until it has so many, and waits until they can be used.
    pub fn add_partitions(&self, name: &str, partitions: usize) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let topic = name.to_owned();
        let results = background::wait_for(async move {
            let more = NewPartitions::new(&topic, partitions);
            admin.create_partitions([&more], &AdminOptions::new().operation_timeout(Some(REQUEST))).await
        });
        for result in results.expect("the broker answers") {
            result.unwrap_or_else(|(topic, error)| panic!("topic `{topic}` takes no partitions: {error}"));
        }
        self.wait_for_leaders(name, partitions);
    }

    /// Sets a property of a topic.
    pub fn set_property(&self, topic: &str, property: &str, value: &str) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let (topic, property, value) = (topic.to_owned(), property.to_owned(), value.to_owned());
        let results = background::wait_for(async move {
            let change = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set(&property, &value);
            admin.alter_configs([&change], &AdminOptions::new().request_timeout(Some(REQUEST))).await
        });
        for result in results.expect("the broker answers") {
            result.unwrap_or_else(|(_, error)| panic!("the property is refused: {error}"));
        }
    }

    /// Sends messages in their order, each once whatever the broker does meanwhile, and waits until
    /// it has acknowledged all of them.
    pub fn produce(&self, topic: &str, messages: impl IntoIterator<Item = Message>) {
        self.produce_with(&[("linger.ms", "5"), ("enable.idempotence", "true")], topic, messages);
    }

    /// As [`Kafka::produce`], with properties of the producer.
    pub fn produce_with(
        &self,
        properties: &[(&str, &str)],
        topic: &str,
        messages: impl IntoIterator<Item = Message>,
    ) {
        let mut config = self.client();
        config.extend(properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let producer: BaseProducer<Deliveries> = config.create_with_context(Deliveries::default()).unwrap();
        for message in messages {
            let mut record = record(topic, &message);
            // A full queue gives the record back; there is room again when some of it has been
            // sent.
            while let Err((error, rejected)) = producer.send(record) {
                let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
                assert!(full, "message to `{topic}` refused: {error}");
                producer.poll(Duration::from_millis(10));
                record = rejected;
            }
            producer.poll(Duration::ZERO);
        }
        producer
            .flush(REQUEST)
            .unwrap_or_else(|error| panic!("topic `{topic}` does not take messages: {error}"));
        let failed = producer.context().failed.lock().unwrap();
        assert!(failed.is_none(), "a message to `{topic}` was not stored: {failed:?}");
    }

    /// Every message of a topic up to its end now, by partition and offset. What a transaction
    /// holds is there once it is committed, and never when it was aborted.
    pub fn consume_all(&self, topic: &str) -> Vec<Message> {
        let mut unfinished: BTreeSet<i32> = self.partitions(topic).unwrap().into_iter().collect();
        let mut assignment = TopicPartitionList::new();
        for partition in &unfinished {
            assignment.add_partition_offset(topic, *partition, Offset::Beginning).unwrap();
        }
        let consumer: BaseConsumer = self.consumer("tidemark-tests").create().unwrap();
        consumer.assign(&assignment).unwrap();
        let mut messages = Vec::new();
        let mut trouble = String::new();
        let mut last_progress = Instant::now();
        while !unfinished.is_empty() {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    let message = consumed(&message);
                    secrets::assert_absent(topic, &String::from_utf8_lossy(&message.payload));
                    messages.push(message);
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    unfinished.remove(&partition);
                }
                // The client goes on by itself, for example when a connection was lost.
                Some(Err(error)) => trouble = error.to_string(),
                None => {
                    let patient = last_progress.elapsed() < REQUEST;
                    assert!(patient, "no end of `{topic}` in partitions {unfinished:?} {trouble}");
                    continue;
                }
            }
            last_progress = Instant::now();
        }
        messages.sort_by_key(|message| (message.partition, message.offset));
        messages
    }

    /// The offset that a group has committed for each partition of a topic; partitions without one
    /// are left out.
    pub fn committed(&self, group: &str, topic: &str) -> BTreeMap<i32, i64> {
        let mut asked = TopicPartitionList::new();
        for partition in self.partitions(topic).unwrap() {
            asked.add_partition(topic, partition);
        }
        let consumer: BaseConsumer = self.consumer(group).create().unwrap();
        let answer = consumer.committed_offsets(asked, REQUEST).unwrap();
        let committed = |offset| if let Offset::Offset(offset) = offset { Some(offset) } else { None };
        answer.elements().iter().filter_map(|e| Some((e.partition(), committed(e.offset())?))).collect()
    }

    /// The offset after the last message of each partition, those of open transactions included.
    pub fn end_offsets(&self, topic: &str) -> BTreeMap<i32, i64> {
        let consumer: BaseConsumer = self.client().create().unwrap();
        let end = |partition| (partition, consumer.fetch_watermarks(topic, partition, REQUEST).unwrap().1);
        self.partitions(topic).unwrap().into_iter().map(end).collect()
    }

    /// Bytes that the broker keeps of a topic, as they are on its disk.
    pub fn topic_bytes(&self, topic: &str) -> u64 {
        let entries = |folder: &Path| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let is_partition = |folder: &PathBuf| {
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            name.rsplit_once('-')
                .is_some_and(|(of, partition)| of == topic && partition.parse::<u32>().is_ok())
        };
        let is_log = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "log");
        let partitions = entries(&self.directory.path().join("logs")).filter(is_partition);
        let logs = partitions.flat_map(|folder| entries(&folder).filter(is_log).collect::<Vec<_>>());
        logs.map(|file| file.metadata().unwrap().len()).sum()
    }

    /// Crashes the broker. Its data and its port remain for [`Kafka::restart`].
    pub fn kill9(&self) {
        // Dropping kills.
        self.process.lock().unwrap().take();
    }

    /// Stops the broker without ending it: connections stay open, and nothing is answered.
    pub fn pause(&self) {
        self.process.lock().unwrap().as_ref().expect("the broker runs").signal("STOP");
    }

    /// Ends [`Kafka::pause`].
    pub fn resume(&self) {
        self.process.lock().unwrap().as_ref().expect("the broker runs").signal("CONT");
    }

    /// Starts the broker on the data and the port it had, after a crash if it still runs, and waits
    /// until it answers.
    pub fn restart(&self) {
        self.kill9();
        let mut java = self.java();
        java.args(["-Xmx1g", "-Xms256m", "-Dlog4j2.level=WARN", "kafka.Kafka", "server.properties"]);
        let process =
            Process::start("Kafka", java, &self.directory.path().join("kafka.log"), self.directory.path());
        *self.process.lock().unwrap() = Some(process);
        let consumer: BaseConsumer = self.client().create().unwrap();
        self.wait_until(START, "a broker that leads all partitions", || {
            let metadata =
                consumer.fetch_metadata(None, Duration::from_secs(1)).map_err(|error| error.to_string())?;
            let mut partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions);
            let ready = !metadata.brokers().is_empty() && partitions.all(|partition| partition.leader() >= 0);
            ready.then_some(()).ok_or_else(|| "metadata without a broker or without leaders".to_owned())
        });
    }

    /// Gives the log directory its cluster id, without which a broker does not start. Any id will
    /// do.
    fn format(&self) {
        let output = self
            .java()
            .args([
                "kafka.tools.StorageTool",
                "format",
                "-t",
                "VGlkZW1hcmtUZXN0c18xMg",
                "-c",
                "server.properties",
            ])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "storage of Kafka cannot be formatted: {said}");
    }

    fn java(&self) -> Command {
        let mut java = Command::new("java");
        java.current_dir(self.directory.path()).arg("-cp").arg(self.jars.join("*"));
        java
    }

    /// Properties common to all clients here. Their own log lines would only repeat the errors they
    /// return.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("log_level", "0");
        config
    }

    pub(crate) fn consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.client();
        config
            .set("group.id", group)
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "10");
        config
    }

    /// The partitions of a topic that have a leader.
    fn partitions(&self, topic: &str) -> Result<Vec<i32>, KafkaError> {
        let consumer: BaseConsumer = self.client().create()?;
        let metadata = consumer.fetch_metadata(Some(topic), REQUEST)?;
        let all = metadata.topics().iter().flat_map(MetadataTopic::partitions);
        Ok(all.filter(|partition| partition.leader() >= 0).map(MetadataPartition::id).collect())
    }

    #[track_caller]
    fn wait_until<T>(&self, timeout: Duration, what: &str, probe: impl FnMut() -> Result<T, String>) -> T {
        self.process.lock().unwrap().as_mut().expect("the broker runs").wait_until(timeout, what, probe)
    }
}

/// Keeps the first message that the broker did not take.
#[derive(Debug, Default)]
struct Deliveries {
    failed: Mutex<Option<KafkaError>>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.failed.lock().unwrap().get_or_insert(error.clone());
        }
    }
}

fn record<'a>(topic: &'a str, message: &'a Message) -> BaseRecord<'a, [u8], [u8]> {
    let mut record = BaseRecord::to(topic).payload(message.payload.as_slice());
    record.partition = message.partition;
    record.key = message.key.as_deref();
    record.timestamp = message.timestamp;
    if !message.headers.is_empty() {
        let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
        for (key, value) in &message.headers {
            headers = headers.insert(Header { key, value: Some(value.as_slice()) });
        }
        record.headers = Some(headers);
    }
    record
}

fn consumed(message: &rdkafka::message::BorrowedMessage<'_>) -> Message {
    let header =
        |header: Header<'_, &[u8]>| (header.key.to_owned(), header.value.unwrap_or_default().to_vec());
    Message {
        partition: Some(message.partition()),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        payload: message.payload().unwrap_or_default().to_vec(),
        headers: message.headers().map(|headers| headers.iter().map(header).collect()).unwrap_or_default(),
    }
}

/// One replica of everything, few internal partitions, and short waits: start and group joins are
/// quick. A broker that was killed is let in again when its session is over, hence a shorter one
/// than the usual 9 s. Retention is off, because trials produce messages that are years old.
fn properties(directory: &Path, port: u16, sasl: u16) -> String {
    let controller = free_port();
    let logs = directory.join("logs");
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},SASL_PLAINTEXT://127.0.0.1:{sasl},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL_PLAINTEXT://127.0.0.1:{sasl}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \
  required user_tidemark=\"{password}\";
log.dirs={logs}
log.retention.ms=-1
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
log.cleaner.dedupe.buffer.size=16777216
",
        logs = logs.display(),
        password = secrets::PLANTED,
    )
}
