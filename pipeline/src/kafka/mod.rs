//! Kafka clients, all made here so that the settings which exactness and throughput rest on stand
//! in one place.
//!
//! A factory returns a librdkafka configuration or a client; properties of `[kafka.properties]`
//! come first, so that none of them can undo what is set here.
//!
//! - `error`: how a request ends when it fails; `reports`: what clients log, by its cause
//! - `flush`: waiting for what was sent; `offsets`: ends of partitions; `sizes`: the largest messages of topics
//! - `topics`: which topics there are, and making them; `state_topic`: reading those that hold a
//!   state

mod error;
mod flush;
mod offsets;
mod reports;
mod sizes;
pub(crate) mod state_topic;
pub mod topics;

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, FutureProducer, ProducerContext, ThreadedProducer};
use secrecy::ExposeSecret;

pub use error::KafkaError;
pub(crate) use error::{go_on_after, refused};
pub(crate) use flush::flush;
pub(crate) use offsets::{Isolation, offsets, reader};
pub use reports::Cause;
pub(crate) use reports::{Asked, Plain, Reporting, Reports};
pub(crate) use sizes::{LEAST_MESSAGE_BYTES, is_too_large, max_message_bytes, message_limits};

use crate::config::KafkaConfig;
use crate::config::properties::{Clients, is_known_to};

/// Largest message that Tidemark's own producers send, in bytes: one epoch's partial states for one
/// partition.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// Payload of a batch, if it is of several messages.
const BATCH_BYTES: usize = 1 << 20;

/// Largest answer of a broker: only a bound on nonsense, since memory is taken as it comes in.
const RECEIVE_BYTES: usize = 1_000_000_000;

/// What `[kafka.properties]` may change, of consumers.
const CONSUMER_DEFAULTS: [(&str, &str); 3] = [
    // A process that is silent for this long has lost its partitions.
    ("session.timeout.ms", "30000"),
    ("heartbeat.interval.ms", "3000"),
    // How soon partitions that were added to a topic are read.
    ("topic.metadata.refresh.interval.ms", "5000"),
];

/// Name of this program in the brokers' logs, metrics and quotas.
const CLIENT_ID: &str = "tidemark";

/// What a consumer reads, and from where it starts without a committed offset: always the oldest
/// message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerSettings<'a> {
    pub group: &'a str,
    /// Payload fetched ahead of processing, all partitions together, after which nothing more is
    /// fetched.
    pub queued_bytes: usize,
    /// Messages, likewise: each costs librdkafka half a kilobyte beside its payload.
    pub queued_messages: usize,
    /// One answer to a fetch, as it is on the wire. It comes on top of what is queued.
    pub fetch_bytes: usize,
    /// Of that, what one partition may fill. A backlog is read from all partitions alike only when
    /// several of them have room in an answer; one after the other, event time would stand still
    /// until the last one, and all windows be open.
    pub fetch_partition_bytes: usize,
    /// Whether a member keeps, while others join or leave, the partitions that stay with it. All
    /// members of a group have to agree.
    pub cooperative: bool,
    /// Whether reading ends with an error where the log has not what is to be read next: removed by
    /// retention, or the topic made again. Otherwise it goes on from the oldest message.
    pub strict: bool,
}

/// Memory of one message in librdkafka's queue, besides its payload.
const MESSAGE_OVERHEAD: usize = 512;
/// Memory of small, well compressed messages for each byte on the wire: eight times the text, and
/// the overhead.
const SMALL_EXPANSION: usize = 40;

impl<'a> ConsumerSettings<'a> {
    /// For commands that read a topic once.
    pub fn new(group: &'a str) -> Self {
        Self::of_large(group, 64 << 20)
    }

    /// Small messages in batches that producers compressed, within `memory` bytes.
    pub fn of_small(group: &'a str, memory: usize) -> Self {
        let fetch_bytes = (memory / 2 / SMALL_EXPANSION).clamp(64 << 10, MAX_MESSAGE_BYTES);
        Self {
            group,
            queued_bytes: memory / 4,
            queued_messages: (memory / 4 / MESSAGE_OVERHEAD).clamp(1_000, 100_000),
            fetch_bytes,
            fetch_partition_bytes: (fetch_bytes / 16).max(32 << 10),
            cooperative: true,
            strict: false,
        }
    }

    /// Messages of many kilobytes that do not compress further, within `memory` bytes.
    pub fn of_large(group: &'a str, memory: usize) -> Self {
        let fetch_bytes = (memory / 4).clamp(64 << 10, 4 * MAX_MESSAGE_BYTES);
        Self {
            group,
            queued_bytes: memory / 2,
            queued_messages: 10_000,
            fetch_bytes,
            fetch_partition_bytes: fetch_bytes.min(MAX_MESSAGE_BYTES),
            cooperative: true,
            strict: false,
        }
    }
}

/// A consumer of committed messages, in a group, that commits nothing by itself.
///
/// # Errors
/// [`KafkaError::Setup`] when librdkafka refuses a property.
pub fn consumer<C>(
    kafka: &KafkaConfig,
    settings: ConsumerSettings<'_>,
    context: C,
) -> Result<BaseConsumer<C>, KafkaError>
where
    C: ConsumerContext + 'static,
{
    create(kafka, "consumer", &consumer_config(kafka, settings), context)
}

/// A producer of independent messages: idempotent, acknowledged by all replicas in sync, lz4.
///
/// # Errors
/// [`KafkaError::Setup`] when librdkafka refuses a property.
pub fn producer<C>(kafka: &KafkaConfig, context: C) -> Result<BaseProducer<C>, KafkaError>
where
    C: ProducerContext + 'static,
{
    create(kafka, "producer", &producer_config(kafka), context)
}

/// As [`producer`], with a future for every delivery.
///
/// # Errors
/// [`KafkaError::Setup`] when librdkafka refuses a property.
pub(crate) fn future_producer(kafka: &KafkaConfig) -> Result<FutureProducer<Plain>, KafkaError> {
    create(kafka, "producer", &producer_config(kafka), Plain::default())
}

/// A producer whose messages and offsets go out in transactions. A second producer with the same
/// `transactional_id` fences the first off. `init_transactions` is left to the caller, because it
/// waits for the broker.
///
/// # Errors
/// [`KafkaError::Setup`] when librdkafka refuses a property.
pub fn transactional_producer<C>(
    kafka: &KafkaConfig,
    transactional_id: &str,
    timeout: Duration,
    context: C,
) -> Result<BaseProducer<C>, KafkaError>
where
    C: ProducerContext + 'static,
{
    let config = transactional_producer_config(kafka, transactional_id, timeout);
    create(kafka, "transactional producer", &config, context)
}

/// As [`transactional_producer`], with batches of at most so many bytes: a topic that takes no
/// larger message takes no larger batch either.
///
/// # Errors
/// [`KafkaError::Setup`] when librdkafka refuses a property.
pub(crate) fn batching_producer(
    kafka: &KafkaConfig,
    transactional_id: &str,
    timeout: Duration,
    bytes: usize,
) -> Result<BaseProducer<Plain>, KafkaError> {
    let mut config = transactional_producer_config(kafka, transactional_id, timeout);
    config.set("batch.size", bytes.clamp(1, BATCH_BYTES).to_string());
    create(kafka, "transactional producer", &config, Plain::default())
}

/// As [`batching_producer`], with a thread that takes the reports of deliveries.
///
/// # Errors
/// [`KafkaError::Setup`] when librdkafka refuses a property.
pub(crate) fn served_producer(
    kafka: &KafkaConfig,
    transactional_id: &str,
    timeout: Duration,
    bytes: usize,
) -> Result<ThreadedProducer<Plain>, KafkaError> {
    let mut config = transactional_producer_config(kafka, transactional_id, timeout);
    config.set("batch.size", bytes.clamp(1, BATCH_BYTES).to_string());
    create(kafka, "transactional producer", &config, Plain::default())
}

/// A client that asks about topics, and sends nothing.
///
/// # Errors
/// [`KafkaError::Setup`] when librdkafka refuses a property.
pub(crate) fn asker(kafka: &KafkaConfig) -> Result<BaseProducer<Plain>, KafkaError> {
    create(kafka, "client", &client_config(kafka, Clients::Producers), Plain::default())
}

/// A client that creates and describes topics.
///
/// # Errors
/// [`KafkaError::Setup`] when librdkafka refuses a property.
pub(crate) fn admin(kafka: &KafkaConfig) -> Result<AdminClient<Plain>, KafkaError> {
    create(kafka, "admin client", &client_config(kafka, Clients::Producers), Plain::default())
}

/// Makes a client of each kind, without a broker to talk to: whether the properties fit together,
/// files of certificates among them.
///
/// # Errors
/// [`KafkaError::Setup`] when librdkafka refuses them.
pub(crate) fn check_properties(kafka: &KafkaConfig) -> Result<(), KafkaError> {
    let mut nobody = kafka.clone();
    nobody.brokers.clear();
    let named = |error| match error {
        KafkaError::Setup { client, reason, .. } => {
            KafkaError::Setup { client, reason, brokers: kafka.brokers.join(",") }
        }
        other => other,
    };
    consumer(&nobody, ConsumerSettings::new("check"), Plain::default()).map_err(named)?;
    transactional_producer(&nobody, "check", Duration::from_secs(60), Plain::default()).map_err(named)?;
    Ok(())
}

/// Settings of [`consumer`].
pub fn consumer_config(kafka: &KafkaConfig, settings: ConsumerSettings<'_>) -> ClientConfig {
    let mut config = client_config(kafka, Clients::Consumers);
    for (name, value) in CONSUMER_DEFAULTS {
        if config.get(name).is_none() {
            config.set(name, value);
        }
    }
    let queued_kbytes = (settings.queued_bytes >> 10).max(1);
    let fetch_bytes = settings.fetch_bytes;
    config
        .set("group.id", settings.group)
        // Offsets move when the results are durable, and never by themselves.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", if settings.strict { "error" } else { "earliest" })
        // What an aborted transaction wrote is not there.
        .set("isolation.level", "read_committed")
        // The end of a partition is an event: only a partition read to its end can be idle.
        .set("enable.partition.eof", "true")
        // Either way an owner gives partitions up, settled, before anyone takes them over.
        .set(
            "partition.assignment.strategy",
            if settings.cooperative { "cooperative-sticky" } else { "range" },
        )
        // The default of a second stalls a fast consumer whenever its queue was full for a moment.
        .set("fetch.queue.backoff.ms", "20")
        .set("queued.max.messages.kbytes", queued_kbytes.to_string())
        .set("fetch.wait.max.ms", "100")
        .set("queued.min.messages", settings.queued_messages.to_string())
        // A message beyond these comes all the same, alone. librdkafka wants no request to be
        // larger than an answer.
        .set("fetch.message.max.bytes", settings.fetch_partition_bytes.to_string())
        .set("fetch.max.bytes", fetch_bytes.to_string())
        .set("message.max.bytes", fetch_bytes.min(1_000_000).to_string())
        .set("receive.message.max.bytes", RECEIVE_BYTES.to_string());
    config
}

/// How long a group waits for a sign of life before it gives a member's partitions to others.
pub(crate) fn session_timeout(kafka: &KafkaConfig) -> Duration {
    let config = consumer_config(kafka, ConsumerSettings::new(""));
    let milliseconds = config.get("session.timeout.ms").and_then(|text| text.parse().ok());
    Duration::from_millis(milliseconds.unwrap_or(30_000))
}

/// Settings of [`producer`].
pub fn producer_config(kafka: &KafkaConfig) -> ClientConfig {
    let mut config = client_config(kafka, Clients::Producers);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "lz4")
        // Long enough to fill a batch, too short to be seen.
        .set("linger.ms", "5")
        .set("batch.size", BATCH_BYTES.to_string())
        .set("message.max.bytes", MAX_MESSAGE_BYTES.to_string())
        // One message of the largest size has to fit.
        .set("queue.buffering.max.kbytes", (24 << 10).to_string());
    config
}

/// Settings of [`transactional_producer`]. `timeout`: how long an open transaction may last before
/// the broker aborts it.
pub fn transactional_producer_config(
    kafka: &KafkaConfig,
    transactional_id: &str,
    timeout: Duration,
) -> ClientConfig {
    let mut config = producer_config(kafka);
    // What a killed process had open is not read past until then, so a deployment may want it
    // sooner.
    let timeout = config.get("transaction.timeout.ms").map_or(timeout.as_millis().to_string(), str::to_owned);
    config
        .set("transactional.id", transactional_id)
        .set("transaction.timeout.ms", &timeout)
        // A message cannot outlive its transaction.
        .set("message.timeout.ms", &timeout);
    config
}

/// Metadata of one topic, or of all. Blocks up to `timeout`.
///
/// # Errors
/// [`KafkaError::Unreachable`] when no broker answers in time, [`KafkaError::Refused`] for anything
/// else.
pub(crate) fn metadata(
    kafka: &KafkaConfig,
    client: &impl Asked,
    topic: Option<&str>,
    timeout: Duration,
) -> Result<Metadata, KafkaError> {
    let metadata = client.client().fetch_metadata(topic, timeout);
    metadata.map_err(|source| refused(kafka, "list its topics", timeout, cause(client), source))
}

/// Partitions of a topic; 0 when it does not exist. Blocks up to `timeout`.
///
/// # Errors
/// As [`metadata`].
pub(crate) fn partition_count(
    kafka: &KafkaConfig,
    client: &impl Asked,
    topic: &str,
    timeout: Duration,
) -> Result<usize, KafkaError> {
    let metadata = metadata(kafka, client, Some(topic), timeout)?;
    Ok(metadata
        .topics()
        .iter()
        .find(|found| found.name() == topic)
        .map_or(0, |found| found.partitions().len()))
}

/// As [`partition_count`], of a topic that has to exist.
///
/// # Errors
/// [`KafkaError::NoTopic`] when it does not, and as [`metadata`].
pub(crate) fn existing_partitions(
    kafka: &KafkaConfig,
    client: &impl Asked,
    topic: &str,
    timeout: Duration,
) -> Result<usize, KafkaError> {
    match partition_count(kafka, client, topic, timeout)? {
        0 => Err(KafkaError::NoTopic { topic: topic.to_owned() }),
        count => Ok(count),
    }
}

/// Why a request of this client failed, as far as the client knows.
pub(crate) fn cause(client: &impl Asked) -> Cause {
    client.hear();
    client.client().context().reports().cause()
}

/// What all clients of a kind have. Properties that such a client does not know would cost a
/// warning each time one is made.
fn client_config(kafka: &KafkaConfig, clients: Clients) -> ClientConfig {
    let mut config = ClientConfig::new();
    // A broker that hangs up on a client without TLS is worth information only, to librdkafka.
    config.set_log_level(RDKafkaLogLevel::Info);
    config.set("client.id", CLIENT_ID);
    for (name, value) in &kafka.properties {
        if is_known_to(name, clients) {
            config.set(name, value.expose_secret());
        }
    }
    config
        .set("bootstrap.servers", kafka.brokers.join(","))
        // The program's own metrics have what these would.
        .set("statistics.interval.ms", "0")
        // A topic that is missing is an error to see, not a topic with the broker's default
        // partitions.
        .set("allow.auto.create.topics", "false");
    config
}

fn create<C, T>(
    kafka: &KafkaConfig,
    client: &'static str,
    config: &ClientConfig,
    context: C,
) -> Result<T, KafkaError>
where
    C: ClientContext,
    T: FromClientConfigAndContext<C>,
{
    config.create_with_context(context).map_err(|source| KafkaError::Setup {
        client,
        brokers: kafka.brokers.join(","),
        reason: match source {
            ClientError::ClientConfig(_, _, name, _) => {
                format!("the librdkafka property `{name}` does not take its value")
            }
            // Without the name of the library's type.
            ClientError::ClientCreation(reason) => reason,
            other => other.to_string(),
        },
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    #[test]
    fn librdkafka_accepts_every_setting() {
        let config = Config::local("127.0.0.1:1", Path::new("/tmp")).kafka;
        let timeout = Duration::from_secs(60);
        consumer(&config, ConsumerSettings::new("group"), Plain::default()).expect("consumer");
        producer(&config, Plain::default()).expect("producer");
        let _producer = future_producer(&config).expect("future producer");
        transactional_producer(&config, "id", timeout, Plain::default()).expect("transactional producer");
        admin(&config).expect("admin client");
    }

    #[test]
    fn properties_that_do_not_fit_together_name_the_section_and_show_no_value() {
        let mut config = Config::local("127.0.0.1:1", Path::new("/tmp")).kafka;
        config.properties.insert("security.protocol".to_owned(), "ssl".into());
        config.properties.insert("ssl.ca.location".to_owned(), "/no/such/file".into());
        check_properties(&config).expect_err("there is no such file");
        config.properties.insert("ssl.ca.location".to_owned(), "probe".into());
        config.properties.insert("ssl.key.pem".to_owned(), "planted-secret".into());
        for error in [check_properties(&config).err(), admin(&config).err()] {
            let text = error.expect("no key in PEM").to_string();
            let section = ": check [kafka.properties] in the configuration, brokers=`127.0.0.1:1`";
            assert!(text.starts_with("cannot set up a Kafka ") && text.ends_with(section), "{text}");
            assert!(!text.contains("planted"), "{text}");
        }
        let known = Config::local("127.0.0.1:1", Path::new("/tmp")).kafka;
        check_properties(&known).expect("the defaults fit together");
    }

    #[test]
    fn ours_win_over_passed_through_properties() {
        let mut config = Config::local("127.0.0.1:1", Path::new("/tmp")).kafka;
        config.properties.insert("isolation.level".to_owned(), "read_uncommitted".into());
        config.properties.insert("client.id".to_owned(), "mine".into());
        config.properties.insert("session.timeout.ms".to_owned(), "10000".into());
        let made = consumer_config(&config, ConsumerSettings::new("group"));
        assert_eq!(made.get("isolation.level"), Some("read_committed"));
        assert_eq!(made.get("client.id"), Some("mine"));
        assert_eq!(made.get("session.timeout.ms"), Some("10000"));
        assert_eq!(made.get("heartbeat.interval.ms"), Some("3000"));
    }

    #[test]
    fn an_open_transaction_of_a_dead_process_can_be_given_up_sooner() {
        let mut config = Config::local("127.0.0.1:1", Path::new("/tmp")).kafka;
        let timeout = |config: &KafkaConfig| {
            let made = transactional_producer_config(config, "id", Duration::from_secs(60));
            made.get("transaction.timeout.ms").map(str::to_owned)
        };
        assert_eq!(timeout(&config).as_deref(), Some("60000"));
        config.properties.insert("transaction.timeout.ms".to_owned(), "10000".into());
        assert_eq!(timeout(&config).as_deref(), Some("10000"));
        transactional_producer(&config, "id", Duration::from_secs(60), Plain::default())
            .expect("messages are given up with their transaction");
    }
}
