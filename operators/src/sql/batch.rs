//! A rollup's SELECT as it runs in batch, over all points at once: for a coarser tier, and for
//! hopping windows.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Select, SetExpr, Statement,
    visit_expressions, visit_expressions_mut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::error::SqlError;
use super::{hop, tumble};

/// The column with a window's start, where a point stands once for each window that holds it.
const WINDOW: &str = "__window";

/// The SELECT as it runs in batch. `hop` gives a point's pane, and only a rollup knows how panes
/// make up windows: in batch every point stands once for each of its windows.
pub(super) fn sql(select: &Select) -> Result<String, SqlError> {
    let mut hops = None;
    let _ = visit_expressions(select, |expr| match call(expr, hop::NAME) {
        Some(call) => {
            hops = Some(call.args.to_string());
            ControlFlow::Break(())
        }
        None => ControlFlow::Continue(()),
    });
    let Some(arguments) = hops else { return Ok(select.to_string()) };
    let mut select = select.clone();
    let _ = visit_expressions_mut(&mut select, |expr| {
        if call(expr, hop::NAME).is_some() {
            *expr = Expr::Identifier(Ident::new(WINDOW));
        }
        ControlFlow::<()>::Continue(())
    });
    let from = format!(
        "SELECT * FROM (SELECT *, unnest({}{arguments}) AS {WINDOW} FROM points) AS points",
        hop::STARTS
    );
    select.from = parsed(&from).map_err(|error| internal(&error))?.from;
    Ok(select.to_string())
}

/// The SELECT with windows of another length.
pub(super) fn with_window(select: &Select, size: i64) -> Result<Select, SqlError> {
    let interval = parsed_expr(&interval(size)).map_err(|error| internal(&error))?;
    let mut select = select.clone();
    let _ = visit_expressions_mut(&mut select, |expr| {
        if call(expr, tumble::NAME).is_some()
            && let Expr::Function(Function { args: FunctionArguments::List(list), .. }) = expr
            && let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(size))) = list.args.get_mut(1)
        {
            *size = interval.clone();
        }
        ControlFlow::<()>::Continue(())
    });
    Ok(select)
}

/// `INTERVAL '1 hour'`.
pub(super) fn interval(nanoseconds: i64) -> String {
    const SECOND: i64 = 1_000_000_000;
    let units = [
        ("day", 86_400 * SECOND),
        ("hour", 3_600 * SECOND),
        ("minute", 60 * SECOND),
        ("second", SECOND),
        ("millisecond", 1_000_000),
        ("microsecond", 1_000),
    ];
    let fits = units.into_iter().find(|(_, length)| nanoseconds % length == 0);
    let (unit, length) = fits.unwrap_or(("nanosecond", 1));
    let count = nanoseconds / length;
    format!("INTERVAL '{count} {unit}{}'", if count == 1 { "" } else { "s" })
}

/// The call, when `expr` is one of the function `name`.
pub(super) fn call<'e>(expr: &'e Expr, name: &str) -> Option<&'e Function> {
    match expr {
        Expr::Function(call) if call.name.to_string().eq_ignore_ascii_case(name) => Some(call),
        _ => None,
    }
}

fn parsed(sql: &str) -> Result<Select, ParserError> {
    let mut statements = Parser::parse_sql(&GenericDialect {}, sql)?;
    if let Some(Statement::Query(query)) = statements.pop()
        && let SetExpr::Select(select) = *query.body
    {
        return Ok(*select);
    }
    Err(ParserError::ParserError(format!("not a SELECT: {sql}")))
}

pub(super) fn parsed_expr(sql: &str) -> Result<Expr, ParserError> {
    Parser::new(&GenericDialect {}).try_with_sql(sql)?.parse_expr()
}

/// What is written here is always understood.
pub(super) fn internal(error: &ParserError) -> SqlError {
    SqlError::new(Span::empty(), error.to_string(), "")
}
