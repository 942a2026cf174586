//! Log lines on standard error: for people by default, as JSON for machines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// One line for a person, in colour on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    #[error(
        "not a log filter: write a level (error, warn, info, debug, trace) or pairs like tidemark=debug,info, filter=`{filter}`"
    )]
    Filter {
        filter: String,
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    #[error("logging was set up twice")]
    Twice,
}

/// Starts logging for the whole process. `filter` is a level or a list of `target=level`, as
/// TIDEMARK_LOG has it; librdkafka's own lines come with the target `librdkafka`.
///
/// # Errors
/// When the filter cannot be read, or logging was set up before.
pub fn init(format: LogFormat, filter: &str) -> Result<(), LogsError> {
    let parsed = EnvFilter::try_new(filter)
        .map_err(|source| LogsError::Filter { filter: filter.to_owned(), source })?;
    let lines = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(|_| LogsError::Twice)
}
