//! A child process with its log, that never outlives this one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::wait::wait_until;

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    guard: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, with both outputs appended to the file `log`.
    ///
    /// Should this process be killed, nothing here runs any more, and values in statics are never
    /// dropped: a guard, a shell that reads from a pipe until we are gone, then kills the child and
    /// removes `scratch`. It outlives an interrupt from the keyboard, which reaches it as well as
    /// us.
    ///
    /// # Panics
    /// When the program cannot be run.
    pub fn start(name: &str, mut command: Command, log: &Path, scratch: &Path) -> Self {
        let out = File::options().create(true).append(true).open(log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started, {command:?}: {error}"));
        let guard = Command::new("sh")
            .args([
                "-c",
                r#"trap '' INT TERM HUP; read -r _; kill -9 "$1" 2>/dev/null; rm -rf -- "$2""#,
                "guard",
            ])
            .arg(child.id().to_string())
            .arg(scratch)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("there is a shell");
        Self { name: name.to_owned(), child, guard, log: log.to_owned() }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, once it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for `probe` as [`wait_until`] does.
    ///
    /// # Panics
    /// When the time is over, or the process ends before: with the end of its log.
    #[track_caller]
    pub fn wait_until<T>(
        &mut self,
        timeout: Duration,
        what: &str,
        mut probe: impl FnMut() -> Result<T, String>,
    ) -> T {
        wait_until(timeout, what, || {
            probe().map_err(|seen| {
                if let Some(status) = self.ended() {
                    panic!(
                        "{} ended ({status}) before {what}; seen last: {seen}\n{}",
                        self.name,
                        self.log_tail()
                    );
                }
                format!("{seen}\n{}", self.log_tail())
            })
        })
    }

    /// Sends a signal, by its name: `TERM`, `STOP`, `CONT`.
    pub fn signal(&self, signal: &str) {
        let status =
            Command::new("kill").arg(format!("-{signal}")).arg(self.id().to_string()).status().unwrap();
        assert!(
            status.success(),
            "{} does not take signal {signal}; it has ended\n{}",
            self.name,
            self.log_tail()
        );
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Panics
    /// When it has not after `timeout`, with the end of its log.
    #[track_caller]
    pub fn wait_for_end(&mut self, timeout: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        wait_until(timeout, &what, || {
            self.ended().ok_or_else(|| format!("still running\n{}", self.log_tail()))
        })
    }

    /// Ends the process at once, as a crash would (SIGKILL), and waits until it is gone.
    pub fn kill9(&mut self) {
        // The guard first: the child's id may be another's once the child is gone.
        self.guard.kill().unwrap();
        self.guard.wait().unwrap();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The last 40 lines of the log.
    pub fn log_tail(&self) -> String {
        let text =
            fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(40)..];
        format!("--- end of the log of {} ---\n{}\n---", self.name, tail.join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}
