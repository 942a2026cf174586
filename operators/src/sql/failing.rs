//! What could fail on some point, found when the file is loaded: a single point must not stop a rollup.
//!
//! Looked for in the optimized plan, where the types are known and the casts that DataFusion adds are visible.

use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion::common::DFSchemaRef;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, Expr as SqlExpr, Select, Spanned, visit_expressions,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::error::SqlError;

/// Refuses casts that not every value survives, and divisions of whole numbers by what may be zero.
pub(super) fn refuse_failing(plan: &LogicalPlan, select: &Select) -> Result<(), SqlError> {
    let mut found = None;
    let walked = plan.apply(|node| {
        let schema = node.inputs().first().map_or(node.schema(), |input| input.schema());
        for expr in node.expressions() {
            expr.apply(|part| {
                found = failing(part, schema, select)?;
                Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })?;
            if found.is_some() {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    match (found, walked) {
        (Some(error), _) => Err(error),
        (None, Ok(_)) => Ok(()),
        (None, Err(error)) => Err(SqlError::new(select.span(), error.strip_backtrace(), "")),
    }
}

fn failing(expr: &Expr, schema: &DFSchemaRef, select: &Select) -> PlanResult<Option<SqlError>> {
    match expr {
        Expr::Cast(cast) => {
            let from = cast.expr.get_type(schema)?;
            Ok((!always_casts(&from, cast.field.data_type())).then(|| cast_error(cast, &from, select)))
        }
        Expr::BinaryExpr(BinaryExpr { op: Operator::Divide | Operator::Modulo, right, .. }) => {
            let kind = right.get_type(schema)?;
            let can_be_zero = !kind.is_floating() && !is_never_zero(right);
            Ok(can_be_zero.then(|| division_error(select)))
        }
        _ => Ok(None),
    }
}

/// Whether every value of the one type is one of the other.
fn always_casts(from: &DataType, to: &DataType) -> bool {
    let wider = match (from.primitive_width(), to.primitive_width()) {
        (Some(from), Some(to)) => from < to,
        _ => false,
    };
    let from_whole = from.is_integer() || *from == DataType::Boolean;
    from == to
        || *from == DataType::Null
        || is_text(to)
        || (from_whole && to.is_floating())
        || (*from == DataType::Boolean && to.is_integer())
        || (from.is_floating() && to.is_floating())
        || (from.is_unsigned_integer() && to.is_integer() && wider)
        || (from.is_signed_integer() && to.is_signed_integer() && wider)
        || (from.is_temporal() && (to.is_temporal() || *to == DataType::Int64))
}

fn is_text(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_never_zero(divisor: &Expr) -> bool {
    match divisor {
        Expr::Literal(value, _) => value
            .cast_to(&DataType::Float64)
            .is_ok_and(|number| number != datafusion::common::ScalarValue::Float64(Some(0.0))),
        Expr::ScalarFunction(call) => call.func.name() == "nullif",
        Expr::Alias(alias) => is_never_zero(&alias.expr),
        Expr::Cast(cast) => is_never_zero(&cast.expr),
        _ => false,
    }
}

fn cast_error(cast: &Cast, from: &DataType, select: &Select) -> SqlError {
    let to = cast.field.data_type();
    let inner = match cast.expr.as_ref() {
        Expr::Column(column) => column.name.clone(),
        other => other.to_string().replace("points.", ""),
    };
    let problem = match is_text(from) && to.is_numeric() {
        true => format!("{inner} is text, and one that is not a number would stop the rollup"),
        false => format!("one value of {inner} that does not fit the type {to} would stop the rollup"),
    };
    let explicit = place_of(select, |expr| {
        matches!(expr, SqlExpr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, .. })
    });
    if let Some(place) = explicit {
        return SqlError::new(place, problem, "write TRY_CAST in place of CAST: it gives null then");
    }
    let place = place_of(select, |expr| expr.to_string() == inner).unwrap_or_else(|| select.span());
    SqlError::new(
        place,
        problem,
        format!("use it with text, as in {inner} = '5', or as TRY_CAST({inner} AS DOUBLE)"),
    )
}

fn division_error(select: &Select) -> SqlError {
    let mut place = select.span();
    let _ = visit_expressions(select, |expr| {
        let SqlExpr::BinaryOp { op: BinaryOperator::Divide | BinaryOperator::Modulo, right, .. } = expr
        else {
            return ControlFlow::Continue(());
        };
        if matches!(right.as_ref(), SqlExpr::Value(_))
            || right.to_string().to_lowercase().starts_with("nullif")
        {
            return ControlFlow::Continue(());
        }
        place = right.span();
        ControlFlow::Break(())
    });
    SqlError::new(
        place,
        "a division of whole numbers by zero would stop the rollup",
        "write / nullif(…, 0), which gives null, or divide a number with a point, as in 1.0 * count(*) / …",
    )
}

/// The first expression of the SELECT that is meant, in the order of the text.
pub(super) fn place_of(select: &Select, is_meant: impl Fn(&SqlExpr) -> bool) -> Option<Span> {
    let found = visit_expressions(select, |expr| match is_meant(expr) {
        true => ControlFlow::Break(expr.span()),
        false => ControlFlow::Continue(()),
    });
    match found {
        ControlFlow::Break(span) => Some(span),
        ControlFlow::Continue(()) => None,
    }
}
