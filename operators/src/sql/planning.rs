//! DataFusion's planning errors in words for the author of the file: at the token that is wrong,
//! with what to write.

use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::{CastKind, Expr, Select, Spanned};
use datafusion::sql::sqlparser::tokenizer::{Location, Span};

use super::cause::cause;
use super::constants::ConstantError;
use super::error::SqlError;
use super::labels::{is_label, is_labels_access};
use super::place::{place_of, place_of_operation};

/// DataFusion knows the place of some errors; the others are looked for in `select`, as it was
/// written.
pub(super) fn planning_error(
    error: &DataFusionError,
    select: &Select,
    session: Option<&SessionContext>,
) -> SqlError {
    if let Some(mistake) = constant_error(error) {
        let place = place_of_operation(select, mistake.function.as_deref(), &mistake.constants);
        return SqlError::new(place.unwrap_or_else(|| select.span()), mistake.to_string(), "");
    }
    let (message, remedy) = explain(error, session);
    let known = error.diagnostic().and_then(|diagnostic| diagnostic.span);
    let place = match known {
        Some(span) => Location { line: span.start.line, column: span.start.column },
        None => found_in(select, &message).unwrap_or_else(|| select.span()).start,
    };
    SqlError::at(place, message, remedy)
}

/// The constants that an error is about.
pub(crate) fn constant_error(error: &DataFusionError) -> Option<&ConstantError> {
    match error.find_root() {
        DataFusionError::External(error) => error.downcast_ref(),
        _ => None,
    }
}

/// The expression that a message is about.
fn found_in(select: &Select, message: &str) -> Option<Span> {
    if message.contains("only a CAST") {
        return place_of(select, |expr| matches!(expr, Expr::Cast { kind: CastKind::Cast, .. }));
    }
    if message.contains("`labels`") {
        return place_of(select, |expr| is_labels_access(expr) && !is_label(expr));
    }
    let function = message.split(' ').next()?;
    place_of(select, |expr| matches!(expr, Expr::Function(call) if call.name.to_string() == function))
}

fn explain(error: &DataFusionError, session: Option<&SessionContext>) -> (String, String) {
    if let DataFusionError::SchemaError(schema_error, _) = error.find_root() {
        match schema_error.as_ref() {
            SchemaError::FieldNotFound { field, .. } => {
                return unknown_column(&field.flat_name(), &field.name);
            }
            SchemaError::DuplicateUnqualifiedField { name } => {
                return (
                    format!("only a CAST tells two aggregates apart: {}", name.replace("points.", "")),
                    "leave one out, or change an argument otherwise, as in value + 0".to_owned(),
                );
            }
            _ => {}
        }
    }
    let text = cause(error).replace("points.", "");
    if let Some(name) = between(&text, "Invalid function '", "'") {
        return unknown_function(name, session);
    }
    if text.contains("must appear in the GROUP BY clause")
        && let Some(name) = between(&text, "column \"", "\"")
    {
        return (
            format!("`{name}` is neither grouped nor aggregated"),
            format!("add it to GROUP BY, or aggregate it, as in max({name})"),
        );
    }
    if let Some(function) = between(&text, "Support for '", "'")
        && let Some(kind) = between(&text, "data type ", " is not")
    {
        return (
            format!("{function} does not take the type {kind}"),
            format!("give it text, as in {function}(CAST(value AS VARCHAR))"),
        );
    }
    (text, String::new())
}

fn unknown_column(written: &str, name: &str) -> (String, String) {
    const COLUMNS: [&str; 4] = ["name", "time", "value", "labels"];
    let problem = format!("there is no column `{}`", written.replace('"', "").replace("points.", ""));
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let near = nearest(name, COLUMNS.into_iter(), 0.8);
    let remedy = match near {
        _ if written.starts_with("labels") || written.starts_with("points.labels") => {
            "write a label as labels['host'], in brackets and single quotes".to_owned()
        }
        Some(near) if near != name => format!("did you mean `{near}`?"),
        _ if !plain => format!("text is written in single quotes: '{name}'"),
        _ => format!("a label is written labels['{name}']; the other columns are name, time and value"),
    };
    (problem, remedy)
}

fn unknown_function(name: &str, session: Option<&SessionContext>) -> (String, String) {
    let problem = format!("there is no function `{name}`");
    let state = session.map(SessionContext::state);
    let near = state.as_ref().and_then(|state| {
        // Aggregates first: they are what a rollup is made of.
        let aggregates = state.aggregate_functions().keys().map(String::as_str);
        let scalars = state.scalar_functions().keys().map(String::as_str);
        nearest(name, aggregates, 0.8).or_else(|| nearest(name, scalars, 0.8))
    });
    let remedy = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => "the functions are those of DataFusion's SQL: https://datafusion.apache.org/user-guide/sql/"
            .to_owned(),
    };
    (problem, remedy)
}

/// The name most like `word`, when it is at least so similar; the first in the alphabet of several.
pub(super) fn nearest<'a>(
    word: &str,
    names: impl Iterator<Item = &'a str>,
    similarity: f64,
) -> Option<&'a str> {
    let word = word.to_lowercase();
    let mut best: Option<(f64, &str)> = None;
    for name in names {
        let score = strsim::jaro_winkler(&word, name);
        let better = best.is_none_or(|(top, nearest)| score > top || (score == top && name < nearest));
        if score >= similarity && better {
            best = Some((score, name));
        }
    }
    best.map(|(_, name)| name)
}

fn between<'t>(text: &'t str, start: &str, end: &str) -> Option<&'t str> {
    let rest = text.split_once(start)?.1;
    Some(rest.split_once(end)?.0)
}

/// The message without the kinds of error that it came through.
pub(super) fn bare(error: &DataFusionError) -> String {
    let text = error.strip_backtrace();
    for prefix in ["Error during planning: ", "Schema error: ", "This feature is not implemented: "] {
        if let Some(rest) = text.split(prefix).last().filter(|rest| rest.len() < text.len()) {
            return rest.to_owned();
        }
    }
    text
}
