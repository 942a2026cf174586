//! The email sink: one message a recipient, so that one bad address holds up no other.
//!
//! A write that does not reach every recipient fails with [`Error::Recipients`]. The sink remembers
//! whom it reached: the same notification written again goes to the others alone. Retrying is the
//! caller's part, as it knows what else is waiting.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use lettre::Message;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::client::AsyncSmtpConnection;
use tracing::warn;

use super::EmailConfig;
use super::encode::{Mail, encode};
use super::server::{Failure, Server, quit};
use crate::{Error, FailedRecipient, Notification, Sink};

/// Notifications in part delivered that are remembered; older ones may reach a recipient twice.
const REMEMBERED: usize = 1024;

/// Sends notifications over SMTP. Ok from `write` means that the server took every message.
#[derive(Debug)]
pub struct EmailSink {
    server: Server,
    from: Mailbox,
    to: Vec<Mailbox>,
    subject_prefix: String,
    reached: Mutex<Reached>,
}

impl EmailSink {
    /// Checks the configuration; the server is contacted by the first write.
    pub fn new(config: &EmailConfig) -> Result<Self, Error> {
        if config.to.is_empty() {
            return Err(Error::Config("cannot send email: no recipients, set at least one".into()));
        }
        let mut to = Vec::new();
        for address in &config.to {
            to.push(mailbox(address)?);
        }
        Ok(Self {
            server: config.server()?,
            from: mailbox(&config.from)?,
            to,
            subject_prefix: config.subject_prefix.clone(),
            reached: Mutex::default(),
        })
    }

    /// Over `connection`, or a new one; none is left where the message was not taken.
    async fn send(
        &self,
        mail: &Mail,
        to: &Mailbox,
        connection: &mut Option<AsyncSmtpConnection>,
    ) -> Result<(), FailedRecipient> {
        let address = to.email.to_string();
        let message = match message(mail, &self.from, to) {
            Ok(message) => message,
            Err(error) => {
                let reason = error.to_string();
                return Err(FailedRecipient { address, permanent: true, doubtful: false, reason });
            }
        };
        let failed = |failure: Failure| {
            let Failure { permanent, doubtful, reason } = failure;
            FailedRecipient { address, permanent, doubtful, reason }
        };
        let mut open = match connection.take() {
            Some(open) => open,
            None => match self.server.connect().await {
                Ok(open) => open,
                Err(failure) => return Err(failed(failure)),
            },
        };
        self.server.send(&mut open, &message).await.map_err(failed)?;
        *connection = Some(open);
        Ok(())
    }

    fn with_reached<T>(&self, change: impl FnOnce(&mut Reached) -> T) -> T {
        change(&mut self.reached.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Sink<Arc<Notification>> for EmailSink {
    async fn write(&self, notification: Arc<Notification>) -> Result<(), Error> {
        let mail = encode(&notification, &self.subject_prefix, self.from.email.domain());
        let mut failed = Vec::new();
        let mut reached = 0;
        let mut connection = None;
        for to in &self.to {
            let address = to.email.to_string();
            if self.with_reached(|reached| reached.contains(&notification.id, &address)) {
                reached += 1;
                continue;
            }
            match self.send(&mail, to, &mut connection).await {
                Ok(()) => {
                    reached += 1;
                    self.with_reached(|reached| reached.insert(&notification.id, address));
                }
                Err(error) => {
                    warn!(
                        notification = notification.id,
                        recipient = address,
                        error.reason,
                        "email not sent"
                    );
                    failed.push(error);
                }
            }
        }
        if let Some(connection) = connection {
            quit(connection).await;
        }
        if failed.is_empty() {
            self.with_reached(|reached| reached.forget(&notification.id));
            return Ok(());
        }
        Err(Error::Recipients { failed, reached })
    }

    async fn flush(&self) -> Result<(), Error> {
        // Nothing is buffered: write returns once the server has taken the messages.
        Ok(())
    }
}

/// Whom the notifications reached that did not reach everyone yet.
#[derive(Debug, Default)]
struct Reached {
    by_id: HashMap<String, HashSet<String>>,
    oldest_first: VecDeque<String>,
}

impl Reached {
    fn contains(&self, id: &str, address: &str) -> bool {
        self.by_id.get(id).is_some_and(|addresses| addresses.contains(address))
    }

    fn insert(&mut self, id: &str, address: String) {
        if !self.by_id.contains_key(id) {
            self.oldest_first.push_back(id.to_owned());
        }
        self.by_id.entry(id.to_owned()).or_default().insert(address);
        while self.oldest_first.len() > REMEMBERED {
            if let Some(id) = self.oldest_first.pop_front() {
                self.by_id.remove(&id);
            }
        }
    }

    fn forget(&mut self, id: &str) {
        self.by_id.remove(id);
        self.oldest_first.retain(|other| other != id);
    }
}

fn message(mail: &Mail, from: &Mailbox, to: &Mailbox) -> Result<Message, lettre::error::Error> {
    let automatic =
        HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".into());
    Message::builder()
        .from(from.clone())
        .to(to.clone())
        .subject(&mail.subject)
        .message_id(Some(mail.message_id.clone()))
        .in_reply_to(mail.thread.clone())
        .references(mail.thread.clone())
        // Asks mail programs not to answer with a notice of absence (RFC 3834).
        .raw_header(automatic)
        .multipart(MultiPart::alternative_plain_html(mail.text.clone(), mail.html.clone()))
}

fn mailbox(address: &str) -> Result<Mailbox, Error> {
    address.parse().map_err(|error| {
        Error::Config(format!("cannot send email: no valid address, {error}; correct it address=`{address}`"))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;

    use super::*;
    use crate::email::Tls;
    use crate::notify::tests::example;

    fn config() -> EmailConfig {
        EmailConfig {
            host: "127.0.0.1".into(),
            port: 2525,
            tls: Tls::None,
            username: None,
            password: None,
            from: "Tidemark <alerts@example.org>".into(),
            to: vec!["ops@example.org".into()],
            timeout: Duration::from_secs(5),
            ca_file: None,
            subject_prefix: String::new(),
        }
    }

    #[tokio::test]
    async fn configurations_that_cannot_work_are_refused() {
        let with_password = |host: &str, tls| EmailConfig {
            host: host.into(),
            tls,
            username: Some("user".into()),
            password: Some("secret".to_owned().into()),
            ..config()
        };
        let cases = [
            (config(), ""),
            (with_password("localhost", Tls::None), ""),
            (with_password("::1", Tls::None), ""),
            (with_password("mail.example.org", Tls::StartTls), ""),
            (with_password("mail.example.org", Tls::Implicit), ""),
            (with_password("mail.example.org", Tls::None), "unprotected; set TLS"),
            (EmailConfig { username: Some("user".into()), ..config() }, "or neither"),
            (EmailConfig { to: vec![], ..config() }, "no recipients"),
            (EmailConfig { to: vec!["no address".into()], ..config() }, "address=`no address`"),
            (EmailConfig { from: "@".into(), ..config() }, "address=`@`"),
            (
                EmailConfig { tls: Tls::StartTls, ca_file: Some("/no/such.pem".into()), ..config() },
                "check the CA file=`/no/such.pem`",
            ),
        ];
        for (config, expected) in cases {
            match EmailSink::new(&config) {
                Ok(sink) => {
                    assert_eq!(expected, "", "{config:?}");
                    assert!(!format!("{sink:?}").contains("secret"));
                }
                Err(error) => {
                    let error = error.to_string();
                    assert!(!expected.is_empty() && error.contains(expected), "{error}");
                    assert!(!error.contains("secret"), "{error}");
                }
            }
        }
    }

    /// A server that sends these lines, one when it is connected to and one after each line it
    /// reads, then hangs up.
    async fn server(lines: &'static [&'static str]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            for (i, line) in lines.iter().enumerate() {
                if i > 0 {
                    stream.read_line(&mut String::new()).await.unwrap();
                }
                stream.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
            }
            // Hangs up on what follows the last line.
            stream.read_line(&mut String::new()).await.unwrap();
        });
        port
    }

    #[tokio::test]
    async fn only_a_conversation_that_breaks_off_leaves_doubt() {
        // Nobody listens on the port of a listener that is gone.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let refusing = server(&["220 hi", "250 hi", "550 not you"]).await;
        let busy = server(&["220 hi", "250 hi", "451 later"]).await;
        let dropping = server(&["220 hi", "250 hi", "250 ok", "250 ok", "354 go on"]).await;
        for (port, [retryable, arrived]) in [
            (free, [true, false]),
            (refusing, [false, false]),
            (busy, [true, false]),
            (dropping, [true, true]),
        ] {
            let sink = EmailSink::new(&EmailConfig { port, ..config() }).unwrap();
            let error = sink.write(Arc::new(example())).await.unwrap_err();
            assert_eq!([error.retryable(), error.may_have_arrived()], [retryable, arrived], "{error}");
        }
    }

    /// It takes its time for ever, as a frozen server or a firewall that drops packets does.
    #[tokio::test]
    async fn a_server_that_stops_to_answer_is_given_up() {
        let lines: &'static [&'static str] =
            &["220 hi", "250 hi", "250 ok", "250 ok", "354 go on", "250 taken"];
        for answers in 0..lines.len() {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let server = tokio::spawn(async move {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = BufReader::new(stream);
                for line in &lines[..answers] {
                    stream.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
                    let mut heard = String::new();
                    stream.read_line(&mut heard).await.unwrap();
                }
                // Nothing more, until the client hangs up.
                while stream.read_line(&mut String::new()).await.is_ok_and(|bytes| bytes > 0) {}
            });
            let timeout = Duration::from_millis(50);
            let sink = EmailSink::new(&EmailConfig { port, timeout, ..config() }).unwrap();
            let error = sink.write(Arc::new(example())).await.unwrap_err();
            // Once the conversation is about a message, it may have arrived.
            assert_eq!(
                [error.retryable(), error.may_have_arrived()],
                [true, answers > 1],
                "{answers}: {error}"
            );
            assert!(error.to_string().contains("did not answer within"), "{error}");
            server.await.unwrap();
        }
    }

    #[test]
    fn messages_carry_their_ids_and_both_forms() {
        let mail = encode(&example(), "", "example.org");
        let message = message(&mail, &mailbox(&config().from).unwrap(), &mailbox("ops@example.org").unwrap());
        let text = String::from_utf8(message.unwrap().formatted()).unwrap();
        for expected in [
            "From: Tidemark <alerts@example.org>\r\n",
            "To: ops@example.org\r\n",
            "Subject: [FIRING] CpuHigh: CPU of eu above 90 %\r\n",
            "Message-ID: <cpu-high%2feu%20%3c1%3e@example.org>\r\n",
            &format!("In-Reply-To: {}\r\n", mail.thread),
            &format!("References: {}\r\n", mail.thread),
            "Auto-Submitted: auto-generated\r\n",
            "Content-Type: multipart/alternative;",
            "Content-Type: text/plain; charset=utf-8\r\n",
            "Content-Type: text/html; charset=utf-8\r\n",
        ] {
            assert!(text.contains(expected), "{expected} is missing in\n{text}");
        }
    }

    #[test]
    fn reached_recipients_are_remembered_up_to_a_bound() {
        let mut reached = Reached::default();
        for id in 0..=REMEMBERED {
            reached.insert(&id.to_string(), "a".into());
        }
        assert!(!reached.contains("0", "a"));
        assert!(reached.contains("1", "a") && !reached.contains("1", "b"));
        reached.forget("1");
        assert!(!reached.contains("1", "a"));
        assert_eq!(reached.by_id.len(), reached.oldest_first.len());
    }
}
