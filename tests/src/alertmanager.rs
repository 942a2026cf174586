//! A real Prometheus Alertmanager, its data in a temporary directory, and what it sends to
//! webhooks.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::background;
use crate::ports::free_port;
use crate::process::Process;
use crate::provided::{Unavailable, provide};

const START: Duration = Duration::from_secs(60);
const REQUEST: Duration = Duration::from_secs(30);

/// A server of its own, without a cluster. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Alertmanager {
    binary: PathBuf,
    address: String,
    /// None between [`Alertmanager::kill9`] and [`Alertmanager::restart`].
    process: Mutex<Option<Process>>,
    directory: TempDir,
}

impl Alertmanager {
    /// Whether this machine has the program, or can build it.
    pub fn find() -> Result<PathBuf, Unavailable> {
        provide("servers/get-alertmanager.sh")
    }

    /// A server with this configuration (the text of an `alertmanager.yml`), ready for requests.
    ///
    /// # Panics
    /// When Alertmanager does not accept the configuration, with what it says.
    pub fn start(config: &str) -> Result<Self, Unavailable> {
        let binary = Self::find()?;
        let directory = tempfile::Builder::new().prefix("tidemark-alertmanager-").tempdir().unwrap();
        fs::write(directory.path().join("alertmanager.yml"), config).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let server = Self { binary, address, process: Mutex::new(None), directory };
        server.restart();
        Ok(server)
    }

    /// The version of the server.
    pub fn version(&self) -> String {
        let output = Command::new(&self.binary).arg("--version").output().unwrap();
        // alertmanager, version 0.28.1 (branch: …
        String::from_utf8_lossy(&output.stdout).split_whitespace().nth(2).unwrap_or("unknown").to_owned()
    }

    /// `http://host:port`, without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The alerts that are not resolved, as `GET /api/v2/alerts` gives them.
    pub fn alerts(&self) -> Vec<Value> {
        self.get("/api/v2/alerts")
    }

    /// Its groups of alerts, a receiver each, as `GET /api/v2/alerts/groups` gives them. A resolved
    /// alert stays in its group until the receiver was notified.
    pub fn groups(&self) -> Vec<Value> {
        self.get("/api/v2/alerts/groups")
    }

    /// Posts a list of alerts to `/api/v2/alerts`, by hand.
    ///
    /// # Panics
    /// When it is refused.
    pub fn post_alerts(&self, alerts: &Value) {
        self.send(self.request(reqwest::Method::POST, "/api/v2/alerts").json(alerts));
    }

    /// Crashes the server. Its port remains for [`Alertmanager::restart`]; alerts are in its memory
    /// only.
    pub fn kill9(&self) {
        // Dropping kills.
        self.process.lock().unwrap().take();
    }

    /// Starts the server on the port it had, after a crash if it still runs, and waits until it
    /// answers.
    pub fn restart(&self) {
        self.kill9();
        let at = self.directory.path();
        let mut alertmanager = Command::new(&self.binary);
        alertmanager
            .args(["--web.listen-address", &self.address, "--cluster.listen-address="])
            // By itself it would name the machine, and the recording of a webhook would never be
            // the same.
            .arg("--web.external-url=http://alertmanager.example")
            .arg("--config.file")
            .arg(at.join("alertmanager.yml"))
            .arg("--storage.path")
            .arg(at.join("data"));
        let mut process = Process::start("Alertmanager", alertmanager, &at.join("alertmanager.log"), at);
        process.wait_until(START, "a ready Alertmanager", || {
            let request = self.request(reqwest::Method::GET, "/-/ready").timeout(Duration::from_secs(1));
            let answer = background::wait_for(async { request.send().await?.error_for_status() });
            answer.map(drop).map_err(|error| error.to_string())
        });
        *self.process.lock().unwrap() = Some(process);
    }

    fn get(&self, path: &str) -> Vec<Value> {
        let text = self.send(self.request(reqwest::Method::GET, path));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("not a list ({error}): {text}"))
    }

    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        background::client().request(method, format!("{}{path}", self.url())).timeout(REQUEST)
    }

    fn send(&self, request: reqwest::RequestBuilder) -> String {
        let answer = background::wait_for(async {
            let response = request.send().await?;
            Ok::<_, reqwest::Error>((response.status(), response.text().await?))
        });
        let (status, text) = answer.unwrap_or_else(|error| panic!("Alertmanager does not answer: {error}"));
        assert!(status.is_success(), "Alertmanager answers {status}: {text}");
        text
    }
}

/// Where a webhook of a real Alertmanager is kept as it came: one alert of its group firing, one
/// resolved.
pub fn recording() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings/alertmanager-webhook-v4.json")
}

/// The fields of a webhook's body and their types, as `alerts[].startsAt: string`, for two bodies
/// to be compared in. Names of labels and annotations are anybody's choice, and so stand as `*`.
pub fn shape(body: &Value) -> BTreeSet<String> {
    let mut shape = BTreeSet::new();
    describe("", body, &mut shape);
    shape
}

fn describe(at: &str, value: &Value, shape: &mut BTreeSet<String>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(items) => {
            items.iter().for_each(|item| describe(&format!("{at}[]"), item, shape));
            "list"
        }
        Value::Object(fields) => {
            let free = ["labels", "Labels", "annotations", "Annotations"].iter().any(|end| at.ends_with(end));
            for (name, field) in fields {
                let name = if free { "*" } else { name };
                let dot = if at.is_empty() { "" } else { "." };
                describe(&format!("{at}{dot}{name}"), field, shape);
            }
            "object"
        }
    };
    shape.insert(format!("{at}: {kind}"));
}
