//! Kafka clients, all made here so that the settings which exactness and throughput rest on stand in one place.
//!
//! A factory returns a librdkafka configuration or a client; properties of `[kafka.properties]` come first, so that
//! none of them can undo what is set here.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::client::{Client, ClientContext, DefaultClientContext};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, FutureProducer, ProducerContext};
use secrecy::ExposeSecret;

use crate::config::KafkaConfig;

/// Largest message that Tidemark's own producers send, in bytes: one epoch's partial states for one partition.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// How long a group waits for a sign of life before it gives a member's partitions to others.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(30);

/// Name of this program in the brokers' logs, metrics and quotas.
const CLIENT_ID: &str = "tidemark";

/// A Kafka client could not be made, or could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// The settings do not work: trying again does not help.
    #[error(
        "cannot set up a Kafka {client}: check [kafka.properties] in the configuration, brokers=`{brokers}`"
    )]
    Setup {
        client: &'static str,
        brokers: String,
        #[source]
        source: Box<ClientError>,
    },
    /// No broker answered in time: trying again may help.
    #[error(
        "no Kafka broker answered within {}: start one, or name a running one in `brokers` of [kafka] or in TIDEMARK_KAFKA__BROKERS, brokers=`{brokers}`",
        humantime::format_duration(*.timeout)
    )]
    Unreachable { brokers: String, timeout: Duration },
    /// A broker answered with an error.
    #[error("Kafka refused to {action}, brokers=`{brokers}`")]
    Refused {
        action: String,
        brokers: String,
        #[source]
        source: Box<ClientError>,
    },
}

/// What a consumer reads, and from where it starts without a committed offset: always the oldest message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerSettings<'a> {
    pub group: &'a str,
    /// Bytes fetched ahead of processing, all partitions together: the memory bound of the consumer.
    pub queued_bytes: usize,
}

impl<'a> ConsumerSettings<'a> {
    /// 64 MiB ahead.
    pub fn new(group: &'a str) -> Self {
        Self { group, queued_bytes: 64 << 20 }
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
pub fn future_producer(kafka: &KafkaConfig) -> Result<FutureProducer, KafkaError> {
    create(kafka, "producer", &producer_config(kafka), DefaultClientContext)
}

/// A producer whose messages and offsets go out in transactions. A second producer with the same `transactional_id`
/// fences the first off. `init_transactions` is left to the caller, because it waits for the broker.
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

/// A client that creates and describes topics.
///
/// # Errors
/// [`KafkaError::Setup`] when librdkafka refuses a property.
pub fn admin(kafka: &KafkaConfig) -> Result<AdminClient<DefaultClientContext>, KafkaError> {
    create(kafka, "admin client", &client_config(kafka), DefaultClientContext)
}

/// Settings of [`consumer`].
pub fn consumer_config(kafka: &KafkaConfig, settings: ConsumerSettings<'_>) -> ClientConfig {
    let mut config = client_config(kafka);
    let queued_kbytes = (settings.queued_bytes >> 10).max(1);
    config
        .set("group.id", settings.group)
        // Offsets move when the results are durable, and never by themselves.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        // What an aborted transaction wrote is not there.
        .set("isolation.level", "read_committed")
        // The end of a partition is an event: only a partition read to its end can be idle.
        .set("enable.partition.eof", "true")
        // Eager: an owner gives up everything, settled, before anyone takes anything over.
        .set("partition.assignment.strategy", "range")
        // The default of a second stalls a fast consumer whenever its queue was full for a moment.
        .set("fetch.queue.backoff.ms", "20")
        .set("queued.max.messages.kbytes", queued_kbytes.to_string())
        .set("fetch.wait.max.ms", "100")
        .set("fetch.message.max.bytes", MAX_MESSAGE_BYTES.to_string())
        .set("fetch.max.bytes", (4 * MAX_MESSAGE_BYTES).to_string())
        .set("session.timeout.ms", SESSION_TIMEOUT.as_millis().to_string())
        .set("heartbeat.interval.ms", "3000");
    config
}

/// Settings of [`producer`].
pub fn producer_config(kafka: &KafkaConfig) -> ClientConfig {
    let mut config = client_config(kafka);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "lz4")
        // Long enough to fill a batch, too short to be seen.
        .set("linger.ms", "5")
        .set("batch.size", (1 << 20).to_string())
        .set("message.max.bytes", MAX_MESSAGE_BYTES.to_string())
        .set("queue.buffering.max.kbytes", (64 << 10).to_string());
    config
}

/// Settings of [`transactional_producer`]. `timeout`: how long an open transaction may last before the broker aborts it.
pub fn transactional_producer_config(
    kafka: &KafkaConfig,
    transactional_id: &str,
    timeout: Duration,
) -> ClientConfig {
    let mut config = producer_config(kafka);
    config
        .set("transactional.id", transactional_id)
        .set("transaction.timeout.ms", timeout.as_millis().to_string())
        // A message cannot outlive its transaction.
        .set("message.timeout.ms", timeout.as_millis().to_string());
    config
}

/// Metadata of one topic, or of all. Blocks up to `timeout`.
///
/// # Errors
/// [`KafkaError::Unreachable`] when no broker answers in time, [`KafkaError::Refused`] for anything else.
pub fn metadata<C: ClientContext>(
    kafka: &KafkaConfig,
    client: &Client<C>,
    topic: Option<&str>,
    timeout: Duration,
) -> Result<Metadata, KafkaError> {
    client.fetch_metadata(topic, timeout).map_err(|source| refused(kafka, "list its topics", timeout, source))
}

/// Partitions of a topic; 0 when it does not exist. Blocks up to `timeout`.
///
/// # Errors
/// As [`metadata`].
pub fn partition_count<C: ClientContext>(
    kafka: &KafkaConfig,
    client: &Client<C>,
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

/// Tells a broker that does not answer from one that says no.
pub(crate) fn refused(
    kafka: &KafkaConfig,
    action: &str,
    timeout: Duration,
    source: ClientError,
) -> KafkaError {
    let brokers = kafka.brokers.join(",");
    let silent = [
        RDKafkaErrorCode::BrokerTransportFailure,
        RDKafkaErrorCode::AllBrokersDown,
        RDKafkaErrorCode::OperationTimedOut,
        RDKafkaErrorCode::Resolve,
    ];
    match source.rdkafka_error_code() {
        Some(code) if silent.contains(&code) => KafkaError::Unreachable { brokers, timeout },
        _ => KafkaError::Refused { action: action.to_owned(), brokers, source: Box::new(source) },
    }
}

fn client_config(kafka: &KafkaConfig) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set_log_level(RDKafkaLogLevel::Warning);
    config.set("client.id", CLIENT_ID);
    for (name, value) in &kafka.properties {
        config.set(name, value.expose_secret());
    }
    config
        .set("bootstrap.servers", kafka.brokers.join(","))
        // The program's own metrics say what these would.
        .set("statistics.interval.ms", "0")
        // A topic that is missing is an error to see, not a topic with the broker's default partitions.
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
        source: Box::new(source),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rdkafka::consumer::DefaultConsumerContext;
    use rdkafka::producer::DefaultProducerContext;

    use super::*;
    use crate::config::Config;

    #[test]
    fn librdkafka_accepts_every_setting() {
        let config = Config::local("127.0.0.1:1", Path::new("/tmp")).kafka;
        let timeout = Duration::from_secs(60);
        consumer(&config, ConsumerSettings::new("group"), DefaultConsumerContext).expect("consumer");
        producer(&config, DefaultProducerContext).expect("producer");
        let _producer = future_producer(&config).expect("future producer");
        transactional_producer(&config, "id", timeout, DefaultProducerContext)
            .expect("transactional producer");
        admin(&config).expect("admin client");
    }

    #[test]
    fn a_wrong_property_names_the_section() {
        let mut config = Config::local("127.0.0.1:1", Path::new("/tmp")).kafka;
        config.properties.insert("no.such.property".to_owned(), "1".into());
        let error = admin(&config).expect_err("librdkafka knows no such property");
        assert_eq!(
            error.to_string(),
            "cannot set up a Kafka admin client: check [kafka.properties] in the configuration, brokers=`127.0.0.1:1`"
        );
    }

    #[test]
    fn ours_win_over_passed_through_properties() {
        let mut config = Config::local("127.0.0.1:1", Path::new("/tmp")).kafka;
        config.properties.insert("isolation.level".to_owned(), "read_uncommitted".into());
        config.properties.insert("client.id".to_owned(), "mine".into());
        let made = consumer_config(&config, ConsumerSettings::new("group"));
        assert_eq!(made.get("isolation.level"), Some("read_committed"));
        assert_eq!(made.get("client.id"), Some("mine"));
    }
}
