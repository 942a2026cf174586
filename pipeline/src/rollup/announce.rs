//! Late rows and alert transitions, sent to their topics.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use arrow::json::LineDelimitedWriter;
use operators::fold::Late;
use operators::threshold::{Status, Transition};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use crate::alerting::progress::{self, Progress};
use crate::error::{Error, Result};
use crate::kafka::{self, Reports};
use crate::roles::Context;

const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);
/// Rows in one message of the late topic, and its bytes: well below the size that brokers take by default.
const LATE_ROWS: usize = 1_000;
const LATE_BYTES: usize = 512 << 10;

/// Remembers that a message was refused: flushing alone only says that none is waiting any more.
#[derive(Default)]
struct Deliveries {
    refused: Mutex<Option<KafkaError>>,
    reports: Reports,
}

impl Deliveries {
    fn check(&self) -> Result<()> {
        match self.refused.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(Error::client("deliver alerts and late rows")(error)),
            None => Ok(()),
        }
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, words: &str) {
        self.reports.log(level, facility, words);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.reports.error(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): Self::DeliveryOpaque) {
        if let Err((error, _)) = result {
            tracing::warn!(%error, "an alert or late row was not delivered, the role starts again before it");
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        }
    }
}

/// Sends at least once; ids and rows are the same when a replay sends them again.
pub(super) struct Announcer {
    producer: ThreadedProducer<Deliveries>,
    late: String,
    alerts: String,
    alert_states: String,
}

impl Announcer {
    pub(super) fn new(context: &Context) -> Result<Self> {
        let mut config = kafka::producer_config(&context.config.kafka);
        // A message is given up by the broker's refusal only, never by the clock: the log behind it waits.
        config.set("message.timeout.ms", "0");
        let producer =
            config.create_with_context(Deliveries::default()).map_err(Error::client("set up a producer"))?;
        let topics = &context.config.topics;
        Ok(Self {
            producer,
            late: topics.late.clone(),
            alerts: topics.alerts.clone(),
            alert_states: topics.alert_states(),
        })
    }

    /// One message a transition. The key, rule and labels, keeps the transitions of one alert in order. The topic of states
    /// has the newest of each alert, until it neither fires nor is pending any more.
    pub(super) fn alert(&self, transition: &Transition) -> Result<()> {
        let payload = json(transition)?;
        let key = json(&(&transition.rule, &transition.labels))?;
        self.send(&self.alerts, Some(&key), Some(&payload), OwnedHeaders::new())?;
        let is_active = matches!(transition.status, Status::Pending | Status::Firing);
        let state = is_active.then_some(payload.as_slice());
        self.send(&self.alert_states, Some(&key), state, OwnedHeaders::new())
    }

    /// How far event time of a partition has come, for those who show alerts.
    pub(super) fn progress(&self, partition: i32, progress: &Progress) -> Result<()> {
        let key = progress::key(partition);
        self.send(&self.alert_states, Some(key.as_bytes()), Some(&json(progress)?), OwnedHeaders::new())
    }

    /// The rollup of the late points alone, a JSON object a line, and how late they were. One message, or
    /// several when there are many rows; only the first counts the points.
    pub(super) fn late(&self, late: &Late) -> Result<()> {
        let rows = late.rows.num_rows();
        self.late_rows(late, 0, rows.min(LATE_ROWS), late.points)?;
        for from in (LATE_ROWS..rows).step_by(LATE_ROWS) {
            self.late_rows(late, from, LATE_ROWS.min(rows - from), 0)?;
        }
        Ok(())
    }

    fn late_rows(&self, late: &Late, from: usize, rows: usize, points: u64) -> Result<()> {
        let mut payload = Vec::new();
        let mut writer = LineDelimitedWriter::new(&mut payload);
        writer
            .write(&late.rows.slice(from, rows))
            .and_then(|()| writer.finish())
            .map_err(operators::Error::from)?;
        drop(writer);
        if payload.len() > LATE_BYTES && rows > 1 {
            let half = rows / 2;
            self.late_rows(late, from, half, points)?;
            return self.late_rows(late, from + half, rows - half, 0);
        }
        let points = points.to_string();
        let age = (late.age / 1_000_000).to_string();
        let mut headers = OwnedHeaders::new();
        for (key, value) in
            [("rollup", late.rollup.name.as_str()), ("points", points.as_str()), ("late_ms", age.as_str())]
        {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        self.send(&self.late, Some(late.rollup.name.as_bytes()), Some(&payload), headers)
    }

    /// Ok means that everything sent before is on the topics.
    pub(super) fn flush(&self) -> Result<()> {
        self.producer.flush(FLUSH_TIMEOUT).map_err(Error::client("send alerts and late rows"))?;
        self.producer.context().check()
    }

    fn send(
        &self,
        topic: &str,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
        headers: OwnedHeaders,
    ) -> Result<()> {
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).headers(headers);
        if let Some(payload) = payload {
            record = record.payload(payload);
        }
        if let Some(key) = key {
            record = record.key(key);
        }
        while let Err((error, unsent)) = self.producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(Error::client("send alerts and late rows")(error));
            }
            self.flush()?;
            record = unsent;
        }
        Ok(())
    }
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::Refused(format!("not expressible as JSON: {error}")))
}
