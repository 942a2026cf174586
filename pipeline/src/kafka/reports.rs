//! What librdkafka reports of a connection: sorted by the likely cause, and logged once a minute a
//! cause.
//!
//! A client tries to connect again and again, and reports each failure twice, in its log and by its
//! error callback. Without this a process that waits for its brokers would log dozens of lines a
//! second, and an error would report only that no broker answered.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::client::Client;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer, ProducerContext};

use crate::telemetry::OnceAMinute;

/// Why no broker answers, as far as the client can tell. A later one knows more, and wins over
/// those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Nothing is known but that it is so.
    Silence,
    /// Nobody listens, or a connection broke.
    Transport,
    /// A name that cannot be resolved.
    Name,
    /// The broker hung up on a client without TLS.
    WantsTls,
    /// The broker has another certificate, or does not speak TLS.
    Tls,
    /// The broker refused the user or its password.
    Login,
}

const CAUSES: [Cause; 6] =
    [Cause::Silence, Cause::Transport, Cause::Name, Cause::WantsTls, Cause::Tls, Cause::Login];

impl Cause {
    /// By the words of librdkafka; none for what is not about a connection.
    fn of(words: &str) -> Option<Self> {
        let mentions = |pieces: &[&str]| pieces.iter().any(|piece| words.contains(piece));
        // At the first word of a client without TLS.
        let is_first_word = mentions(&["in state APIVERSION_QUERY"]) && !mentions(&["ssl://"]);
        let hung_up = is_first_word && mentions(&["Disconnected", "Invalid response size"]);
        if mentions(&["SASL authentication error", "Authentication failed", "SaslAuthenticateRequest failed"])
        {
            Some(Self::Login)
        } else if mentions(&["SSL handshake failed", "certificate verify failed", "SSL routines"]) {
            Some(Self::Tls)
        } else if mentions(&["incorrect security.protocol", "connecting to a SSL listener"]) || hung_up {
            Some(Self::WantsTls)
        } else if mentions(&["Failed to resolve"]) {
            Some(Self::Name)
        } else if mentions(&[
            "Connect to",
            "Connection setup timed out",
            "Disconnected",
            "brokers are down",
            "timed out",
            "Receive failed",
            "Send failed",
        ]) {
            Some(Self::Transport)
        } else {
            None
        }
    }

    /// What is so.
    pub(crate) fn problem(self) -> &'static str {
        match self {
            Self::Silence | Self::Transport => "no Kafka broker answered",
            Self::Name => "the name of a Kafka broker is unknown",
            Self::WantsTls => "a Kafka broker hangs up on a client without TLS",
            Self::Tls => "TLS with a Kafka broker fails",
            Self::Login => "a Kafka broker refuses the login",
        }
    }

    /// The same after so much patience.
    pub(crate) fn after(self, patience: Duration) -> String {
        match self {
            Self::Silence | Self::Transport => {
                format!("{} within {}", self.problem(), humantime::format_duration(patience))
            }
            _ => self.problem().to_owned(),
        }
    }

    /// Where to look.
    pub(crate) fn remedy(self) -> &'static str {
        match self {
            Self::Silence | Self::Transport | Self::Name => {
                "start one, or name a running one in `brokers` of [kafka] or in TIDEMARK_KAFKA__BROKERS"
            }
            Self::WantsTls => {
                "set \"security.protocol\" of [kafka.properties] to ssl or sasl_ssl, or name the broker's port without TLS"
            }
            Self::Tls => {
                "check \"ssl.ca.location\" and \"security.protocol\" of [kafka.properties], and that the port is one with TLS"
            }
            Self::Login => {
                "check \"sasl.username\", \"sasl.password\" and \"sasl.mechanism\" of [kafka.properties]"
            }
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.problem(), self.remedy())
    }
}

/// What one client has reported. Cheap to clone; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reports {
    worst: Arc<AtomicU8>,
}

impl Reports {
    /// The cause of the client's trouble since it was made, or since it was last well.
    pub(crate) fn cause(&self) -> Cause {
        CAUSES[usize::from(self.worst.load(Ordering::Relaxed)).min(CAUSES.len() - 1)]
    }

    /// A broker has answered.
    pub(crate) fn well(&self) {
        self.worst.store(0, Ordering::Relaxed);
    }

    /// For [`ClientContext::log`].
    pub(crate) fn log(&self, level: RDKafkaLogLevel, facility: &str, words: &str) {
        use RDKafkaLogLevel::{Debug, Info, Notice};
        let is_serious = !matches!(level, Debug | Info | Notice);
        match (Cause::of(words), level) {
            // A connection that was idle and is closed is none of these, and comes as information.
            (Some(cause), _) if is_serious || cause > Cause::Transport => self.note(cause, words),
            (_, Debug | Info | Notice) => tracing::debug!(target: "librdkafka", "{facility}: {words}"),
            // What ends a session or loses data comes as an error to who asked.
            _ => {
                if let Some(held_back) = due(&format!("{facility} {}", without_numbers(words))) {
                    tracing::warn!(target: "librdkafka", held_back, "{facility}: {words}");
                }
            }
        }
    }

    /// For [`ClientContext::error`].
    pub(crate) fn error(&self, error: &KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        let cause = match code {
            // The end of a partition is news for a reader, not a fault.
            RDKafkaErrorCode::PartitionEOF => return,
            RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => {
                Some(Cause::Login)
            }
            RDKafkaErrorCode::SSL => Some(Cause::Tls),
            RDKafkaErrorCode::Resolve => Some(Cause::Name),
            RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::OperationTimedOut => Some(Cause::of(reason).unwrap_or(Cause::Transport)),
            _ => None,
        };
        match cause {
            Some(cause) => self.note(cause, reason),
            None => {
                if let Some(held_back) = due(&error.to_string()) {
                    tracing::warn!(%error, reason, held_back, "kafka");
                }
            }
        }
    }

    fn note(&self, cause: Cause, words: &str) {
        self.worst.fetch_max(cause as u8, Ordering::Relaxed);
        tracing::debug!(target: "librdkafka", "{words}");
        if let Some(held_back) = due(cause.problem()) {
            tracing::warn!(reason = words, held_back, "{cause}");
        }
    }
}

/// How many lines of this key were held back, if one is due now. All clients of the process share
/// the count.
fn due(key: &str) -> Option<u64> {
    static LINES: LazyLock<(Instant, OnceAMinute)> =
        LazyLock::new(|| (Instant::now(), OnceAMinute::default()));
    let (started, lines) = &*LINES;
    lines.take(key, started.elapsed())
}

/// Words that differ only in ports, ids and times are the same line.
fn without_numbers(words: &str) -> String {
    words.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// A context of a client that tells why its brokers do not answer.
pub(crate) trait Reporting: ClientContext {
    fn reports(&self) -> &Reports;
}

/// A client that is asked something, and hands out what it has to report when it is polled.
pub(crate) trait Asked {
    type Context: Reporting;

    fn client(&self) -> &Client<Self::Context>;

    /// Takes in what it has reported until now. A consumer must have nothing to read yet.
    fn hear(&self);
}

/// Reports are there when a request has failed; this is for handing them over.
const HEARING: Duration = Duration::from_millis(20);
/// A consumer hands out one report at a time.
const MOST_HEARD: usize = 16;

impl<C: ProducerContext + Reporting + 'static> Asked for BaseProducer<C> {
    type Context = C;

    fn client(&self) -> &Client<C> {
        Producer::client(self)
    }

    fn hear(&self) {
        self.poll(HEARING);
    }
}

impl<C: ConsumerContext + Reporting + 'static> Asked for BaseConsumer<C> {
    type Context = C;

    fn client(&self) -> &Client<C> {
        Consumer::client(self)
    }

    fn hear(&self) {
        for _ in 0..MOST_HEARD {
            if self.poll(HEARING).is_none() {
                return;
            }
        }
    }
}

/// The context of clients that need no other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plain {
    reports: Reports,
}

impl Reporting for Plain {
    fn reports(&self) -> &Reports {
        &self.reports
    }
}

impl ClientContext for Plain {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, words: &str) {
        self.reports.log(level, facility, words);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.reports.error(&error, reason);
    }
}

impl ConsumerContext for Plain {}

impl ProducerContext for Plain {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_by_the_words_of_librdkafka() {
        let cases = [
            (
                "[thrd:sasl_plaintext://h:1/bootstrap]: sasl_plaintext://h:1/bootstrap: SASL authentication error: Authentication failed: Invalid username or password (after 10ms in state AUTH_REQ)",
                Some(Cause::Login),
            ),
            (
                "[thrd:ssl://h:1/bootstrap]: ssl://h:1/bootstrap: SSL handshake failed: error:0A00010B:SSL routines::wrong version number: connecting to a PLAINTEXT broker listener? (after 1ms in state SSL_HANDSHAKE)",
                Some(Cause::Tls),
            ),
            (
                "ssl://h:1/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker certificate could not be verified",
                Some(Cause::Tls),
            ),
            (
                "h:1/bootstrap: Disconnected while requesting ApiVersion: might be caused by incorrect security.protocol configuration (connecting to a SSL listener?) or broker version is < 0.10 (see api.version.request)",
                Some(Cause::WantsTls),
            ),
            (
                "[thrd:h:1/bootstrap]: h:1/bootstrap: Disconnected: connection closed by peer: receive 0 after POLLIN (after 6ms in state APIVERSION_QUERY)",
                Some(Cause::WantsTls),
            ),
            (
                "[thrd:sasl_ssl://h:1/bootstrap]: sasl_ssl://h:1/bootstrap: Disconnected (after 6ms in state APIVERSION_QUERY)",
                Some(Cause::Transport),
            ),
            ("h:1/1: Disconnected (after 600000ms in state UP)", Some(Cause::Transport)),
            ("h:1/bootstrap: Failed to resolve 'h:1': Name or service not known", Some(Cause::Name)),
            (
                "h:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)",
                Some(Cause::Transport),
            ),
            ("2/2 brokers are down", Some(Cause::Transport)),
            ("Configuration property x is deprecated", None),
        ];
        for (words, expected) in cases {
            assert_eq!(Cause::of(words), expected, "{words}");
        }
    }

    #[test]
    fn the_cause_that_says_most_is_kept_until_all_is_well() {
        let reports = Reports::default();
        assert_eq!(reports.cause(), Cause::Silence);
        reports.log(RDKafkaLogLevel::Error, "FAIL", "SASL authentication error: Authentication failed");
        reports.error(&KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        reports.error(&KafkaError::Global(RDKafkaErrorCode::PartitionEOF), "");
        assert_eq!(reports.cause(), Cause::Login);
        reports.well();
        assert_eq!(reports.cause(), Cause::Silence);
    }
}
