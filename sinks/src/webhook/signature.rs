//! Signatures of webhook requests, by which a receiver knows who sent a body and when.
//!
//! HMAC-SHA256 (RFC 2104) over `<timestamp>:<body>`, in hexadecimal: what Grafana's webhooks do. A
//! receiver computes the same from the body as it came and the header with the timestamp, compares
//! in constant time, and refuses timestamps that are minutes old, so that nobody can send a
//! recorded request again.

use std::fmt::Write;
use std::time::SystemTime;

use ring::hmac::{Context, HMAC_SHA256, Key};
use secrecy::{ExposeSecret, SecretString};

/// Header with the signature.
pub(super) const SIGNATURE: &str = "x-tidemark-signature";
/// Header with the time of signing: seconds since the epoch.
pub(super) const TIMESTAMP: &str = "x-tidemark-timestamp";

/// A key; its debug output shows nothing of it.
#[derive(Debug)]
pub(super) struct Signer(Key);

impl Signer {
    pub(super) fn new(key: &SecretString) -> Self {
        Self(Key::new(HMAC_SHA256, key.expose_secret().as_bytes()))
    }

    /// For a request that is sent at this time.
    pub(super) fn sign(&self, timestamp: u64, body: &[u8]) -> String {
        let mut context = Context::with_key(&self.0);
        context.update(timestamp.to_string().as_bytes());
        context.update(b":");
        context.update(body);
        let mut text = String::with_capacity(64);
        for byte in context.sign().as_ref() {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        }
        text
    }
}

/// Seconds since the epoch.
#[expect(clippy::disallowed_methods, reason = "the receiver compares it with a clock of its own")]
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_another_implementation_signs() {
        // Python: hmac.new(b"a key", b"1700000000:{\"a\":1}", hashlib.sha256).hexdigest()
        let signature = "278b717ecf18918fd37a581443fb917080bce1eabfc02a0ace5be654605fdc25";
        let signer = Signer::new(&"a key".to_owned().into());
        assert_eq!(signer.sign(1_700_000_000, br#"{"a":1}"#), signature);
        for (timestamp, body) in [(1_700_000_001, &br#"{"a":1}"#[..]), (1_700_000_000, br#"{"a":2}"#)] {
            assert_ne!(signer.sign(timestamp, body), signature);
        }
        assert!(!format!("{signer:?}").contains("a key"));
    }
}
