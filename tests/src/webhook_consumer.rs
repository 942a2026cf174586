//! A stranger to Tidemark that consumes webhooks: a program that reads them with Alertmanager's own
//! types and templates.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::background;
use crate::ports::free_port;
use crate::process::Process;
use crate::provided::{Unavailable, provide};
use crate::wait::wait_until;

const START: Duration = Duration::from_secs(60);

/// Dropping it kills it.
#[derive(Debug)]
pub struct WebhookConsumer {
    url: String,
    /// Kept for its end.
    _process: Process,
    directory: TempDir,
}

impl WebhookConsumer {
    /// Whether this machine has the program, or can build it.
    pub fn find() -> Result<PathBuf, Unavailable> {
        provide("servers/get-webhook-consumer.sh")
    }

    /// A consumer that is ready for requests.
    pub fn start() -> Result<Self, Unavailable> {
        let binary = Self::find()?;
        let directory = tempfile::Builder::new().prefix("tidemark-webhook-consumer-").tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new(binary);
        command.arg(&address);
        let log = directory.path().join("consumer.log");
        let mut process = Process::start("the webhook consumer", command, &log, directory.path());
        let url = format!("http://{address}");
        process.wait_until(START, "the webhook consumer", || {
            let request = background::client().get(&url).timeout(Duration::from_secs(1));
            let answer = background::wait_for(async { request.send().await?.error_for_status() });
            answer.map(drop).map_err(|error| error.to_string())
        });
        Ok(Self { url, _process: process, directory })
    }

    /// `http://host:port`, without a path. Any will do.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// What it says of each request: `message`, as it was read and written again, `subject` that
    /// the default templates make of it, `idempotencyKey` of the header; or `error`, and the
    /// request was answered 400.
    pub fn received(&self) -> Vec<Value> {
        let log = fs::read_to_string(self.directory.path().join("consumer.log")).unwrap();
        let parse = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"))
        };
        // A line without its end is still being written, and Go's server has words of its own for
        // broken connections.
        let told = |line: &&str| line.starts_with('{') && line.ends_with('\n');
        log.split_inclusive('\n').filter(told).map(parse).collect()
    }

    /// Waits for the requests to be at least so many, and gives what it says of each.
    #[track_caller]
    pub fn wait_for(&self, count: usize, timeout: Duration) -> Vec<Value> {
        wait_until(timeout, &format!("{count} requests to the webhook consumer"), || {
            let received = self.received();
            if received.len() >= count { Ok(received) } else { Err(format!("{received:#?}")) }
        })
    }
}
