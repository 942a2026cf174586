//! What all sinks that post over HTTP can be notified.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Certificate, Client, Identity};
use secrecy::SecretString;
use url::Url;

use super::address::{self, PublicOnly};
use super::{builder, describe, origin};
use crate::Error;

/// Where and how to post.
#[derive(Clone)]
pub struct HttpConfig {
    /// Path, query and user information may be secrets and are never shown.
    pub url: Url,
    /// Sent with each request.
    pub headers: BTreeMap<String, SecretString>,
    pub bearer_token: Option<SecretString>,
    /// How long one request may take; connecting may take half of it.
    pub timeout: Duration,
    /// A PEM file of certificates to trust besides those of the system.
    pub ca_file: Option<PathBuf>,
    /// Shown to servers that ask for it.
    pub client_certificate: Option<ClientCertificate>,
    /// Whether the host may be this machine or in a private network. See
    /// [`private_address`](super::private_address).
    pub allow_private: bool,
}

/// PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, then those between it and its authority.
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

impl HttpConfig {
    /// With nothing but an address: no headers, and only public hosts.
    pub fn new(url: Url, timeout: Duration) -> Self {
        Self {
            url,
            headers: BTreeMap::new(),
            bearer_token: None,
            timeout,
            ca_file: None,
            client_certificate: None,
            allow_private: false,
        }
    }

    pub(super) fn client(&self) -> Result<Client, Error> {
        // A host that takes no connection is away for sure; so this limit must end before that of
        // the request, which leaves open whether the message arrived.
        let mut builder = builder(self.timeout).connect_timeout(self.timeout / 2);
        if !self.allow_private {
            if let Some(reason) = address::private_address(&self.url) {
                return Err(Error::Config(format!("cannot post to {}: {reason}", origin(&self.url))));
            }
            builder = builder.dns_resolver(Arc::new(PublicOnly::new(&self.url)));
        }
        if let Some(path) = &self.ca_file {
            let certificates = Certificate::from_pem_bundle(&self.read(path, "ca_file")?)
                .map_err(|error| self.wrong(path, "ca_file", "certificates", error))?;
            if certificates.is_empty() {
                return Err(self.holds_none(path, "ca_file", "certificates"));
            }
            for certificate in certificates {
                builder = builder.add_root_certificate(certificate);
            }
        }
        if let Some(ClientCertificate { cert_file, key_file }) = &self.client_certificate {
            let mut pem = self.read(cert_file, "cert_file")?;
            pem.push(b'\n');
            pem.extend(self.read(key_file, "key_file")?);
            let identity = Identity::from_pem(&pem).map_err(|error| {
                self.wrong(cert_file, "cert_file", "a certificate, and key_file its key,", error)
            })?;
            builder = builder.identity(identity);
        }
        builder.build().map_err(|error| {
            let place = origin(&self.url);
            Error::Config(format!(
                "cannot post to {place}: {}; check ca_file, cert_file and key_file",
                describe(error)
            ))
        })
    }

    fn read(&self, path: &Path, key: &str) -> Result<Vec<u8>, Error> {
        fs::read(path).map_err(|error| {
            let (place, path) = (origin(&self.url), path.display());
            Error::Config(format!("cannot post to {place}: {error}; correct {key}=`{path}`"))
        })
    }

    fn wrong(&self, path: &Path, key: &str, content: &str, error: reqwest::Error) -> Error {
        let (place, path, error) = (origin(&self.url), path.display(), describe(error));
        Error::Config(format!(
            "cannot post to {place}: {error}; the file must hold {content} as PEM {key}=`{path}`"
        ))
    }

    fn holds_none(&self, path: &Path, key: &str, content: &str) -> Error {
        let (place, path) = (origin(&self.url), path.display());
        Error::Config(format!("cannot post to {place}: the file must hold {content} as PEM {key}=`{path}`"))
    }
}

impl fmt::Debug for HttpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpConfig")
            .field("url", &origin(&self.url))
            .field("headers", &self.headers)
            .field("bearer_token", &self.bearer_token)
            .field("timeout", &self.timeout)
            .field("ca_file", &self.ca_file)
            .field("client_certificate", &self.client_certificate)
            .field("allow_private", &self.allow_private)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_work_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let garbage = directory.path().join("garbage.pem");
        fs::write(&garbage, "no PEM").unwrap();
        let config =
            || HttpConfig::new(Url::parse("https://h.example/secret").unwrap(), Duration::from_secs(1));
        let pair = |cert: &Path, key: &Path| {
            let client_certificate = Some(ClientCertificate { cert_file: cert.into(), key_file: key.into() });
            HttpConfig { client_certificate, ..config() }
        };
        let missing = Path::new("/no/such.pem");
        for (config, expected) in [
            (HttpConfig { ca_file: Some(missing.into()), ..config() }, "correct ca_file=`/no/such.pem`"),
            (HttpConfig { ca_file: Some(garbage.clone()), ..config() }, "must hold certificates as PEM"),
            (pair(missing, &garbage), "correct cert_file=`/no/such.pem`"),
            (pair(&garbage, missing), "correct key_file=`/no/such.pem`"),
            (pair(&garbage, &garbage), "must hold a certificate, and key_file its key, as PEM"),
        ] {
            let error = config.client().unwrap_err();
            assert!(!error.retryable());
            let error = error.to_string();
            assert!(error.contains(expected) && !error.contains("secret"), "{error}");
        }
        assert!(config().client().is_ok());
    }
}
