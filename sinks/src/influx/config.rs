//! Options of the InfluxDB sink.

use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use crate::Error;

/// Where and how to write. [`InfluxConfig::new`] fills in the defaults.
#[derive(Debug, Clone)]
pub struct InfluxConfig {
    /// The server, with a path when a proxy is in front: `http://influx:8086`.
    pub url: Url,
    pub org: String,
    pub bucket: String,
    /// Needs write access to the bucket; read access lets the sink check it, and withdrawn rows
    /// need nothing more. With `create_bucket` it needs write access to the organisation's buckets.
    pub token: SecretString,
    /// Create the bucket when it does not exist. Default: false.
    pub create_bucket: bool,
    /// How long a bucket created here keeps its points; none keeps them for ever. Default: none.
    pub retention: Option<Duration>,
    /// Lines in one request. InfluxDB's documentation recommends 5,000, the default.
    pub batch_lines: usize,
    /// Requests under way at once. More hide latency and hold more lines in memory. Default: 4.
    pub in_flight: usize,
    /// How long one request may take. Default: 30 s. A request given up on may still be applied by
    /// the server, so keep this well above what the server needs.
    pub timeout: Duration,
    /// The first pause after a failure. Default: 200 ms.
    pub retry_min: Duration,
    /// The longest pause after a failure, and the pause while the server refuses. Default: 30 s.
    pub retry_max: Duration,
}

impl InfluxConfig {
    pub fn new(url: Url, org: impl Into<String>, bucket: impl Into<String>, token: SecretString) -> Self {
        Self {
            url,
            org: org.into(),
            bucket: bucket.into(),
            token,
            create_bucket: false,
            retention: None,
            batch_lines: 5000,
            in_flight: 4,
            timeout: Duration::from_secs(30),
            retry_min: Duration::from_millis(200),
            retry_max: Duration::from_secs(30),
        }
    }

    /// Refuses what cannot work before anything is sent.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = if !matches!(self.url.scheme(), "http" | "https") {
            "its URL must begin with http:// or https://"
        } else if !self.url.username().is_empty() || self.url.password().is_some() {
            "its URL must not hold a user or a password, set the token instead"
        } else if self.org.is_empty() || self.bucket.is_empty() {
            "set its organisation and bucket"
        } else if self.batch_lines == 0 || self.in_flight == 0 {
            "its batch lines and requests in flight must be at least 1"
        } else {
            return Ok(());
        };
        Err(Error::Config(format!("cannot use InfluxDB: {wrong}")))
    }
}
