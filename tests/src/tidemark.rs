//! The built program as a child process.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use tempfile::TempDir;

use crate::background;
use crate::ports::free_port;
use crate::process::Process;
use crate::provided::Unavailable;
use crate::secrets;

/// To be up, or to have ended, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// A directory with a configuration, and the processes that are started with it one after the
/// other: what survives a crash lies there, and in Kafka.
#[derive(Debug)]
pub struct Tidemark {
    binary: PathBuf,
    directory: TempDir,
    address: String,
    process: Option<Process>,
}

impl Drop for Tidemark {
    fn drop(&mut self) {
        // What the program has written, whatever the trial was about.
        if !std::thread::panicking() {
            secrets::assert_absent("the log", &self.log_text());
        }
    }
}

impl Tidemark {
    /// `config` is the text of `config.toml`, in which the caller need not name an address: it
    /// listens on [`Tidemark::url`]. Relative paths in it start at [`Tidemark::directory`]. Nothing
    /// is started yet.
    pub fn new(config: &str) -> Result<Self, Unavailable> {
        let tidemark = Self {
            binary: binary()?,
            directory: tempfile::Builder::new().prefix("tidemark-run-").tempdir().unwrap(),
            address: format!("127.0.0.1:{}", free_port()),
            process: None,
        };
        tidemark.write("config.toml", config);
        Ok(tidemark)
    }

    /// The working directory of the program.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// `http://host:port`, without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Writes a file below [`Tidemark::directory`], and the directories it needs.
    pub fn write(&self, path: &str, content: &str) {
        let path = self.directory().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A command of the program with the configuration and the address set, to be completed with
    /// arguments.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .current_dir(self.directory())
            .env("TIDEMARK_CONFIG", "config.toml")
            // The tests' own variables are none of the program's.
            .env_remove("TIDEMARK_REQUIRE_SERVERS")
            .env_remove("TIDEMARK_NAB")
            .env_remove("TIDEMARK_BIN")
            .env_remove("TIDEMARK_GOLDEN")
            .env("TIDEMARK_HTTP__LISTEN", &self.address)
            .env("RUST_BACKTRACE", "1");
        command
    }

    /// Runs a command of the program to its end (`&["topics", "create"]`), and gives its standard
    /// output.
    ///
    /// # Panics
    /// When it fails, with what it said.
    #[track_caller]
    pub fn call(&self, arguments: &[&str]) -> String {
        let output = self.command().args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let stdout = String::from_utf8(output.stdout).unwrap();
        secrets::assert_absent("the output of a command", &format!("{said}{stdout}"));
        assert!(output.status.success(), "tidemark {}: {}: {said}", arguments.join(" "), output.status);
        stdout
    }

    /// Starts the program with these arguments, and does not wait for anything. A process that
    /// still runs is killed.
    pub fn spawn(&mut self, arguments: &[&str], environment: &[(&str, &str)]) {
        self.process = None;
        let mut command = self.command();
        command.args(arguments).envs(environment.iter().copied());
        self.process = Some(Process::start("tidemark", command, &self.log(), self.directory()));
    }

    /// Starts `tidemark run` with some of its roles (`ingest,rollup`), and waits until it says that
    /// it is ready.
    pub fn run(&mut self, roles: &str) {
        self.spawn(&["run", "--roles", roles], &[]);
        self.wait_until_ready();
    }

    /// Waits until `/readyz` answers that all roles are up.
    pub fn wait_until_ready(&mut self) {
        let url = format!("{}/readyz", self.url());
        self.wait_until(PATIENCE, "readiness", || page(&url).map(drop));
    }

    /// What `/readyz` says: nothing when all is ready, else a line for each part that is not.
    pub fn not_ready(&self) -> Result<String, String> {
        let request =
            background::client().get(format!("{}/readyz", self.url())).timeout(Duration::from_secs(5));
        let answer = background::wait_for(async {
            let response = request.send().await?;
            Ok::<_, reqwest::Error>((response.status().is_success(), response.text().await?))
        });
        answer
            .map(|(ready, text)| if ready { String::new() } else { text })
            .map_err(|error| format!("{error:?}"))
    }

    /// The process id of the running program.
    pub fn id(&self) -> u32 {
        self.process.as_ref().expect("the program was started").id()
    }

    /// A metric, as [`metric`] finds it on the program's `/metrics` page now. None also when there
    /// is no answer.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        metric(&self.metrics().ok()?, name, labels)
    }

    /// The text of the program's `/metrics` page.
    pub fn metrics(&self) -> Result<String, String> {
        self.page("/metrics")
    }

    /// The body of a successful answer of the program's HTTP server.
    pub fn page(&self, path: &str) -> Result<String, String> {
        page(&format!("{}{path}", self.url()))
    }

    /// Waits until a metric is `enough` or more, and gives its value.
    #[track_caller]
    pub fn wait_for_metric(
        &mut self,
        timeout: Duration,
        name: &str,
        labels: &[(&str, &str)],
        enough: f64,
    ) -> f64 {
        self.wait_for_metrics(timeout, &format!("{name}{labels:?} to be {enough}"), |page| {
            match metric(page, name, labels) {
                Some(value) if value >= enough => Ok(value),
                other => Err(format!("{other:?}")),
            }
        })
    }

    /// Waits for what `probe` looks for in the text of the `/metrics` page.
    #[track_caller]
    pub fn wait_for_metrics<T>(
        &mut self,
        timeout: Duration,
        what: &str,
        mut probe: impl FnMut(&str) -> Result<T, String>,
    ) -> T {
        let url = format!("{}/metrics", self.url());
        self.wait_until(timeout, what, || probe(&page(&url)?))
    }

    /// Waits for `probe`.
    ///
    /// # Panics
    /// When the time is over or the program ends before, with the end of its log.
    #[track_caller]
    pub fn wait_until<T>(
        &mut self,
        timeout: Duration,
        what: &str,
        probe: impl FnMut() -> Result<T, String>,
    ) -> T {
        self.process.as_mut().expect("the program was started").wait_until(timeout, what, probe)
    }

    /// Asks the program to end (SIGTERM), and waits until it has.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait_for_end()
    }

    /// Whether the program was started, and not killed since. It may have ended by itself.
    pub fn is_started(&self) -> bool {
        self.process.is_some()
    }

    /// The exit status of a program that has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut()?.ended()
    }

    /// Waits until the program has ended by itself.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        self.process.as_mut().expect("the program was started").wait_for_end(PATIENCE)
    }

    /// Sends a signal by its name: `TERM`, `STOP`, `CONT`.
    pub fn signal(&self, signal: &str) {
        self.process.as_ref().expect("the program was started").signal(signal);
    }

    /// Ends the program at once, as a crash would.
    pub fn kill9(&mut self) {
        self.process = None;
    }

    /// Everything that the processes of this directory have written to their outputs.
    pub fn log_text(&self) -> String {
        fs::read(self.log()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn log(&self) -> PathBuf {
        self.directory().join("tidemark.log")
    }
}

/// The body of an answer, whatever its status.
pub fn text(url: &str) -> Result<String, String> {
    let request = background::client().get(url).timeout(Duration::from_secs(5));
    background::wait_for(async { request.send().await?.text().await }).map_err(|error| format!("{error:?}"))
}

/// The body of a successful answer.
pub fn page(url: &str) -> Result<String, String> {
    let request = background::client().get(url).timeout(Duration::from_secs(5));
    let text = background::wait_for(async { request.send().await?.error_for_status()?.text().await })
        .map_err(|error| format!("{error:?}"))?;
    secrets::assert_absent(url, &text);
    Ok(text)
}

/// The program: `TIDEMARK_BIN`, or what cargo has built next to the running executable.
fn binary() -> Result<PathBuf, Unavailable> {
    if let Some(path) = env::var_os("TIDEMARK_BIN") {
        return Ok(path.into());
    }
    // A test runs in target/<profile>/deps, a binary in target/<profile>.
    let executable = env::current_exe().unwrap();
    let candidates = executable.ancestors().skip(1).take(2).map(|directory| directory.join("tidemark"));
    candidates.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        Unavailable::new("no tidemark program next to the tests; build the workspace or set TIDEMARK_BIN")
    })
}

/// The sum of the samples of a metric that have all these labels, others aside; None when there is
/// none.
///
/// Reads the Prometheus text format, as far as its escapes do not occur in label values.
/// <https://prometheus.io/docs/instrumenting/exposition_formats/>
pub fn metric(page: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let mut sum = None;
    for line in page.lines() {
        let Some(rest) = line.strip_prefix(name) else { continue };
        let (found, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once('}')?,
            None => ("", rest),
        };
        // A longer name begins with this one.
        if !value.starts_with(' ') {
            continue;
        }
        let has = |(label, value): &(&str, &str)| {
            let wanted = format!("{label}=\"{value}\"");
            found.match_indices(&wanted).any(|(at, _)| at == 0 || found.as_bytes()[at - 1] == b',')
        };
        if labels.iter().all(has) {
            let value: f64 = value.split_whitespace().next()?.parse().ok()?;
            sum = Some(sum.unwrap_or(0.0) + value);
        }
    }
    sum
}
