//! Brings one batch to a durable end, whatever the server answers.
//!
//! | answer | what happens to the lines |
//! |---|---|
//! | 204 | done |
//! | 400 | halved until the malformed line is alone; it goes to the callback, the others are written |
//! | 413 | halved; a single line that is too large goes to the callback |
//! | 422, 500 "partial write" | halved until the dropped lines are known; writing the others again changes nothing |
//! | 429, 503 | sent again after `Retry-After` |
//! | other 5xx, no answer | sent again after a growing pause with jitter, without end |
//! | 401, 403, 404, anything else | kept, tried again at the longest pause, and [`Delivery::refusal`] tells why |

use std::fmt;
use std::io::Write as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use super::InfluxConfig;
use super::answer::Answer;
use super::client::Client;
use super::encode::Line;
use super::stats::Counters;
use crate::Error;
use crate::http::delays;

/// What is shown of a rejected line, in bytes. One label can be longer than a log line should be.
const SHOWN_BYTES: usize = 256;

/// A line that InfluxDB will never take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedLine {
    /// The beginning of the line, or of the point of a withdrawn row that could not be deleted:
    /// enough to know it by.
    pub line: String,
    /// In the server's words.
    pub reason: String,
}

impl RejectedLine {
    fn new(mut line: String, reason: &str) -> Self {
        if line.len() > SHOWN_BYTES {
            line.truncate(line.floor_char_boundary(SHOWN_BYTES));
            line.push('…');
        }
        Self { line, reason: reason.to_owned() }
    }

    /// The reason without what it quotes of the line: rows that are rejected for one cause share
    /// it.
    pub fn cause(&self) -> String {
        self.reason.split('\'').step_by(2).collect()
    }

    /// Whether a field of the line has another type than the bucket has it with. This is of the
    /// rollup, not of the line: InfluxDB refuses all of its rows until the field is renamed or the
    /// old rows are gone.
    pub fn is_type_conflict(&self) -> bool {
        self.reason.contains("field type conflict")
    }
}

/// Called once for each line given up. Must not block.
pub type OnRejected = Arc<dyn Fn(RejectedLine) + Send + Sync>;

/// Called with the duration of each write request. Must not block.
pub type OnPost = Arc<dyn Fn(Duration) + Send + Sync>;

/// Whether requests may still be sent. Must not block.
pub type Permit = Arc<dyn Fn() -> bool + Send + Sync>;

/// The server refuses everything until a person changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) message: String,
}

/// What the deliveries of one sink share.
pub(crate) struct Delivery {
    client: Client,
    retry_min: Duration,
    retry_max: Duration,
    rejected: OnRejected,
    pub(crate) on_post: OnceLock<OnPost>,
    pub(crate) permit: OnceLock<Permit>,
    pub(crate) counters: Counters,
    /// Set while the server refuses.
    pub(crate) refusal: watch::Sender<Option<Refusal>>,
}

impl Delivery {
    pub(crate) fn new(client: Client, config: &InfluxConfig, rejected: OnRejected) -> Self {
        Self {
            client,
            retry_min: config.retry_min,
            retry_max: config.retry_max,
            rejected,
            on_post: OnceLock::new(),
            permit: OnceLock::new(),
            counters: Counters::default(),
            refusal: watch::Sender::new(None),
        }
    }

    /// Returns when each line is durable or was rejected.
    pub(crate) async fn deliver(&self, lines: &[Line]) {
        let mut todo = Vec::from([(0, lines.len())]);
        while let Some((start, end)) = todo.pop() {
            let part = &lines[start..end];
            let (too_small_to_halve, reason) = match self.write(part).await {
                Outcome::Durable => {
                    Counters::add(&self.counters.lines, part.len() as u64);
                    continue;
                }
                Outcome::Partial { dropped, reason } => {
                    (part.len() == 1 || dropped == Some(part.len()), reason)
                }
                Outcome::Nothing { reason } => (part.len() == 1, reason),
            };
            if too_small_to_halve {
                for line in part {
                    self.reject(line.text.clone(), &reason);
                }
                continue;
            }
            let middle = start + part.len() / 2;
            todo.push((middle, end));
            todo.push((start, middle));
        }
    }

    /// Deletes what `request` asks for. Fails at once when the server refuses.
    pub(crate) async fn delete(&self, point: impl Fn() -> String, request: &Value) -> Result<(), Error> {
        let mut delays = delays(self.retry_min, self.retry_max);
        loop {
            self.permitted().await;
            match self.client.delete(request).await {
                Answer::Done => {
                    self.counters.answered();
                    Counters::add(&self.counters.deleted, 1);
                    return Ok(());
                }
                Answer::Busy { wait, message } => self.pause(wait.or_else(|| delays.next()), &message).await,
                Answer::Malformed(reason)
                | Answer::TooLarge(reason)
                | Answer::Partial { message: reason, .. } => {
                    self.reject(point(), &format!("the withdrawn row stays: {reason}"));
                    return Ok(());
                }
                Answer::Refused { status, message } => {
                    self.counters.set_last_error(&message);
                    return Err(self.refused(&Refusal { status, message }));
                }
            }
        }
    }

    pub(crate) fn reject(&self, line: String, reason: &str) {
        Counters::add(&self.counters.rejected, 1);
        self.counters.set_last_error(reason);
        (self.rejected)(RejectedLine::new(line, reason));
    }

    pub(crate) fn refused(&self, refusal: &Refusal) -> Error {
        Error::Refused {
            place: self.client.place.clone(),
            status: refusal.status,
            message: format!(
                "{}; correct token, organisation or bucket, nothing is dropped meanwhile",
                refusal.message
            ),
        }
    }

    /// Sends the lines until the server answers about them.
    async fn write(&self, lines: &[Line]) -> Outcome {
        let body = compressed(lines);
        let mut delays = delays(self.retry_min, self.retry_max);
        loop {
            self.permitted().await;
            let started = Instant::now();
            let answer = self.client.write(body.clone()).await;
            Counters::add(&self.counters.posts, 1);
            if let Some(on_post) = self.on_post.get() {
                on_post(started.elapsed());
            }
            if !matches!(answer, Answer::Busy { .. } | Answer::Refused { .. }) {
                self.counters.answered();
                self.set_refusal(None);
            }
            match answer {
                Answer::Done => return Outcome::Durable,
                Answer::Partial { dropped, message } => return Outcome::Partial { dropped, reason: message },
                Answer::Malformed(reason) | Answer::TooLarge(reason) => return Outcome::Nothing { reason },
                Answer::Busy { wait, message } => self.pause(wait.or_else(|| delays.next()), &message).await,
                Answer::Refused { status, message } => {
                    self.set_refusal(Some(Refusal { status, message: message.clone() }));
                    self.pause(Some(self.retry_max), &message).await;
                }
            }
        }
    }

    /// Waits for ever once requests may not be sent any more: the owner of the permit drops the
    /// sink.
    async fn permitted(&self) {
        if self.permit.get().is_some_and(|permit| !permit()) {
            warn!(server = self.client.place, "nothing more is sent: others may own these rows by now");
            std::future::pending::<()>().await;
        }
    }

    async fn pause(&self, wait: Option<Duration>, message: &str) {
        let wait = wait.unwrap_or(self.retry_max);
        self.counters.failed(message);
        Counters::add(&self.counters.retries, 1);
        warn!(server = self.client.place, message, ?wait, "request failed, trying again");
        sleep(wait).await;
    }

    fn set_refusal(&self, refusal: Option<Refusal>) {
        let place = &self.client.place;
        self.refusal.send_if_modified(|current| {
            if *current == refusal {
                return false;
            }
            match &refusal {
                Some(Refusal { status, message }) => {
                    error!(server = place, status, message, "writes are refused until a person acts");
                }
                None => info!(server = place, "writes are accepted again"),
            }
            *current = refusal;
            true
        });
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("client", &self.client)
            .field("counters", &self.counters)
            .field("refusal", &*self.refusal.borrow())
            .finish_non_exhaustive()
    }
}

/// The server's answer to the lines of one request.
enum Outcome {
    Durable,
    /// Some were written.
    Partial {
        dropped: Option<usize>,
        reason: String,
    },
    /// None was written, because of one of them or of their number.
    Nothing {
        reason: String,
    },
}

fn compressed(lines: &[Line]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    for line in lines {
        encoder.write_all(line.text.as_bytes()).expect("writing to a vector cannot fail");
        encoder.write_all(b"\n").expect("writing to a vector cannot fail");
    }
    encoder.finish().expect("writing to a vector cannot fail").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_rejected_line_its_beginning_is_shown() {
        let reason = "unable to parse 'cpu,host=a n=': missing field value";
        let line = RejectedLine::new(format!("cpu,host={} n=1i", "ä".repeat(35_000)), reason);
        assert!(line.line.len() <= SHOWN_BYTES + '…'.len_utf8() && line.line.starts_with("cpu,host=ää"));
        assert!(line.line.ends_with("ä…"));
        assert_eq!(line.cause(), "unable to parse : missing field value");
        assert_eq!(RejectedLine::new("cpu n=1i".to_owned(), reason).line, "cpu n=1i");
    }
}
