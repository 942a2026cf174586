//! What DataFusion says went wrong, without the layers that an error came through.

use std::any::Any;

use datafusion::error::DataFusionError;

/// The root of an error, in one line. An error of a regular expression is drawn over several; the last says what it is.
pub(crate) fn cause(error: &DataFusionError) -> String {
    let text = match error.find_root() {
        DataFusionError::Plan(text)
        | DataFusionError::Execution(text)
        | DataFusionError::NotImplemented(text)
        | DataFusionError::Configuration(text)
        | DataFusionError::Internal(text) => text.clone(),
        DataFusionError::SQL(error, _) => error.to_string().replace("sql parser error: ", ""),
        DataFusionError::ArrowError(error, _) => error.to_string(),
        other => other.strip_backtrace(),
    };
    let mut text = text.split("\n\nbacktrace: ").next().unwrap_or_default().trim();
    for layer in
        ["Arrow error: ", "Parser error: ", "Cast error: ", "Compute error: ", "Invalid argument error: "]
    {
        text = text.strip_prefix(layer).unwrap_or(text);
    }
    let said = text.lines().find_map(|line| line.strip_prefix("error: "));
    let first = text.lines().next().unwrap_or_default();
    match said {
        Some(said) => format!("{} {said}", first.trim_end()),
        None => first.trim_end_matches('.').to_owned(),
    }
}

/// A panic of DataFusion's or of one of its libraries, as an error.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> DataFusionError {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    DataFusionError::Execution(format!("panicked: {}", text.unwrap_or("without a message")))
}
