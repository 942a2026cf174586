//! The cause of a DataFusion error, without the layers that it came through.

use std::any::Any;

use datafusion::error::DataFusionError;

/// Of an error: more than its words ever take.
const MOST_BYTES: usize = 1_000;

/// The root of an error, in one line. An error of a regular expression is drawn over several; the
/// last names the cause.
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
    if let Some((_, inner)) = text.split_once(" Compute error: ") {
        text = inner;
    }
    for layer in [
        "Arrow error: ",
        "Parser error: ",
        "Cast error: ",
        "Compute error: ",
        "Invalid argument error: ",
        "External error: ",
    ] {
        text = text.strip_prefix(layer).unwrap_or(text);
    }
    let reason = text.lines().find_map(|line| line.strip_prefix("error: "));
    let first = text.lines().next().unwrap_or_default();
    cut(match reason {
        Some(reason) => format!("{} {reason}", first.trim_end()),
        None => first.trim_end_matches('.').to_owned(),
    })
}

/// Errors quote values, and a value may be as long as a message.
fn cut(mut text: String) -> String {
    if text.len() > MOST_BYTES {
        text.truncate(text.floor_char_boundary(MOST_BYTES));
        text.push('…');
    }
    text
}

/// A panic of DataFusion's or of one of its libraries, as an error.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> DataFusionError {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    DataFusionError::Execution(format!("panicked: {}", text.unwrap_or("without a message")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_error_quotes_is_cut() {
        let error = |value: &str| {
            cause(&DataFusionError::Execution(format!("Cannot cast string '{value}' to a number")))
        };
        assert_eq!(error("a"), "Cannot cast string 'a' to a number");
        let long = error(&"ä".repeat(35_000));
        assert!(long.len() <= MOST_BYTES + '…'.len_utf8() && long.ends_with("ä…"), "{}", long.len());
    }
}
