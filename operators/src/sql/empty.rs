//! Group columns that are computed: an empty text in one is null, as an empty label is no label.
//!
//! InfluxDB has no empty tags, so a group with an empty one and the group without it would be one
//! point there, and each would overwrite the other. Labels and names of points are never empty.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, Select, SelectItem, Value,
    VisitMut, VisitorMut,
};

use super::batch::{self, call, internal};
use super::error::SqlError;
use super::labels::is_label;

const NULLIF: &str = "nullif";

/// The SELECT with null in place of empty texts in its group columns; none when none of these is
/// computed. `tags` are the positions of the group columns that are text in the SELECT list,
/// `groups` name and position of all in the order of GROUP BY.
pub(super) fn empty_is_null(
    select: &Select,
    tags: &[usize],
    groups: &[(String, usize)],
    is_aggregate: impl Fn(&str) -> bool,
) -> Result<Option<Select>, SqlError> {
    let computed: Vec<String> = tags
        .iter()
        .filter_map(|tag| expr_of(select.projection.get(*tag)?))
        .filter(|expr| can_be_empty(expr))
        .map(|expr| expr.to_string().to_lowercase())
        .collect();
    if computed.is_empty() {
        return Ok(None);
    }
    let mut select = select.clone();
    let mut replace = Replace { computed, is_aggregate, within: 0, error: None };
    for (position, item) in select.projection.iter_mut().enumerate() {
        let _ = item.visit(&mut replace);
        // Its name follows from what it is.
        let name = groups.iter().find(|(_, column)| *column == position).map(|(name, _)| name.as_str());
        if let (SelectItem::UnnamedExpr(expr), Some(name)) = (&item, name) {
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::with_quote('"', name) };
        }
    }
    let _ = select.having.visit(&mut replace);
    if let Some(error) = replace.error {
        return Err(error);
    }
    // An expression that stands in GROUP BY a second time is now another one.
    if let GroupByExpr::Expressions(exprs, _) = &mut select.group_by {
        let position =
            |(_, column): &(String, usize)| Expr::value(Value::Number((column + 1).to_string(), false));
        *exprs = groups.iter().map(position).collect();
    }
    Ok(Some(select))
}

fn expr_of(item: &SelectItem) -> Option<&Expr> {
    match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    }
}

fn can_be_empty(expr: &Expr) -> bool {
    match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => false,
        Expr::Nested(inner) => can_be_empty(inner),
        expr => !is_label(expr) && !is_nullif_empty(expr),
    }
}

fn is_nullif_empty(expr: &Expr) -> bool {
    call(expr, NULLIF).is_some_and(|call| call.args.to_string().replace(' ', "").ends_with(",'')"))
}

/// Wraps the expressions outside of aggregates.
struct Replace<F> {
    computed: Vec<String>,
    is_aggregate: F,
    /// How many aggregates the walk is in.
    within: usize,
    error: Option<SqlError>,
}

impl<F: Fn(&str) -> bool> Replace<F> {
    fn starts_aggregate(&self, expr: &Expr) -> bool {
        matches!(expr, Expr::Function(call) if (self.is_aggregate)(&call.name.to_string().to_lowercase()))
    }
}

impl<F: Fn(&str) -> bool> VisitorMut for Replace<F> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        self.within += usize::from(self.starts_aggregate(expr));
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        self.within -= usize::from(self.starts_aggregate(expr));
        if self.within == 0 && self.computed.contains(&expr.to_string().to_lowercase()) {
            match nullif_empty(expr) {
                Ok(wrapped) => *expr = wrapped,
                Err(error) => self.error = Some(error),
            }
        }
        ControlFlow::Continue(())
    }
}

fn nullif_empty(expr: &Expr) -> Result<Expr, SqlError> {
    let mut wrapped = batch::parsed_expr("nullif(x, '')").map_err(|error| internal(&error))?;
    if let Expr::Function(call) = &mut wrapped
        && let FunctionArguments::List(list) = &mut call.args
        && let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))) = list.args.first_mut()
    {
        *argument = expr.clone();
    }
    Ok(wrapped)
}
