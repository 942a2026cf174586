//! The servers and tools that scripts in `tests/servers` and `tests/peers` provide.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// This machine cannot run what a trial needs. The trial skips, and prints this.
#[derive(Debug, Clone)]
pub struct Unavailable(String);

impl Unavailable {
    /// `reason` completes the sentence "skipped: …".
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unavailable {}

/// Exit status by which a script says that a tool it needs is not installed.
const TOOL_MISSING: i32 = 3;

/// Runs `tests/<script>` and gives the path it prints. Immediate when the thing is in the cache;
/// the first time it may take minutes, so what the script says is shown while it runs.
///
/// # Panics
/// When the script fails for another reason than a missing tool.
#[allow(clippy::print_stderr)]
pub(crate) fn provide(script: &str) -> Result<PathBuf, Unavailable> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
    let mut bash = Command::new("bash")
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Unavailable::new(format!("no bash to run path=`{}`: {error}", path.display())))?;
    let mut said = Vec::new();
    for line in BufReader::new(bash.stderr.take().unwrap()).lines().map_while(Result::ok) {
        eprintln!("{line}");
        said.push(line);
    }
    let output = bash.wait_with_output().unwrap();
    match output.status.code() {
        Some(0) => Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())),
        Some(TOOL_MISSING) => Err(Unavailable::new(said.join("; "))),
        _ => panic!("{script} failed, {}: {}", output.status, said.join("\n")),
    }
}
