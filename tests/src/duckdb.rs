//! DuckDB, as a reader of our Parquet files that shares no code with their writer.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::provided::{Unavailable, provide};

/// Reads the statement from standard input; what JSON has no form for (times, decimals) is written
/// as text.
const PROGRAM: &str = "import duckdb, json, sys
result = duckdb.sql(sys.stdin.read())
names = result.columns
for row in result.fetchall():
    print(json.dumps(dict(zip(names, row)), default=str))
";

/// A Python that has DuckDB.
#[derive(Debug, Clone)]
pub struct DuckDb {
    python: PathBuf,
}

impl DuckDb {
    /// Installs it on first use.
    pub fn find() -> Result<Self, Unavailable> {
        Ok(Self { python: provide("servers/get-duckdb.sh")?.join("bin/python") })
    }

    /// The rows of a query, such as `SELECT * FROM read_parquet('…/**/*.parquet')`, each an object
    /// by column name.
    ///
    /// # Panics
    /// With DuckDB's message, when it refuses the statement or a file.
    #[track_caller]
    pub fn query(&self, sql: &str) -> Vec<Value> {
        let mut python = Command::new(&self.python)
            .args(["-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Taken, so that it is closed when this line is over and the program sees the end of it.
        python.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
        let output = python.wait_with_output().unwrap();
        assert!(output.status.success(), "DuckDB refuses {sql}\n{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        // NaN and the infinities are written as Python does, which JSON has no form for either.
        text.lines()
            .map(|line| serde_json::from_str(line).expect("finite numbers: cast others to VARCHAR"))
            .collect()
    }
}
