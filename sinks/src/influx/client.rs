//! Single requests to InfluxDB's API, each with one answer and no retry.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use url::Url;

use super::InfluxConfig;
use super::answer::{Answer, classify};
use super::query;
use crate::Error;
use crate::http;

/// The API of one server, for one organisation and bucket.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    org: String,
    bucket: String,
    /// Marked as sensitive, so that no debug output shows the token.
    authorization: HeaderValue,
    /// How the server is called in messages.
    pub(crate) place: String,
}

/// Status and body of an answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// The answer to a query.
#[derive(Debug)]
pub(crate) enum Queried {
    Csv(Vec<u8>),
    TooLarge,
}

impl Client {
    pub(crate) fn new(config: &InfluxConfig) -> Result<Self, Error> {
        let mut authorization = HeaderValue::try_from(format!("Token {}", config.token.expose_secret()))
            .map_err(|_| {
                Error::Config("the InfluxDB token has characters that no HTTP header can hold".into())
            })?;
        authorization.set_sensitive(true);
        Ok(Self {
            http: http::client(config.timeout)?,
            base: config.url.clone(),
            org: config.org.clone(),
            bucket: config.bucket.clone(),
            authorization,
            place: format!("influxdb at {}", http::origin(&config.url)),
        })
    }

    /// Writes lines, separated by line breaks and compressed with gzip.
    pub(crate) async fn write(&self, gzip: Bytes) -> Answer {
        let request = self
            .request(Method::POST, &["api", "v2", "write"])
            .query(&[("org", self.org.as_str()), ("bucket", &self.bucket), ("precision", "ns")])
            .header(CONTENT_TYPE, "text/plain; charset=utf-8")
            .header(CONTENT_ENCODING, "gzip")
            .body(gzip);
        answer(request).await
    }

    pub(crate) async fn delete(&self, body: &Value) -> Answer {
        let request = self
            .request(Method::POST, &["api", "v2", "delete"])
            .query(&[("org", self.org.as_str()), ("bucket", &self.bucket)])
            .json(body);
        answer(request).await
    }

    pub(crate) async fn health(&self) -> Result<Reply, Error> {
        self.reply(self.request(Method::GET, &["health"])).await
    }

    pub(crate) async fn organisations(&self) -> Result<Reply, Error> {
        self.reply(self.request(Method::GET, &["api", "v2", "orgs"]).query(&[("org", &self.org)])).await
    }

    pub(crate) async fn buckets(&self) -> Result<Reply, Error> {
        let request = self.request(Method::GET, &["api", "v2", "buckets"]);
        self.reply(request.query(&[("org", &self.org), ("name", &self.bucket)])).await
    }

    pub(crate) async fn create_bucket(
        &self,
        org_id: &str,
        retention: Option<Duration>,
    ) -> Result<Reply, Error> {
        let seconds = retention.map_or(0, |retention| retention.as_secs());
        let body = json!({
            "orgID": org_id,
            "name": self.bucket,
            "retentionRules": [{ "type": "expire", "everySeconds": seconds }],
        });
        self.reply(self.request(Method::POST, &["api", "v2", "buckets"]).json(&body)).await
    }

    /// Runs a Flux query; an answer of more than `limit` bytes is given up.
    pub(crate) async fn query(&self, body: &Value, limit: usize) -> Result<Queried, Error> {
        let away = |error| http::unavailable(&self.place, error);
        let request = self.request(Method::POST, &["api", "v2", "query"]).query(&[("org", &self.org)]);
        let accept = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/csv"))]);
        let mut response = request.headers(accept).json(body).send().await.map_err(away)?;
        let status = response.status();
        let limit = if status.is_success() { limit } else { 16 << 10 };
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(away)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > limit {
                break;
            }
        }
        if status.is_success() {
            return Ok(if bytes.len() > limit { Queried::TooLarge } else { Queried::Csv(bytes) });
        }
        let (place, status, message) = (self.place.clone(), status.as_u16(), query::message(&bytes));
        if matches!(status, 408 | 429 | 500..=599) {
            let reason = format!("{message} status=`{status}`");
            return Err(Error::Unavailable { place, reason, doubtful: false, retry_after: None });
        }
        Err(Error::Refused { place, status, message })
    }

    /// An answer to a query that makes no sense.
    pub(crate) fn unreadable(&self, message: String) -> Error {
        Error::Refused { place: self.place.clone(), status: 200, message }
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        url.set_query(None);
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let accept = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
        self.http.request(method, url).headers(accept).header(AUTHORIZATION, self.authorization.clone())
    }

    async fn reply(&self, request: RequestBuilder) -> Result<Reply, Error> {
        match request.send().await {
            Ok(response) => {
                Ok(Reply { status: response.status().as_u16(), body: http::body(response).await })
            }
            Err(error) => Err(http::unavailable(&self.place, error)),
        }
    }
}

async fn answer(request: RequestBuilder) -> Answer {
    match request.send().await {
        Ok(response) => {
            let status = response.status().as_u16();
            let wait = http::retry_after(response.headers());
            classify(status, &http::body(response).await, wait)
        }
        Err(error) => Answer::Busy { wait: None, message: http::describe(error) },
    }
}
