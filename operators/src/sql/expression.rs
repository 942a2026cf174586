//! Expressions that are planned by themselves, over the rows of a rule, as those of a whole query
//! are.

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::error::Result;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::prelude::SessionContext;

use super::constants::analyze_expr;
use super::total::total_root;

/// Plans `expr` over rows with the columns of `schema`; what it fails on is counted.
///
/// # Errors
/// When its types do not fit, or an operation over constants cannot be computed.
pub(crate) fn plan_expression(
    session: &SessionContext,
    expr: Expr,
    schema: &DFSchema,
) -> Result<Arc<dyn PhysicalExpr>> {
    let context = SimplifyContext::builder().with_schema(Arc::new(schema.clone())).build();
    let simplifier = ExprSimplifier::new(context);
    let coerced = simplifier.coerce(expr, schema)?;
    let simplified = simplifier.simplify(analyze_expr(coerced, schema)?)?;
    total_root(&session.create_physical_expr(simplified, schema)?, schema.as_arrow())
}
