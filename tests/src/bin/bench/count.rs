//! The ceiling: librdkafka's consumer on one thread, which looks at nothing but whether there is a message.

use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use tidemark_tests::kafka::Kafka;

use crate::case::Case;
use crate::load::{Loaded, bar};
use crate::machine;
use crate::report::Measured;

/// Reads the topic from its beginning to its end. The time starts with the first message, since it is not connecting
/// that is measured.
///
/// # Panics
/// When no message comes for 30 s.
pub(crate) fn measure(kafka: &Kafka, case: Case, input: &Loaded) -> Measured {
    let mut assignment = TopicPartitionList::new();
    for partition in 0..i32::try_from(input.partitions).unwrap() {
        assignment.add_partition_offset(&input.topic, partition, Offset::Beginning).unwrap();
    }
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka.brokers())
        .set("group.id", "bench-count")
        .set("enable.auto.commit", "false")
        // After a full queue the default is to wait for a second before fetching again.
        .set("fetch.queue.backoff.ms", "10")
        .create()
        .unwrap();
    consumer.assign(&assignment).unwrap();
    let bar = bar(input.messages, &case.to_string());
    let next = || consumer.poll(Duration::from_secs(30)).expect("a message within 30 s").unwrap();

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
    Measured {
        case,
        points: input.points,
        ingest_seconds: Some(seconds),
        result_seconds: None,
        start_seconds: None,
        cpu_seconds: cpu,
        // The broker's input was made in this process, and its peak is that.
        peak_bytes: None,
    }
}
