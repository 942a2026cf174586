//! Options of the email sink, and the SMTP connection they describe.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{self, Certificate, TlsParameters};
use secrecy::{ExposeSecret, SecretString};

use super::server::Server;
use crate::Error;

/// How the connection is protected. Certificates are always verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tls {
    /// Nothing is. For a relay on this machine or in a trusted network; never with a password,
    /// unless the host is this machine.
    None,
    /// A plain connection that turns to TLS before anything else is sent, usually on port 587.
    #[default]
    StartTls,
    /// TLS from the first byte, usually on port 465.
    Implicit,
}

/// Where and how to send.
#[derive(Debug, Clone)]
pub struct EmailConfig {
    pub host: String,
    pub port: u16,
    pub tls: Tls,
    /// Set together with `password`, or not at all.
    pub username: Option<String>,
    pub password: Option<SecretString>,
    /// `alerts@example.org` or `Tidemark <alerts@example.org>`.
    pub from: String,
    /// Each gets a message of its own.
    pub to: Vec<String>,
    /// How long connecting, and each answer, may take.
    pub timeout: Duration,
    /// A PEM file of certificates to trust besides those of the system.
    pub ca_file: Option<PathBuf>,
    /// Put before each subject.
    pub subject_prefix: String,
}

impl EmailConfig {
    pub(super) fn server(&self) -> Result<Server, Error> {
        let wrong = |reason: String| {
            Error::Config(format!("cannot send email: {reason} host=`{}` port=`{}`", self.host, self.port))
        };
        let credentials = match (&self.username, &self.password) {
            (Some(_), Some(_)) if self.tls == Tls::None && !is_this_machine(&self.host) => {
                return Err(wrong("the password would cross the network unprotected; set TLS".into()));
            }
            (Some(username), Some(password)) => {
                Some(Credentials::new(username.clone(), password.expose_secret().to_owned()))
            }
            (None, None) => None,
            _ => return Err(wrong("set both user name and password, or neither".into())),
        };
        let tls = match self.tls {
            Tls::None => client::Tls::None,
            Tls::StartTls => client::Tls::Required(self.tls_parameters().map_err(wrong)?),
            Tls::Implicit => client::Tls::Wrapper(self.tls_parameters().map_err(wrong)?),
        };
        let (host, port, timeout) = (self.host.clone(), self.port, self.timeout);
        Ok(Server { host, port, tls, credentials, timeout })
    }

    fn tls_parameters(&self) -> Result<TlsParameters, String> {
        let mut parameters = TlsParameters::builder(self.host.clone());
        if let Some(path) = &self.ca_file {
            let shown = path.display();
            let pem = std::fs::read(path).map_err(|error| format!("{error}; check the CA file=`{shown}`"))?;
            let certificate = Certificate::from_pem(&pem)
                .map_err(|error| format!("{error}; the CA file must hold PEM certificates=`{shown}`"))?;
            parameters = parameters.add_root_certificate(certificate);
        }
        parameters.build().map_err(|error| error.to_string())
    }
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
