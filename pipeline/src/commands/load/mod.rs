//! `tidemark load`: files of points into a source topic, merged by time, at full speed or at a
//! multiple of real time.
//!
//! Every file is read through before the first message is sent: a bad row stops the load while
//! nothing has happened yet. Files small enough are kept in memory on the way and sorted there;
//! larger ones must be sorted, and are read again while they are sent. A load that returns `Ok` has
//! every message confirmed by the brokers.

mod cells;
mod close;
mod csv;
mod disorder;
mod input;
mod lines;
mod merge;
mod physical;
mod send;
mod time;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use points::book::SeriesBook;
use regex::Regex;

use crate::clock::Clock;
use crate::config::{Config, PayloadFormat};
use crate::kafka::KafkaError;
use crate::time::{nanoseconds, shown};
use close::Closing;
use disorder::Disorder;
use input::{Beyond, Inputs};
use merge::Merge;
use send::Sender;
use time::{Times, Zone, parse_zone};

/// `tidemark load`: send the points of files to a source topic.
#[derive(Debug, Clone, Args)]
pub struct LoadArgs {
    /// Files of points: .csv, .json/.jsonl/.ndjson (a point a line), or line protocol (.lp, .line,
    /// .txt)
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Format of all files, in place of that of their names
    #[arg(long)]
    pub format: Option<FileFormat>,
    /// CSV: column of the event time [default: timestamp, time, ts or date]
    #[arg(long, value_name = "COLUMN")]
    pub time_column: Option<String>,
    /// CSV: column of the value
    #[arg(long, value_name = "COLUMN", default_value = "value")]
    pub value_column: String,
    /// CSV: strftime pattern of the event time, which must determine a time; what is finer than the
    /// pattern is zero [default: RFC 3339, YYYY-MM-DD HH:MM:SS, or a number since the epoch]
    #[arg(long, value_name = "PATTERN", value_parser = parse_pattern)]
    pub time_format: Option<String>,
    /// CSV: where times without an offset were written down: Europe/Berlin, or +01:00. Local times
    /// that the clock skips, or that are there twice, are mistakes
    #[arg(long, value_name = "ZONE", default_value = "UTC", value_parser = parse_zone)]
    pub time_zone: Zone,
    /// CSV: what separates cells: one character, or tab
    #[arg(long, value_name = "CHARACTER", default_value = ",", value_parser = parse_delimiter)]
    pub delimiter: char,
    /// CSV: numbers are written with a decimal comma, 1,5
    #[arg(long)]
    pub decimal_comma: bool,
    /// CSV: name of the metric [default: from --file-pattern, or the file's name]
    #[arg(long)]
    pub name: Option<String>,
    /// CSV: column of the metric's name
    #[arg(long, value_name = "COLUMN", conflicts_with = "name")]
    pub name_column: Option<String>,
    /// Label of every point; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub labels: Vec<(String, String)>,
    /// CSV: column that becomes a label; may be repeated
    #[arg(long = "label-column", value_name = "COLUMN")]
    pub label_columns: Vec<String>,
    /// Regular expression that matches the whole of the file's name without its extension: group
    /// `name` is the metric, every other named group a label, as in
    /// '(?<name>.+)_(?<instance>[^_]+)'
    #[arg(long, value_name = "REGEX", value_parser = parse_file_pattern)]
    pub file_pattern: Option<Regex>,
    /// Topic to send to [default: the first of `points` in the configuration]
    #[arg(long)]
    pub topic: Option<String>,
    /// Multiple of real time to send at, like 60x [default: as fast as possible]
    #[arg(long, value_parser = parse_speed)]
    pub speed: Option<f64>,
    /// Shuffle points by up to this much event time
    #[arg(long, value_parser = humantime::parse_duration)]
    pub disorder: Option<Duration>,
    /// Seed of the shuffle: the same seed gives the same order
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Points in a message, all of them for the same partition
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub points_per_message: u32,
    /// How messages are written
    #[arg(long, default_value = "json")]
    pub encoding: Encoding,
    /// Skip and count lines with mistakes in place of stopping at the first one
    #[arg(long)]
    pub skip_bad: bool,
    /// Send a heartbeat to every partition at the end, so that the last windows close. Event time
    /// never moves beyond the clock. Refused where it would come near the clock while others send
    /// to the topic: their points would be late
    #[arg(long)]
    pub close: bool,
    /// Close although others send to the topic
    #[arg(long, requires = "close")]
    pub force: bool,
    /// How far beyond the last event time the heartbeat is [default: far enough for the windows of
    /// the rollups, or a day]
    #[arg(long, value_name = "DURATION", requires = "close", value_parser = humantime::parse_duration)]
    pub close_after: Option<Duration>,
    /// Points kept in memory to be sorted there (24 bytes each); files beyond that must be sorted
    /// by time
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    pub sort_points: usize,
}

/// Format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FileFormat {
    Csv,
    /// One JSON object a line, in the form of messages
    Json,
    LineProtocol,
}

/// Format of the messages that are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Encoding {
    Json,
    LineProtocol,
}

impl From<Encoding> for points::encode::Encoding {
    fn from(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Json => Self::Json,
            Encoding::LineProtocol => Self::LineProtocol,
        }
    }
}

/// A load could not be done, or not be finished.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The options do not fit each other, the files, or the configuration.
    #[error("{0}")]
    Options(String),
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A row is no point. Nothing has been sent.
    #[error("{}:{line}: {problem}: correct the line, or skip such lines with --skip-bad", path.display())]
    BadRow { path: PathBuf, line: u64, problem: String },
    /// A file is neither small enough to be sorted here nor sorted. Nothing has been sent.
    #[error(
        "{}:{line}: earlier than the row before it, in a file too large to be sorted in memory: sort the file by time, or raise --sort-points above {limit}",
        path.display()
    )]
    Unsorted { path: PathBuf, line: u64, limit: usize },
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The topic is not there.
    #[error(
        "no such topic: make it with `tidemark topics create`, or name another with --topic, topic=`{topic}`"
    )]
    NoTopic { topic: String },
    /// `--close` would make points of others late.
    #[error(
        "others send to the topic, and event time would be moved near the clock ({}): their points would be late. Leave out --close: as long as they send, windows close by themselves. Or add --force, topic=`{topic}`, sent={sent}",
        shown(*.time)
    )]
    Others { topic: String, time: i64, sent: u64 },
    /// A message was given up after every retry; those before it may have arrived.
    #[error("a message could not be delivered, topic=`{topic}`, delivered={delivered}")]
    Delivery {
        topic: String,
        delivered: u64,
        #[source]
        source: Box<rdkafka::error::KafkaError>,
    },
}

/// What was sent; displays as a summary for people.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadReport {
    pub files: usize,
    pub points: u64,
    /// Lines with mistakes that were left out (`--skip-bad`).
    pub skipped: u64,
    pub messages: u64,
    pub topic: String,
    pub partitions: i32,
    /// From the first message to the last confirmation.
    pub elapsed: Duration,
    /// Earliest and latest event time, in nanoseconds since the epoch; `None` when there was no
    /// point.
    pub times: Option<(i64, i64)>,
    /// Event time of the heartbeats, if any were sent.
    pub closed_at: Option<i64>,
}

/// Loads the files by `args`. Blocks: not for a thread of the async runtime.
///
/// `close_at` turns the last event time into the time of the heartbeats of `--close`, unless
/// `--close-after` sets it itself: a caller that knows the rollups gives the end of their last
/// window. `progress` draws a bar on a terminal.
///
/// # Errors
/// See [`LoadError`]: before anything was sent for options, files and rows, in the middle for
/// delivery.
pub fn run(
    args: &LoadArgs,
    config: &Config,
    clock: &Clock,
    close_at: Option<&dyn Fn(i64) -> i64>,
    progress: bool,
) -> Result<LoadReport, LoadError> {
    check_encoding(args, config)?;
    let mut book = SeriesBook::new(config.ingest.texts());
    let inputs = Inputs::open(args, &mut book, Beyond::new(&config.ingest, clock.now_ns()))?;
    for warning in inputs.beyond.warnings() {
        tracing::warn!("{warning}");
    }
    let topic = match &args.topic {
        Some(topic) => topic.clone(),
        None => config.topics.points.first().cloned().unwrap_or_default(),
    };
    let mut sender = Sender::new(args, config, &topic, &book, clock.clone())?;
    let closing = match inputs.times {
        Some((_, last)) if args.close => Some(Closing::start(
            args,
            config,
            clock,
            &topic,
            heartbeat_time(args, config, clock, close_at, last),
        )?),
        _ => None,
    };
    let bar = send::progress_bar(inputs.points, progress);

    let started = clock.monotonic();
    let (files, points, skipped, times) = (inputs.files.len(), inputs.points, inputs.skipped, inputs.times);
    let mut merge = Merge::new(inputs.files, &mut book)?;
    let mut disorder = Disorder::new(args.disorder.unwrap_or_default(), args.seed);
    loop {
        // Points wait in the disorder until nothing still to come can go before them.
        let next = merge.next(&mut book)?;
        disorder.push(next);
        while let Some(due) = disorder.pop() {
            sender.send(&book, due)?;
            bar.inc(1);
        }
        if next.is_none() {
            break;
        }
    }
    sender.finish_points()?;
    let mut messages = sender.confirm()?;
    let closed_at = closing.as_ref().map(|closing| closing.time);
    if let Some(closing) = closing {
        closing.check(sender.sent())?;
        sender.heartbeat(closing.time)?;
        messages = sender.confirm()?;
    }
    bar.finish_and_clear();
    Ok(LoadReport {
        files,
        points,
        skipped,
        messages,
        topic,
        partitions: sender.partitions(),
        elapsed: clock.monotonic().saturating_sub(started),
        times,
        closed_at,
    })
}

/// `ingest` must be able to read what is sent.
fn check_encoding(args: &LoadArgs, config: &Config) -> Result<(), LoadError> {
    let problem = match (config.ingest.format, args.encoding) {
        (PayloadFormat::Json, Encoding::LineProtocol) => {
            "`ingest` reads only JSON (format of [ingest]): leave out --encoding line-protocol"
        }
        (PayloadFormat::LineProtocol, Encoding::Json) => {
            "`ingest` reads only line protocol (format of [ingest]): add --encoding line-protocol"
        }
        (PayloadFormat::LineProtocol, Encoding::LineProtocol) if args.close => {
            "a heartbeat is JSON, and `ingest` reads only line protocol: set format = \"auto\" in [ingest], or leave out --close"
        }
        _ => return Ok(()),
    };
    Err(LoadError::Options(problem.to_owned()))
}

/// Where `--close` moves event time to: far enough for the last windows, and never beyond the
/// clock, so that it claims no more than a point of this moment would.
fn heartbeat_time(
    args: &LoadArgs,
    config: &Config,
    clock: &Clock,
    close_at: Option<&dyn Fn(i64) -> i64>,
    last: i64,
) -> i64 {
    const DAY: Duration = Duration::from_secs(86_400);
    let wanted = match (args.close_after, close_at) {
        (None, Some(close_at)) => close_at(last),
        (after, _) => last.saturating_add(nanoseconds(after.unwrap_or(DAY))),
    };
    // The watermark stays this far behind.
    let wanted = wanted.saturating_add(nanoseconds(config.ingest.max_out_of_orderness));
    let now = clock.now_ns();
    if wanted > now {
        let idle = humantime::format_duration(config.ingest.idle_timeout);
        tracing::warn!(
            "the last windows end in the future, at {}: they close when newer points come, or at the pace of the clock once nobody has sent for {idle}",
            shown(wanted)
        );
    }
    wanted.min(now).max(last)
}

fn parse_pattern(text: &str) -> Result<String, String> {
    Times::new(Some(text), Zone::UTC).map(|_| text.to_owned())
}

fn parse_delimiter(text: &str) -> Result<char, String> {
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some(_), Some(_)) if text == "tab" || text == "\\t" => Ok('\t'),
        (Some(one), None) if !matches!(one, '"' | '\n' | '\r') => Ok(one),
        _ => Err("write one character, like ';', or tab".to_owned()),
    }
}

/// The pattern, anchored at both ends: an alternative that matches a piece must not hide one that
/// matches the whole.
fn parse_file_pattern(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|error| error.to_string())?;
    Regex::new(&format!("^(?:{text})$")).map_err(|error| error.to_string())
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE, like host=web-1".to_owned()),
    }
}

fn parse_speed(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix(['x', 'X']).unwrap_or(text);
    match number.parse::<f64>() {
        Ok(speed) if speed.is_finite() && speed > 0.0 => Ok(speed),
        _ => Err("write a multiple of real time, like 1x or 60x".to_owned()),
    }
}

/// The format by a file's name, or the one given for all.
fn file_format(path: &Path, given: Option<FileFormat>) -> Result<FileFormat, LoadError> {
    if let Some(format) = given {
        return Ok(format);
    }
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "csv" => Ok(FileFormat::Csv),
        "json" | "jsonl" | "ndjson" => Ok(FileFormat::Json),
        "lp" | "line" | "influx" | "txt" => Ok(FileFormat::LineProtocol),
        _ => Err(LoadError::Options(format!(
            "{}: its name does not tell its format: add --format csv, json or line-protocol",
            path.display()
        ))),
    }
}

impl LoadArgs {
    fn times(&self) -> Result<Times, LoadError> {
        Times::new(self.time_format.as_deref(), self.time_zone).map_err(LoadError::Options)
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64();
        let rate = if seconds > 0.0 { self.points as f64 / seconds } else { 0.0 };
        writeln!(
            f,
            "{} points of {} files in {} messages to `{}` ({} partitions), sent in {seconds:.1} s, {rate:.0} points/s",
            self.points, self.files, self.messages, self.topic, self.partitions
        )?;
        if let Some((first, last)) = self.times {
            writeln!(f, "event time {} to {}", shown(first), shown(last))?;
        }
        if self.skipped > 0 {
            writeln!(f, "{} lines with mistakes skipped", self.skipped)?;
        }
        if let Some(closed_at) = self.closed_at {
            writeln!(f, "closed at {}", shown(closed_at))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
