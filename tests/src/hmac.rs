//! HMAC-SHA256 (RFC 2104), for receivers that check who signed a request. What TLS 1.3 brings along
//! is not the code that signs.

use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::tls13::OkmBlock;

/// In hexadecimal. The key has at most 64 bytes.
pub fn hmac_sha256(key: &[u8], message: &[u8]) -> String {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("it is a suite of TLS 1.3");
    let tag = suite.hkdf_provider.hmac_sign(&OkmBlock::new(key), message);
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
