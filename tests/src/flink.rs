//! Apache Flink SQL, from PyPI: another engine for the same query, to compare with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::kafka::Kafka;
use crate::provided::{Unavailable, provide};

/// An installation.
#[derive(Debug, Clone)]
pub struct Flink {
    folder: PathBuf,
}

impl Flink {
    /// Installs it the first time, which takes some minutes.
    pub fn find() -> Result<Self, Unavailable> {
        Ok(Self { folder: provide("peers/get-flink.sh")? })
    }

    /// The version of it and of its connector.
    pub fn version(&self) -> String {
        // Written by the script that provides it.
        fs::read_to_string(self.folder.join("complete")).unwrap().trim().to_owned()
    }

    /// Runs the query of `peers/flink_sql.py` over a topic of JSON, to the end of the topic. Gives
    /// what the script says.
    ///
    /// # Panics
    /// When the job fails.
    pub fn run(&self, kafka: &Kafka, topic: &str, partitions: usize) -> Value {
        let results = tempfile::Builder::new().prefix("tidemark-flink-").tempdir().unwrap();
        let output = Command::new(self.folder.join("venv/bin/python"))
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/flink_sql.py"))
            .args(["--brokers", kafka.brokers(), "--topic", topic, "--partitions", &partitions.to_string()])
            .arg("--connector-jar")
            .arg(self.folder.join("flink-sql-connector-kafka.jar"))
            .arg("--output")
            .arg(results.path())
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "Flink: {}: {said}", output.status);
        serde_json::from_str(said.lines().last().unwrap_or_default())
            .unwrap_or_else(|error| panic!("Flink's script says no JSON ({error}): {said}"))
    }
}
