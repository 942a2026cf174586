//! How far an approximate percentile may be from another one of the same values.
//!
//! A t-digest depends on the order in which values and digests were merged, so stream and batch
//! give different results, both right. They are compared by rank: the batch query is asked also for
//! the percentiles [`RANKS`] below and above, and what lies between these is as good.
//! `approx_distinct` needs none of this: its sketch is the same for any order.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Query, Select, SelectItem,
    SetExpr, Statement, Value, visit_expressions,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

/// Two ranks in a hundred.
const RANKS: f64 = 0.02;

/// How one column of a result is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    Exactly,
    /// Lies between these two columns of the widened query, in either order.
    Between(usize, usize),
    /// Computed from an approximate value: no bound is known, so it is not compared.
    Not,
}

/// The query with the columns that bound its percentiles after its own, and how each of its own is
/// compared.
pub(crate) fn widen(sql: &str) -> (String, Vec<Judged>) {
    let Some(mut query) = parse(sql) else { return (sql.to_owned(), Vec::new()) };
    let SetExpr::Select(select) = query.body.as_mut() else { return (sql.to_owned(), Vec::new()) };
    let mut judged = Vec::new();
    let mut bounds = Vec::new();
    let own = select.projection.len();
    for item in &select.projection {
        let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else {
            judged.push(Judged::Exactly);
            continue;
        };
        judged.push(match (at_rank(expr, -RANKS), at_rank(expr, RANKS)) {
            (Some(low), Some(high)) => {
                let first = own + bounds.len();
                bounds.extend([low, high]);
                Judged::Between(first, first + 1)
            }
            _ if is_approximate(expr) => Judged::Not,
            _ => Judged::Exactly,
        });
    }
    add(select, bounds);
    (query.to_string(), judged)
}

fn parse(sql: &str) -> Option<Query> {
    let mut statements = Parser::parse_sql(&GenericDialect {}, sql).ok()?;
    match statements.pop() {
        Some(Statement::Query(query)) if statements.is_empty() => Some(*query),
        _ => None,
    }
}

fn add(select: &mut Select, bounds: Vec<Expr>) {
    for (number, expr) in bounds.into_iter().enumerate() {
        let alias = Ident::new(format!("__bound_{number}"));
        select.projection.push(SelectItem::ExprWithAlias { expr, alias });
    }
}

/// The same percentile so much further, when `expr` is one by itself.
fn at_rank(expr: &Expr, further: f64) -> Option<Expr> {
    let Expr::Function(call) = expr else { return None };
    let ordered = !call.within_group.is_empty();
    let mut moved = call.clone();
    let position = match name_of(call).as_str() {
        "approx_percentile_cont" => usize::from(!ordered),
        "approx_percentile_cont_with_weight" => 1 + usize::from(!ordered),
        "approx_median" => {
            moved.name = Ident::new("approx_percentile_cont").into();
            let median = number_of(0.5);
            arguments_of(&mut moved)?.insert(1, FunctionArg::Unnamed(FunctionArgExpr::Expr(median)));
            1
        }
        _ => return None,
    };
    let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value)))) =
        arguments_of(&mut moved)?.get_mut(position)
    else {
        return None;
    };
    let Value::Number(text, _) = &value.value else { return None };
    let percentile: f64 = text.parse().ok()?;
    let Expr::Value(further) = number_of((percentile + further).clamp(0.0, 1.0)) else { return None };
    *value = further;
    Some(Expr::Function(moved))
}

fn arguments_of(call: &mut Function) -> Option<&mut Vec<FunctionArg>> {
    match &mut call.args {
        FunctionArguments::List(list) => Some(&mut list.args),
        _ => None,
    }
}

fn number_of(number: f64) -> Expr {
    Expr::value(Value::Number(format!("{number:.6}"), false))
}

fn is_approximate(expr: &Expr) -> bool {
    let found = visit_expressions(expr, |expr| match expr {
        Expr::Function(call)
            if name_of(call).starts_with("approx_percentile") || name_of(call) == "approx_median" =>
        {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

fn name_of(call: &Function) -> String {
    call.name.to_string().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_get_their_neighbours() {
        let (sql, judged) = widen(
            "SELECT tumble(time, INTERVAL '1 hour') AS w, approx_percentile_cont(value, 0.95) AS p95, \
             approx_percentile_cont(0.99) WITHIN GROUP (ORDER BY value) AS p99, approx_median(value) AS mid, \
             approx_median(value) - min(value) AS gap, approx_distinct(value) AS n FROM points GROUP BY 1",
        );
        let between = |first| Judged::Between(first, first + 1);
        assert_eq!(
            judged,
            [Judged::Exactly, between(6), between(8), between(10), Judged::Not, Judged::Exactly]
        );
        for expected in [
            "approx_percentile_cont(value, 0.930000) AS __bound_0",
            "approx_percentile_cont(value, 0.970000) AS __bound_1",
            "approx_percentile_cont(0.970000) WITHIN GROUP (ORDER BY value) AS __bound_2",
            "approx_percentile_cont(1.000000) WITHIN GROUP (ORDER BY value) AS __bound_3",
            "approx_percentile_cont(value, 0.480000) AS __bound_4",
        ] {
            assert!(sql.contains(expected), "{expected} in {sql}");
        }
    }
}
