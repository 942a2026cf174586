//! What a rollup's SELECT may not hold: whatever cannot be merged from partial states, would need
//! unbounded state, or would give another result when it runs again. Each refusal has the remedy.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArguments, GroupByExpr, Query, Select, Spanned, TableFactor,
    visit_expressions,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::error::SqlError;
use super::hop;

/// Aggregates whose state holds every value.
const UNBOUNDED: [(&str, &str); 7] = [
    ("array_agg", "aggregate the values, or read the raw points from cold storage"),
    ("median", "write approx_percentile_cont(value, 0.5)"),
    ("nth_value", "write first_value or last_value with ORDER BY time"),
    ("percentile_cont", "write approx_percentile_cont(value, 0.95)"),
    ("quantile_cont", "write approx_percentile_cont(value, 0.95)"),
    ("string_agg", "aggregate the values, or read the raw points from cold storage"),
    ("listagg", "aggregate the values, or read the raw points from cold storage"),
];

/// Functions that give something else each time.
const UNREPEATABLE: [&str; 9] = [
    "current_date",
    "current_time",
    "current_timestamp",
    "now",
    "rand",
    "random",
    "to_local_time",
    "today",
    "uuid",
];

pub(super) fn refuse_unmergeable(query: &Query, select: &Select) -> Result<(), SqlError> {
    refuse_clauses(query, select)?;
    refuse_sources(select)?;
    refuse_grouping(select)?;
    let found = visit_expressions(select, |expr| match refuse_expression(expr) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    });
    match found {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn refuse_clauses(query: &Query, select: &Select) -> Result<(), SqlError> {
    let span = select.span();
    let refused: [(bool, Span, &str, &str); 9] = [
        (
            query.with.is_some(),
            query.with.as_ref().map_or(span, Spanned::span),
            "WITH … AS (common table expressions)",
            "write the SELECT over `points` itself",
        ),
        (
            query.order_by.is_some(),
            query.order_by.as_ref().map_or(span, Spanned::span),
            "ORDER BY",
            "leave it out: rows are stored by time, order them when you read",
        ),
        (
            query.limit_clause.is_some() || query.fetch.is_some(),
            query.limit_clause.as_ref().map_or(span, Spanned::span),
            "LIMIT",
            "leave it out, or keep fewer groups with WHERE or HAVING",
        ),
        (select.distinct.is_some(), span, "SELECT DISTINCT", "write GROUP BY"),
        (select.top.is_some(), span, "TOP", "leave it out, or keep fewer groups with WHERE or HAVING"),
        (select.into.is_some(), span, "SELECT INTO", "leave it out"),
        (
            select.qualify.is_some(),
            select.qualify.as_ref().map_or(span, Spanned::span),
            "QUALIFY",
            "use HAVING, or compare windows in an alert rule",
        ),
        (!select.named_window.is_empty(), span, "WINDOW", "use tumble(time, INTERVAL '1 minute')"),
        (
            !select.lateral_views.is_empty() || !query.pipe_operators.is_empty(),
            span,
            "this clause",
            "write SELECT … FROM points WHERE … GROUP BY …",
        ),
    ];
    for (present, place, what, remedy) in refused {
        if present {
            return Err(SqlError::new(
                place,
                format!("{what} cannot be kept up to date in a stream"),
                remedy,
            ));
        }
    }
    Ok(())
}

fn refuse_sources(select: &Select) -> Result<(), SqlError> {
    const FROM: &str = "write FROM points";
    let [from] = select.from.as_slice() else {
        let what = if select.from.is_empty() { "there is no FROM" } else { "several tables are a join" };
        return Err(SqlError::new(select.span(), what, FROM));
    };
    if let Some(join) = from.joins.first() {
        return Err(SqlError::new(
            join.relation.span(),
            "a rollup reads `points` alone, without a join",
            "group by the labels that the points carry; compare two rollups in an alert rule",
        ));
    }
    match &from.relation {
        TableFactor::Table { name, alias: None, args: None, .. } => {
            if name.to_string().eq_ignore_ascii_case("points") {
                return Ok(());
            }
            let message = format!("unknown table `{name}`");
            Err(SqlError::new(name.span(), message, "the only source of a rollup is `points`"))
        }
        TableFactor::Table { alias: Some(alias), .. } => {
            Err(SqlError::new(alias.name.span, "`points` takes no alias here", FROM))
        }
        other => Err(SqlError::new(other.span(), "a subquery cannot be kept up to date", FROM)),
    }
}

fn refuse_grouping(select: &Select) -> Result<(), SqlError> {
    const REMEDY: &str = "write GROUP BY with tumble(time, INTERVAL '1 minute') and the labels to keep apart";
    match &select.group_by {
        GroupByExpr::Expressions(exprs, modifiers) if modifiers.is_empty() && !exprs.is_empty() => {
            for expr in exprs {
                if matches!(expr, Expr::Rollup(_) | Expr::Cube(_) | Expr::GroupingSets(_)) {
                    return Err(SqlError::new(expr.span(), "grouping sets are several rollups", REMEDY));
                }
            }
            Ok(())
        }
        GroupByExpr::Expressions(exprs, _) if exprs.is_empty() => {
            Err(SqlError::new(select.span(), "there is no GROUP BY, so there are no windows", REMEDY))
        }
        other => Err(SqlError::new(other.span(), "this form of GROUP BY is not supported", REMEDY)),
    }
}

fn refuse_expression(expr: &Expr) -> Result<(), SqlError> {
    match expr {
        Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => Err(SqlError::new(
            expr.span(),
            "a subquery cannot be kept up to date",
            "write the condition over the columns of `points`",
        )),
        Expr::Function(function) => refuse_function(function),
        _ => Ok(()),
    }
}

fn refuse_function(function: &Function) -> Result<(), SqlError> {
    let name = function.name.to_string().to_ascii_lowercase();
    let span = function.span();
    if function.over.is_some() {
        return Err(SqlError::new(
            span,
            format!("{name}(…) OVER is a window function"),
            "use an aggregate with GROUP BY; compare windows in an alert rule",
        ));
    }
    if let Some((_, remedy)) = UNBOUNDED.iter().find(|(unbounded, _)| *unbounded == name) {
        return Err(SqlError::new(span, format!("{name} would have to keep every value"), *remedy));
    }
    if UNREPEATABLE.contains(&name.as_str()) {
        return Err(SqlError::new(
            span,
            format!("{name} gives another result each time"),
            "use the column `time` of the points",
        ));
    }
    let FunctionArguments::List(arguments) = &function.args else { return Ok(()) };
    if name == hop::NAME {
        refuse_hop(span, arguments.args.len())?;
    }
    if arguments.duplicate_treatment == Some(DuplicateTreatment::Distinct) {
        let remedy = match (name.as_str(), arguments.args.as_slice()) {
            ("count", [argument]) => format!("write approx_distinct({argument})"),
            _ => "leave DISTINCT out".to_owned(),
        };
        return Err(SqlError::new(
            span,
            format!("{name}(DISTINCT …) would have to keep every value"),
            remedy,
        ));
    }
    let ordered = !arguments.clauses.is_empty() || !function.within_group.is_empty();
    if name == "any_value" {
        return Err(SqlError::new(
            span,
            "any_value depends on the order of arrival",
            "write last_value(… ORDER BY time), or min or max",
        ));
    }
    if (name == "first_value" || name == "last_value") && !ordered {
        return Err(SqlError::new(
            span,
            format!("{name} without an order depends on the order of arrival"),
            format!("write {name}(… ORDER BY time)"),
        ));
    }
    Ok(())
}

fn refuse_hop(span: Span, arguments: usize) -> Result<(), SqlError> {
    match arguments {
        3 => Ok(()),
        4 => Err(SqlError::new(
            span,
            "hop takes no time zone: its windows start every so often since the epoch (UTC)",
            "leave the zone out; local days are tumble(time, INTERVAL '1 day', 'Europe/Berlin')",
        )),
        _ => Err(SqlError::new(
            span,
            "hop takes a time, the length of a window, and the time between two starts",
            format!("write {}", hop::EXAMPLE),
        )),
    }
}
