//! Late rows and alert transitions, sent to their topics.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use alerts::{Status, Transition};
use arrow::array::{ArrayRef, AsArray, RecordBatch, StringViewArray};
use arrow::datatypes::DataType;
use arrow::json::LineDelimitedWriter;
use operators::fold::Late;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use crate::alerting::progress::{self, Progress};
use crate::config::TopicsConfig;
use crate::error::{Error, Result};
use crate::kafka::{self, Reports};
use crate::roles::context::Context;

const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);
/// Rows in one message of the late topic, and its bytes: well below the size that brokers take by
/// default.
const LATE_ROWS: usize = 1_000;
const LATE_BYTES: usize = 512 << 10;
/// Of a message beside its payload: headers, what Kafka adds.
const MARGIN: usize = 4 << 10;
/// What is left of each text of a message that would be larger than its topic takes.
const CUT_BYTES: usize = 1 << 10;

/// Remembers that a message was refused: flushing alone only means that none is waiting any more.
/// One that is too large costs itself alone.
struct Deliveries {
    context: Context,
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
        if let Err((error, message)) = result {
            if kafka::is_too_large(error) {
                let bytes = message.payload_len() + message.key_len();
                self.context.given_up(message.topic(), "an alert or late row", bytes);
                return;
            }
            tracing::warn!(%error, "an alert or late row was not delivered, the role starts again before it");
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        }
    }
}

/// Sends at least once; ids and rows are the same when a replay sends them again.
pub(super) struct Announcer {
    producer: ThreadedProducer<Deliveries>,
    /// Bytes that each topic takes in one message.
    limits: Limits,
    late: String,
    alerts: String,
    alert_states: String,
}

impl Announcer {
    pub(super) fn new(context: &Context) -> Result<Self> {
        let mut config = kafka::producer_config(&context.config.kafka);
        // A message is given up by the broker's refusal only, never by the clock: the rest of the
        // log waits.
        config.set("message.timeout.ms", "0");
        let topics = &context.config.topics;
        let limits = Limits::ask(context, topics)?;
        // A batch is refused whole when it is larger than a message may be.
        config.set("batch.size", limits.least().to_string());
        let deliveries =
            Deliveries { context: context.clone(), refused: Mutex::default(), reports: Reports::default() };
        let producer = config.create_with_context(deliveries).map_err(Error::client("set up a producer"))?;
        Ok(Self {
            producer,
            limits,
            late: topics.late.clone(),
            alerts: topics.alerts.clone(),
            alert_states: topics.alert_states(),
        })
    }

    /// One message a transition. The key, rule and labels, keeps the transitions of one alert in
    /// order. The topic of states has the newest of each alert, until it neither fires nor is
    /// pending any more.
    pub(super) fn alert(&self, transition: &Transition) -> Result<()> {
        let key = json(&(&transition.rule, &transition.labels))?;
        let mut payload = json(transition)?;
        if payload.len() + key.len() > self.limits.alerts {
            payload = json(&with_short_texts(transition))?;
        }
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

    /// The rollup of the late points alone, a JSON object a line, and how late they were. One
    /// message, or several when there are many rows; only the first counts the points.
    pub(super) fn late(&self, late: &Late) -> Result<()> {
        let rows = late.rows.num_rows();
        self.late_rows(late, 0, rows.min(LATE_ROWS), late.points)?;
        for from in (LATE_ROWS..rows).step_by(LATE_ROWS) {
            self.late_rows(late, from, LATE_ROWS.min(rows - from), 0)?;
        }
        Ok(())
    }

    fn late_rows(&self, late: &Late, from: usize, rows: usize, points: u64) -> Result<()> {
        let sent = late.rows.slice(from, rows);
        let mut payload = lines(&sent)?;
        if payload.len() > LATE_BYTES.min(self.limits.late) && rows > 1 {
            let half = rows / 2;
            self.late_rows(late, from, half, points)?;
            return self.late_rows(late, from + half, rows - half, 0);
        }
        if payload.len() > self.limits.late {
            payload = lines(&with_short_columns(&sent)?)?;
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
        kafka::flush(&self.producer, FLUSH_TIMEOUT).map_err(Error::client("send alerts and late rows"))?;
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
            if kafka::is_too_large(&error) {
                let bytes = payload.map_or(0, <[u8]>::len) + key.map_or(0, <[u8]>::len);
                self.producer.context().context.given_up(topic, "an alert or late row", bytes);
                return Ok(());
            }
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

/// Payload that the topics take, as the broker reports at the start of a session.
struct Limits {
    late: usize,
    alerts: usize,
}

impl Limits {
    fn ask(context: &Context, topics: &TopicsConfig) -> Result<Self> {
        let client = kafka::admin(&context.config.kafka)?;
        let states = topics.alert_states();
        let asked = kafka::message_limits(&client, [&topics.late, &topics.alerts, &states]);
        let limits = context.runtime.block_on(asked);
        let payload = limits.map(|limit| limit.min(kafka::MAX_MESSAGE_BYTES).saturating_sub(MARGIN).max(1));
        Ok(Self { late: payload[0], alerts: payload[1].min(payload[2]) })
    }

    fn least(&self) -> usize {
        self.late.min(self.alerts).min(1 << 20)
    }
}

/// The rows as JSON, one a line.
fn lines(rows: &RecordBatch) -> Result<Vec<u8>> {
    let mut payload = Vec::new();
    let mut writer = LineDelimitedWriter::new(&mut payload);
    writer.write(rows).and_then(|()| writer.finish()).map_err(operators::Error::from)?;
    drop(writer);
    Ok(payload)
}

/// The rows with the beginning of each text. Texts of points are bounded, and what SQL makes of
/// them need not be.
fn with_short_columns(rows: &RecordBatch) -> Result<RecordBatch> {
    let columns = rows.columns().iter().map(|column| match column.data_type() {
        DataType::Utf8View => {
            let texts = column.as_string_view().iter().map(|text| text.map(short));
            Arc::new(texts.collect::<StringViewArray>()) as ArrayRef
        }
        _ => Arc::clone(column),
    });
    let rows = RecordBatch::try_new(rows.schema(), columns.collect()).map_err(operators::Error::from)?;
    Ok(rows)
}

/// The transition with the beginning of what people read. Its labels are what it is known by, and
/// stay.
fn with_short_texts(transition: &Transition) -> Transition {
    let mut cut = transition.clone();
    let others = [&mut cut.owner, &mut cut.runbook].into_iter().flatten();
    for text in [&mut cut.summary, &mut cut.description].into_iter().chain(others) {
        *text = short(text).to_owned();
    }
    cut
}

fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(CUT_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_are_too_long_are_cut_between_characters() {
        let long = "ä".repeat(900_000);
        let texts = StringViewArray::from_iter([Some(long.as_str()), None, Some("short")]);
        let rows = RecordBatch::try_from_iter([("host", Arc::new(texts) as ArrayRef)]).unwrap();
        let cut = with_short_columns(&rows).unwrap();
        assert_eq!((cut.num_rows(), cut.schema()), (3, rows.schema()));
        let payload = lines(&cut).unwrap();
        assert!(payload.len() < CUT_BYTES + 100, "{}", payload.len());
        assert!(payload.ends_with(b"{}\n{\"host\":\"short\"}\n"), "{}", String::from_utf8_lossy(&payload));
    }
}
