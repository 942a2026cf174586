//! Where in a SELECT, as it was written, something stands that its plan has.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Select, Spanned, Value, visit_expressions};
use datafusion::sql::sqlparser::tokenizer::Span;

/// The first expression of the SELECT that is meant, in the order of the text.
pub(super) fn place_of(select: &Select, is_meant: impl Fn(&Expr) -> bool) -> Option<Span> {
    let found = visit_expressions(select, |expr| match is_meant(expr) {
        true => ControlFlow::Break(expr.span()),
        false => ControlFlow::Continue(()),
    });
    match found {
        ControlFlow::Break(span) => Some(span),
        ControlFlow::Continue(()) => None,
    }
}

/// An operation, given by the function that it calls, if it is a call, and by the constants in it:
/// the call with all of them, or else the call, or else the first of the constants.
pub(super) fn place_of_operation(
    select: &Select,
    function: Option<&str>,
    constants: &[String],
) -> Option<Span> {
    let calls = |expr: &Expr| match (expr, function) {
        (Expr::Function(call), Some(name)) => call.name.to_string().eq_ignore_ascii_case(name),
        _ => false,
    };
    let has_all = |expr: &Expr| {
        let text = expr.to_string();
        constants.iter().all(|constant| text.contains(constant.as_str()))
    };
    let is_constant = |expr: &Expr| match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(text, _) => constants.contains(text),
            value => value.clone().into_string().is_some_and(|text| constants.contains(&text)),
        },
        _ => false,
    };
    place_of(select, |expr| calls(expr) && has_all(expr))
        .or_else(|| place_of(select, calls))
        .or_else(|| place_of(select, is_constant))
}
