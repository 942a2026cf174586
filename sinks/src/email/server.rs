//! Conversations with a mail server, each step of which has an end.
//!
//! The client's own pooled transport bounds nothing but connecting: a server that stops to answer
//! would hold a message for ever. And a conversation that was given up must not be gone on with, so
//! that each notification has one of its own.

use std::time::Duration;

use lettre::Message;
use lettre::transport::smtp;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Tls};
use lettre::transport::smtp::extension::ClientId;

/// Answers that a message takes: to sender, recipient, `DATA`, and its end.
const ANSWERS: u32 = 4;
/// Nothing depends on the answer to `QUIT`.
const GOODBYE: Duration = Duration::from_secs(1);

/// Where mails go, and how they get there.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Tls,
    pub(super) credentials: Option<Credentials>,
    /// For each answer.
    pub(super) timeout: Duration,
}

/// Why a message was not sent.
#[derive(Debug)]
pub(super) struct Failure {
    /// It would be refused again.
    pub(super) permanent: bool,
    /// The server may have the message without a reply. A reply, be it a refusal, leaves no doubt.
    pub(super) doubtful: bool,
    pub(super) reason: String,
}

impl Server {
    /// Connects, turns to TLS and logs in, as configured. Nothing has been sent where that fails.
    pub(super) async fn connect(&self) -> Result<AsyncSmtpConnection, Failure> {
        let name = ClientId::default();
        let (wrapper, required) = match &self.tls {
            Tls::Wrapper(parameters) => (Some(parameters.clone()), None),
            Tls::Required(parameters) => (None, Some(parameters.clone())),
            _ => (None, None),
        };
        let address = (self.host.as_str(), self.port);
        let connecting =
            AsyncSmtpConnection::connect_tokio1(address, Some(self.timeout), &name, wrapper, None);
        // The greeting, and the answer to the first command.
        let mut connection = within(self.timeout * 2, connecting).await.map_err(Failure::unsent)?;
        if let Some(parameters) = required {
            let turning = connection.starttls(parameters, &name);
            within(self.timeout * 2, turning).await.map_err(Failure::unsent)?;
        }
        if let Some(credentials) = &self.credentials {
            let logging_in = connection.auth(DEFAULT_MECHANISMS, credentials);
            within(self.timeout * 2, logging_in).await.map_err(Failure::unsent)?;
        }
        Ok(connection)
    }

    /// Sends a message. The connection is of no use any more where that fails.
    pub(super) async fn send(
        &self,
        connection: &mut AsyncSmtpConnection,
        message: &Message,
    ) -> Result<(), Failure> {
        let text = message.formatted();
        let sending = connection.send(message.envelope(), &text);
        within(self.timeout * ANSWERS, sending).await.map(drop)
    }
}

/// Ends a conversation.
pub(super) async fn quit(mut connection: AsyncSmtpConnection) {
    // Every command has been answered.
    let _ = tokio::time::timeout(GOODBYE, connection.quit()).await;
}

async fn within<T>(
    limit: Duration,
    step: impl Future<Output = Result<T, smtp::Error>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, step).await {
        Ok(done) => done.map_err(|error| Failure::of(&error)),
        Err(_) => Err(Failure {
            permanent: false,
            doubtful: true,
            reason: format!("the mail server did not answer within {limit:?}"),
        }),
    }
}

impl Failure {
    fn of(error: &smtp::Error) -> Self {
        let unsent = error.is_client() || error.is_tls();
        Self {
            permanent: error.is_permanent(),
            doubtful: error.status().is_none() && !unsent,
            reason: described(error),
        }
    }

    fn unsent(self) -> Self {
        Self { doubtful: false, ..self }
    }
}

fn described(error: &smtp::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    // Answers of servers may have several lines.
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
