//! The ceilings: librdkafka's consumer on one thread, which looks at nothing but whether there is a
//! message, and the same with Tidemark's decoder behind it.

use std::time::{Duration, Instant};

use points::decode::{DecodeOptions, Decoder, Points};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use tidemark_tests::kafka::Kafka;

use crate::case::Case;
use crate::load::{Loaded, bar};
use crate::machine;
use crate::report::Measured;

/// Decoded points that are kept before they are dropped: about an epoch.
const KEPT: usize = 1_000_000;

/// Reads the topic from its beginning to its end, and decodes it if asked to. The time starts with
/// the first message, since it is not connecting that is measured.
///
/// # Panics
/// When no message comes for 30 s, and when the decoder refuses a point.
pub(crate) fn measure(kafka: &Kafka, case: Case, decode: bool, input: &Loaded) -> Measured {
    let mut assignment = TopicPartitionList::new();
    for partition in 0..i32::try_from(input.partitions).unwrap() {
        assignment.add_partition_offset(&input.topic, partition, Offset::Beginning).unwrap();
    }
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka.brokers())
        .set("group.id", "bench-read")
        .set("enable.auto.commit", "false")
        // After a full queue the default is to wait for a second before fetching again.
        .set("fetch.queue.backoff.ms", "10")
        .create()
        .unwrap();
    consumer.assign(&assignment).unwrap();
    let bar = bar(input.messages, &case.to_string());
    let mut reader = Reader::default();
    let mut next = || {
        let message = consumer.poll(Duration::from_secs(30)).expect("a message within 30 s").unwrap();
        if decode {
            reader.decode(message.payload().unwrap_or_default());
        }
    };

    next();
    let start = Instant::now();
    let cpu = machine::cpu_seconds(std::process::id());
    for read in 2..=input.messages {
        next();
        if read % 100_000 == 0 {
            bar.set_position(read as u64);
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let cpu = machine::cpu_seconds(std::process::id()) - cpu;
    bar.finish_and_clear();
    if decode {
        assert_eq!(reader.decoded, input.points, "{case}: points decoded");
    }
    Measured {
        read_seconds: Some(seconds),
        cpu_seconds: vec![("", cpu)],
        ..Measured::new(case, input.points)
    }
}

/// The decoder as `ingest` uses it.
struct Reader {
    decoder: Decoder,
    points: Points,
    decoded: usize,
}

impl Default for Reader {
    fn default() -> Self {
        let labels = vec!["host".to_owned(), "region".to_owned()];
        Self {
            decoder: Decoder::new(DecodeOptions::default(), labels),
            points: Points::default(),
            decoded: 0,
        }
    }
}

impl Reader {
    fn decode(&mut self, payload: &[u8]) {
        let mut rejected = Vec::new();
        self.decoded += self.decoder.decode(payload, None, i64::MAX, &mut self.points, &mut rejected).points;
        assert!(rejected.is_empty(), "{rejected:?}");
        if self.points.len() >= KEPT {
            self.points.clear();
        }
    }
}
