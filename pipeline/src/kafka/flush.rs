//! Waiting for what a producer has sent.

use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{Producer, ProducerContext};

const STEP: Duration = Duration::from_millis(2);

/// Waits until the brokers have answered for every message.
///
/// rust-rdkafka's own `flush` looks again only when 100 ms, or the time that it was given, are over,
/// however soon the answers come. So it is given little at a time.
pub(crate) fn flush<C: ProducerContext>(
    producer: &impl Producer<C>,
    patience: Duration,
) -> Result<(), KafkaError> {
    let deadline = Instant::now() + patience;
    loop {
        match producer.flush(STEP.min(deadline.saturating_duration_since(Instant::now()))) {
            Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)) if Instant::now() < deadline => {}
            outcome => return outcome,
        }
    }
}
