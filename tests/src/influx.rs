//! A real InfluxDB 2 server, its data in a temporary directory.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use chrono::DateTime;
use serde_json::json;
use tempfile::TempDir;

use crate::background;
use crate::ports::free_port;
use crate::process::Process;
use crate::provided::{Unavailable, provide};
use crate::secrets;

const START: Duration = Duration::from_secs(60);
const REQUEST: Duration = Duration::from_secs(30);

/// The value of a field. InfluxDB keeps the type that a field was first written with.
#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    Float(f64),
    Integer(i64),
    Unsigned(u64),
    Text(String),
    Boolean(bool),
}

impl Field {
    /// A number of any of the three kinds.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            Self::Integer(value) => Some(*value as f64),
            Self::Unsigned(value) => Some(*value as f64),
            Self::Text(_) | Self::Boolean(_) => None,
        }
    }
}

/// What identifies a point within a measurement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Nanoseconds since the epoch.
    pub time: i64,
    pub tags: BTreeMap<String, String>,
}

/// A server with one organisation and one bucket. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Influx {
    binary: PathBuf,
    address: String,
    /// None between [`Influx::kill9`] and [`Influx::restart`].
    process: Mutex<Option<Process>>,
    directory: TempDir,
}

impl Influx {
    /// A new server, set up and ready for requests.
    pub fn start() -> Result<Self, Unavailable> {
        let binary = provide("servers/get-influxd.sh")?;
        let directory = tempfile::Builder::new().prefix("tidemark-influxd-").tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let influx = Self { binary, address, process: Mutex::new(None), directory };
        influx.restart();
        let setup = json!({
            "username": "tests", "password": "tests-password", "token": influx.token(),
            "org": influx.org(), "bucket": influx.bucket(), "retentionPeriodSeconds": 0,
        });
        influx.post("/api/v2/setup", &setup);
        Ok(influx)
    }

    /// The version of the server.
    pub fn version(&self) -> String {
        let output = Command::new(&self.binary).arg("version").output().unwrap();
        // InfluxDB v2.9.1 (git: …) build_date: …
        String::from_utf8_lossy(&output.stdout).split_whitespace().nth(1).unwrap_or("unknown").to_owned()
    }

    /// `http://host:port`, without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A token that may do everything.
    pub fn token(&self) -> &'static str {
        secrets::PLANTED
    }

    pub fn org(&self) -> &'static str {
        "tests"
    }

    /// The bucket that is there from the start. It keeps data for ever.
    pub fn bucket(&self) -> &'static str {
        "tests"
    }

    /// Writes line protocol with times in nanoseconds, and waits until it can be read.
    pub fn write(&self, bucket: &str, lines: &str) {
        let request = self
            .request(reqwest::Method::POST, "/api/v2/write")
            .query(&[("org", self.org()), ("bucket", bucket), ("precision", "ns")])
            .body(lines.to_owned());
        self.send(request);
    }

    /// Deletes the points of one instant whose tags satisfy a predicate.
    pub fn delete(&self, bucket: &str, time: i64, predicate: &str) {
        let at = DateTime::from_timestamp_nanos(time).to_rfc3339();
        let request = self
            .request(reqwest::Method::POST, "/api/v2/delete")
            .query(&[("org", self.org()), ("bucket", bucket)])
            .json(&json!({ "start": at, "stop": at, "predicate": predicate }));
        self.send(request);
    }

    /// The rows of a Flux query, each by column name and as InfluxDB prints them.
    pub fn query_csv(&self, flux: &str) -> Vec<BTreeMap<String, String>> {
        self.query(flux)
            .into_iter()
            .map(|row| row.into_iter().map(|(name, cell)| (name, cell.text)).collect())
            .collect()
    }

    /// All points of a measurement, whatever their time.
    pub fn rows(&self, bucket: &str, measurement: &str) -> BTreeMap<Key, BTreeMap<String, Field>> {
        let flux = format!(
            "from(bucket: {bucket:?}) |> range(start: 1900-01-01T00:00:00Z, stop: 2200-01-01T00:00:00Z) \
             |> filter(fn: (r) => r._measurement == {measurement:?})"
        );
        let mut points: BTreeMap<Key, BTreeMap<String, Field>> = BTreeMap::new();
        for row in self.query(&flux) {
            let is_tag = |name: &str| !name.starts_with('_') && name != "result" && name != "table";
            let tags = row
                .iter()
                .filter(|(name, _)| is_tag(name))
                .map(|(name, cell)| (name.clone(), cell.text.clone()));
            let time =
                DateTime::parse_from_rfc3339(&row["_time"].text).unwrap().timestamp_nanos_opt().unwrap();
            let key = Key { time, tags: tags.collect() };
            points.entry(key).or_default().insert(row["_field"].text.clone(), row["_value"].field());
        }
        points
    }

    /// Crashes the server. Its data and its port remain for [`Influx::restart`].
    pub fn kill9(&self) {
        // Dropping kills.
        self.process.lock().unwrap().take();
    }

    /// Stops the server without ending it: connections stay open, and nothing is answered.
    pub fn pause(&self) {
        self.process.lock().unwrap().as_ref().expect("the server runs").signal("STOP");
    }

    /// Ends [`Influx::pause`].
    pub fn resume(&self) {
        self.process.lock().unwrap().as_ref().expect("the server runs").signal("CONT");
    }

    /// Starts the server on the data and the port it had, after a crash if it still runs, and waits
    /// until it answers.
    pub fn restart(&self) {
        self.kill9();
        let at = self.directory.path();
        let mut influxd = Command::new(&self.binary);
        influxd
            .args(["--http-bind-address", &self.address, "--reporting-disabled", "--ui-disabled"])
            .arg("--bolt-path")
            .arg(at.join("influxd.bolt"))
            .arg("--sqlite-path")
            .arg(at.join("influxd.sqlite"))
            .arg("--engine-path")
            .arg(at.join("engine"));
        let mut process = Process::start("InfluxDB", influxd, &at.join("influxd.log"), at);
        process.wait_until(START, "the health of InfluxDB", || {
            let request = self.request(reqwest::Method::GET, "/health").timeout(Duration::from_secs(1));
            let answer = background::wait_for(async { request.send().await?.error_for_status() });
            answer.map(drop).map_err(|error| error.to_string())
        });
        *self.process.lock().unwrap() = Some(process);
    }

    /// The status of a request with another token. The body is sent as JSON if it looks like that.
    pub fn status(&self, token: &str, path: &str, body: &str) -> u16 {
        let kind = if body.starts_with('{') { "application/json" } else { "text/plain" };
        let request = background::client()
            .post(format!("{}{path}", self.url()))
            .header("authorization", format!("Token {token}"))
            .header("content-type", kind)
            .timeout(REQUEST)
            .body(body.to_owned());
        let answer = background::wait_for(async { request.send().await.map(|response| response.status()) });
        answer.unwrap_or_else(|error| panic!("InfluxDB does not answer: {error}")).as_u16()
    }

    /// The organisation's id.
    pub fn org_id(&self) -> String {
        let path = format!("/api/v2/orgs?org={}", self.org());
        let answer: serde_json::Value =
            serde_json::from_str(&self.send(self.request(reqwest::Method::GET, &path))).unwrap();
        answer["orgs"][0]["id"].as_str().expect("the organisation was set up").to_owned()
    }

    fn query(&self, flux: &str) -> Vec<BTreeMap<String, Cell>> {
        let body = json!({ "query": flux, "dialect": { "annotations": ["datatype"], "header": true } });
        parse(&self.post(&format!("/api/v2/query?org={}", self.org()), &body))
    }

    fn post(&self, path: &str, body: &serde_json::Value) -> String {
        self.send(self.request(reqwest::Method::POST, path).json(body))
    }

    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        background::client()
            .request(method, format!("{}{path}", self.url()))
            .header("authorization", format!("Token {}", self.token()))
            .timeout(REQUEST)
    }

    fn send(&self, request: reqwest::RequestBuilder) -> String {
        let answer = background::wait_for(async {
            let response = request.send().await?;
            Ok::<_, reqwest::Error>((response.status(), response.text().await?))
        });
        let (status, text) = answer.unwrap_or_else(|error| panic!("InfluxDB does not answer: {error}"));
        assert!(status.is_success(), "InfluxDB answers {status}: {text}");
        text
    }
}

/// A cell of an answer, with the type of its column.
#[derive(Debug)]
struct Cell {
    kind: String,
    text: String,
}

impl Cell {
    fn field(&self) -> Field {
        match self.kind.as_str() {
            "double" => Field::Float(self.text.parse().unwrap()),
            "long" => Field::Integer(self.text.parse().unwrap()),
            "unsignedLong" => Field::Unsigned(self.text.parse().unwrap()),
            "boolean" => Field::Boolean(self.text.parse().unwrap()),
            _ => Field::Text(self.text.clone()),
        }
    }
}

/// Reads annotated CSV: a `#datatype` row, then a row of names, then data; again wherever the
/// columns change. <https://docs.influxdata.com/influxdb/v2/reference/syntax/annotated-csv/>
fn parse(text: &str) -> Vec<BTreeMap<String, Cell>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut kinds: Vec<String> = Vec::new();
    let mut names: Option<Vec<String>> = None;
    let mut rows = Vec::new();
    for record in reader.records() {
        let record: Vec<String> = record.unwrap().iter().map(str::to_owned).collect();
        if record[0] == "#datatype" {
            kinds = record;
            names = None;
            continue;
        }
        let Some(names) = &names else {
            names = Some(record);
            continue;
        };
        // The first column holds annotations only.
        let cells = record.into_iter().zip(&kinds).map(|(text, kind)| Cell { kind: kind.clone(), text });
        let row: BTreeMap<String, Cell> = names.iter().cloned().zip(cells).skip(1).collect();
        assert!(!row.contains_key("error"), "the query failed underway: {row:?}");
        rows.push(row);
    }
    rows
}
