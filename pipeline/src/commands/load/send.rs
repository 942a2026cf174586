//! Sending: points into messages, messages to partitions, at the wanted pace, every delivery
//! confirmed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use points::book::SeriesBook;
use points::encode::{Encoder, heartbeat};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use super::disorder::Due;
use super::{LoadArgs, LoadError};
use crate::clock::Clock;
use crate::config::{Config, KafkaConfig};
use crate::kafka::{self, Reporting, Reports};

/// How long the broker has to answer how many partitions there are.
const METADATA_TIMEOUT: Duration = Duration::from_secs(10);

/// Messages stay below what brokers accept by default, a megabyte, whatever `ingest` would accept.
const MAX_BATCH_BYTES: usize = 900 << 10;

pub(super) struct Sender {
    producer: BaseProducer<Confirmations>,
    kafka: KafkaConfig,
    topic: String,
    encoder: Encoder,
    /// The message being filled for each partition.
    batches: Vec<Batch>,
    points_per_message: u32,
    max_batch_bytes: usize,
    line: String,
    sent: u64,
    sent_to: Vec<i64>,
    pace: Option<Pace>,
    clock: Clock,
}

#[derive(Debug, Clone, Default)]
struct Batch {
    text: String,
    points: u32,
    /// Key of the only series in it; a message of several series has no key.
    key: Option<String>,
}

/// When points are due: at this multiple of real time, counted from the first.
#[derive(Debug)]
struct Pace {
    speed: f64,
    /// Event time and elapsed time of the first point.
    start: Option<(i64, Duration)>,
}

/// The broker's answer to each message. Clones share the numbers.
#[derive(Debug, Clone, Default)]
struct Confirmations {
    delivered: Arc<AtomicU64>,
    /// The first message that was given up.
    failed: Arc<OnceLock<ClientError>>,
    reports: Reports,
}

impl ClientContext for Confirmations {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, words: &str) {
        self.reports.log(level, facility, words);
    }

    fn error(&self, error: ClientError, reason: &str) {
        self.reports.error(&error, reason);
    }
}

impl Reporting for Confirmations {
    fn reports(&self) -> &Reports {
        &self.reports
    }
}

impl ProducerContext for Confirmations {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        match result {
            Ok(_) => {
                self.delivered.fetch_add(1, Ordering::AcqRel);
            }
            Err((error, _)) => {
                // Later failures have the same cause.
                let _ = self.failed.set(error.clone());
            }
        }
    }
}

/// Line protocol cannot write every series; JSON can.
fn cannot_be_written(problem: impl std::fmt::Display) -> LoadError {
    LoadError::Options(format!("{problem}: use --encoding json"))
}

impl Sender {
    /// A sender of these series to all partitions of the topic. Waits for the broker to name them.
    pub(super) fn new(
        args: &LoadArgs,
        config: &Config,
        topic: &str,
        book: &SeriesBook,
        clock: Clock,
    ) -> Result<Self, LoadError> {
        let mut encoder = Encoder::new(args.encoding.into());
        encoder.prepare(book).map_err(cannot_be_written)?;
        let producer = kafka::producer(&config.kafka, Confirmations::default())?;
        let partitions = kafka::partition_count(&config.kafka, &producer, topic, METADATA_TIMEOUT)?;
        if partitions == 0 {
            return Err(LoadError::NoTopic { topic: topic.to_owned() });
        }
        Ok(Self {
            producer,
            kafka: config.kafka.clone(),
            topic: topic.to_owned(),
            encoder,
            batches: vec![Batch::default(); partitions],
            points_per_message: args.points_per_message,
            max_batch_bytes: config.ingest.max_message_bytes.min(MAX_BATCH_BYTES),
            line: String::new(),
            sent: 0,
            sent_to: vec![0; partitions],
            pace: args.speed.map(|speed| Pace { speed, start: None }),
            clock,
        })
    }

    pub(super) fn partitions(&self) -> i32 {
        i32::try_from(self.batches.len()).expect("Kafka counts partitions in 32 bits")
    }

    /// Sends a point, when it is due.
    pub(super) fn send(&mut self, book: &SeriesBook, due: Due) -> Result<(), LoadError> {
        self.wait_for(due.at)?;
        let point = due.point;
        let series = book.get(point.series);
        self.line.clear();
        self.encoder
            .append(book, point.series, point.time, point.value, &mut self.line)
            .map_err(cannot_be_written)?;
        // The remainder is below the number of partitions, which fits.
        let partition = (series.hash % self.batches.len() as u64) as usize;
        if self.batches[partition].text.len() + self.line.len() > self.max_batch_bytes {
            self.send_batch(partition)?;
        }
        let batch = &mut self.batches[partition];
        batch.text.push_str(&self.line);
        batch.points += 1;
        if batch.points == 1 {
            batch.key = Some(series.key.clone());
        } else if batch.key.as_ref() != Some(&series.key) {
            batch.key = None;
        }
        if batch.points >= self.points_per_message {
            self.send_batch(partition)?;
        }
        Ok(())
    }

    /// Messages to each partition so far.
    pub(super) fn sent(&self) -> &[i64] {
        &self.sent_to
    }

    /// Sends what is left in unfilled messages.
    pub(super) fn finish_points(&mut self) -> Result<(), LoadError> {
        for partition in 0..self.batches.len() {
            self.send_batch(partition)?;
        }
        Ok(())
    }

    /// Sends a heartbeat to every partition, after its points.
    pub(super) fn heartbeat(&mut self, time: i64) -> Result<(), LoadError> {
        let message = heartbeat(time);
        for partition in 0..self.partitions() {
            self.produce(partition, None, &message)?;
        }
        Ok(())
    }

    /// Waits until the brokers have confirmed every message, and returns how many that were.
    /// librdkafka tries each again until its time is up (five minutes unless configured), so this
    /// ends.
    pub(super) fn confirm(&mut self) -> Result<u64, LoadError> {
        while self.producer.in_flight_count() > 0 {
            self.check_failed()?;
            match self.producer.flush(Duration::from_secs(1)) {
                Ok(()) | Err(ClientError::Flush(RDKafkaErrorCode::OperationTimedOut)) => {}
                Err(error) => return Err(self.undelivered(error)),
            }
        }
        self.check_failed()?;
        let delivered = self.producer.context().delivered.load(Ordering::Acquire);
        debug_assert_eq!(delivered, self.sent);
        Ok(delivered)
    }

    fn send_batch(&mut self, partition: usize) -> Result<(), LoadError> {
        if self.batches[partition].points == 0 {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batches[partition]);
        let number = i32::try_from(partition).expect("Kafka counts partitions in 32 bits");
        // The line break at the end is between points, not after the last.
        self.produce(number, batch.key.as_deref(), batch.text.trim_end_matches('\n'))?;
        // The buffer is used again.
        let mut text = batch.text;
        text.clear();
        self.batches[partition].text = text;
        Ok(())
    }

    fn produce(&mut self, partition: i32, key: Option<&str>, message: &str) -> Result<(), LoadError> {
        let mut record: BaseRecord<'_, str, str> =
            BaseRecord::to(&self.topic).partition(partition).payload(message);
        if let Some(key) = key {
            record = record.key(key);
        }
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                // Full of messages that wait for the broker: confirmations make room.
                Err((ClientError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                    self.producer.poll(Duration::from_millis(100));
                    self.check_failed()?;
                    record = again;
                }
                Err((error, _)) => return Err(self.undelivered(error)),
            }
        }
        self.sent += 1;
        self.sent_to[usize::try_from(partition).unwrap_or_default()] += 1;
        if self.sent.is_multiple_of(1_000) {
            self.producer.poll(Duration::ZERO);
            self.check_failed()?;
        }
        Ok(())
    }

    /// At a pace: returns when a point of this event time is due.
    fn wait_for(&mut self, at: i64) -> Result<(), LoadError> {
        let now = self.clock.monotonic();
        let Some(pace) = &mut self.pace else { return Ok(()) };
        let (first, started) = *pace.start.get_or_insert((at, now));
        let ahead = Duration::from_nanos(at.saturating_sub(first).max(0).unsigned_abs());
        let Ok(due) = Duration::try_from_secs_f64(ahead.as_secs_f64() / pace.speed) else {
            return Err(LoadError::Options("the pace of --speed is too slow for these files".to_owned()));
        };
        let due = started.saturating_add(due);
        if due <= now {
            return Ok(());
        }
        // A message that is not full would be late if it waited for more.
        self.finish_points()?;
        loop {
            let left = due.saturating_sub(self.clock.monotonic());
            if left.is_zero() {
                return self.check_failed();
            }
            // Waits on the queue of confirmations, which is all there is to do.
            self.producer.poll(left.min(Duration::from_secs(1)));
        }
    }

    fn check_failed(&self) -> Result<(), LoadError> {
        match self.producer.context().failed.get() {
            Some(error) => Err(self.undelivered(error.clone())),
            None => Ok(()),
        }
    }

    fn undelivered(&self, source: ClientError) -> LoadError {
        let delivered = self.producer.context().delivered.load(Ordering::Acquire);
        tracing::debug!(brokers = self.kafka.brokers.join(","), %source, "delivery failed");
        LoadError::Delivery { topic: self.topic.clone(), delivered, source: Box::new(source) }
    }
}

/// A bar on a terminal; nothing anywhere else.
pub(super) fn progress_bar(points: u64, visible: bool) -> ProgressBar {
    if !visible {
        return ProgressBar::hidden();
    }
    let template = "{bar:30} {human_pos}/{human_len} points  {per_sec}  {eta} left";
    let style = ProgressStyle::with_template(template).expect("the template is valid");
    ProgressBar::new(points).with_style(style)
}
