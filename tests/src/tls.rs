//! Certificates of an authority of the trial's own, and a front that lets only those in who show
//! one of them.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::background;

/// An authority that no system knows. Its files are gone when it is dropped.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
    directory: TempDir,
}

/// Files in PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    #[expect(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let directory = tempfile::Builder::new().prefix("tidemark-tls-").tempdir().unwrap();
        fs::write(directory.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { issuer: Issuer::new(params, key), certificate, directory }
    }

    /// The authority's certificate.
    pub fn ca_pem(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let names = vec![name.to_owned(), "127.0.0.1".to_owned()];
        (CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// A certificate for a client.
    pub fn identity(&self) -> Identity {
        let (certificate, key) = self.issue("client");
        let write = |name: &str, pem: String| {
            let path = self.directory.path().join(name);
            fs::write(&path, pem).unwrap();
            path
        };
        Identity {
            certificate: write("client.pem", certificate.pem()),
            key: write("client.key", key.serialize_pem()),
        }
    }

    /// For a server that is `localhost` and `127.0.0.1`.
    pub(crate) fn acceptor(&self, asks_for_identity: bool) -> TlsAcceptor {
        let (certificate, key) = self.issue("localhost");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if asks_for_identity {
            let mut roots = RootCertStore::empty();
            roots.add(self.certificate.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Takes connections of clients that show a certificate of the authority, and passes on what they
/// say to a server in plain text. Dropping it closes its port.
#[derive(Debug)]
pub struct TlsFront {
    port: u16,
    accepting: JoinHandle<()>,
}

impl TlsFront {
    /// In front of `host:port`.
    pub fn start(authority: &Authority, server: &str) -> Self {
        let listener = background::wait_for(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (acceptor, server) = (authority.acceptor(true), server.to_owned());
        let accepting = background::handle().spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                // An error is a client that is not let in: the trial sees it from the other side.
                let Ok(mut client) = acceptor.accept(socket).await else { continue };
                let Ok(mut server) = TcpStream::connect(&server).await else { continue };
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
        });
        Self { port, accepting }
    }

    /// `https://host:port`, without a path.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
