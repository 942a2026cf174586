//! Conditions of rules: SQL boolean expressions over a rollup's output, planned once and evaluated
//! on whole batches.

use super::complaint::{Complaint, listed, nearest};
use crate::sql::{cause, constant_error, counted, plan_expression};
use arrow::array::{Array, AsArray, BooleanArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, SchemaError};
use datafusion::logical_expr::{Expr, Operator, Volatility};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::prelude::SessionContext;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Condition {
    expression: Arc<dyn PhysicalExpr>,
    parsed: Expr,
}

impl Condition {
    /// Plans `sql` over the columns of `schema`.
    pub(super) fn compile(sql: &str, context: &SessionContext, schema: &DFSchema) -> Result<Self, Complaint> {
        if sql.trim().is_empty() {
            let remedy = format!("write a comparison over {}", columns(schema));
            return Err(Complaint::new("the expression is empty", remedy));
        }
        let parsed = context.parse_sql_expr(sql, schema).map_err(|error| explain(&error, schema))?;
        refuse_unrepeatable(&parsed)?;
        let expression =
            plan_expression(context, parsed.clone(), schema).map_err(|error| explain(&error, schema))?;
        let found = expression.data_type(schema.as_arrow()).map_err(|error| explain(&error, schema))?;
        if found != DataType::Boolean {
            let message = format!("the expression is not true or false but a value, type=`{found}`");
            return Err(Complaint::new(message, format!("compare it, for example `({sql}) > 90`")));
        }
        Ok(Self { expression, parsed })
    }

    /// Refuses a condition that more points of a window could make false again: it has to be made
    /// of comparisons of `growing` columns with constants, the column being the greater, joined by
    /// AND and OR.
    pub(super) fn only_grows(&self, growing: &[String]) -> Result<(), Complaint> {
        let Some(part) = first_that_may_shrink(&self.parsed, growing) else { return Ok(()) };
        let message = format!("`{part}` may be true in an open window and false when it closes");
        let remedy = match growing {
            [] => "the rollup has no count(), max() or sum() of its own; remove `early`".to_owned(),
            _ => format!(
                "compare {} with a constant, by > or >=; or remove `early`",
                listed(growing.iter().map(String::as_str))
            ),
        };
        Err(Complaint::new(message, remedy))
    }

    /// True, false or null for each row, and the first operation that failed: it gave null for its
    /// row.
    pub(super) fn evaluate(&self, rows: &RecordBatch) -> (BooleanArray, Option<String>) {
        let (truth, failed) = counted(|| self.evaluate_all(rows));
        match truth {
            Ok(truth) => (truth, failed.first),
            Err(error) => (BooleanArray::new_null(rows.num_rows()), Some(cause(&error))),
        }
    }

    fn evaluate_all(&self, rows: &RecordBatch) -> Result<BooleanArray, DataFusionError> {
        let truth = self.expression.evaluate(rows)?.into_array(rows.num_rows())?;
        match truth.as_boolean_opt() {
            Some(truth) => Ok(truth.clone()),
            None => Err(DataFusionError::Execution(format!("not a boolean, type=`{}`", truth.data_type()))),
        }
    }
}

/// The same window must give the same answer when it is replayed, and a row must be enough to give
/// it.
pub(super) fn refuse_unrepeatable(expression: &Expr) -> Result<(), Complaint> {
    let mut complaint = None;
    let walked = expression.apply(|part| {
        let found = match part {
            Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
                let message =
                    format!("`{}()` gives another answer when a window is replayed", call.func.name());
                Some(Complaint::new(
                    message,
                    "use only the rollup's columns; `window_start` is the window's time",
                ))
            }
            Expr::AggregateFunction(call) => {
                let message =
                    format!("`{}()` is an aggregate, and a condition sees one row", call.func.name());
                Some(Complaint::new(message, "aggregate in the rollup, and use the column that it puts out"))
            }
            Expr::WindowFunction(_) => {
                let message = "window functions look at other rows, and a condition sees one row";
                Some(Complaint::new(
                    message,
                    "use `for` for a condition that has to hold over several windows",
                ))
            }
            Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) | Expr::ScalarSubquery(_) => {
                Some(subquery())
            }
            Expr::Placeholder(_) | Expr::ScalarVariable(..) => {
                Some(Complaint::new("there are no parameters or variables", "write the value itself"))
            }
            _ => None,
        };
        if found.is_some() {
            complaint = found;
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    match (complaint, walked) {
        (Some(complaint), _) => Err(complaint),
        (None, Ok(_)) => Ok(()),
        (None, Err(error)) => Err(Complaint::new(error.strip_backtrace(), "simplify the expression")),
    }
}

fn first_that_may_shrink<'e>(expression: &'e Expr, growing: &[String]) -> Option<&'e Expr> {
    let Expr::BinaryExpr(binary) = expression else { return Some(expression) };
    let is_growing = |side: &Expr| matches!(side, Expr::Column(column) if growing.contains(&column.name));
    let is_constant = |side: &Expr| matches!(side, Expr::Literal(..));
    let fits = match binary.op {
        Operator::And | Operator::Or => {
            let of_sides = first_that_may_shrink(&binary.left, growing);
            return of_sides.or_else(|| first_that_may_shrink(&binary.right, growing));
        }
        Operator::Gt | Operator::GtEq => is_growing(&binary.left) && is_constant(&binary.right),
        Operator::Lt | Operator::LtEq => is_constant(&binary.left) && is_growing(&binary.right),
        _ => false,
    };
    (!fits).then_some(expression)
}

fn subquery() -> Complaint {
    Complaint::new("a condition cannot hold a subquery", "compute what it needs in the rollup's own SELECT")
}

/// An error of DataFusion's, in words for the author of the rule.
pub(super) fn explain(error: &DataFusionError, schema: &DFSchema) -> Complaint {
    let root = error.find_root();
    if let DataFusionError::SchemaError(schema_error, _) = root
        && let SchemaError::FieldNotFound { field, .. } = schema_error.as_ref()
    {
        let name = field.flat_name();
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let remedy = match nearest(&field.name, names) {
            Some(column) if column != field.name && column.eq_ignore_ascii_case(&field.name) => {
                format!("write \"{column}\", with double quotes")
            }
            Some(column) => format!("did you mean `{column}`? There are {}", columns(schema)),
            None => format!("there are {}; text is written in single quotes", columns(schema)),
        };
        return Complaint::new(format!("there is no column `{name}`"), remedy);
    }
    let message = match constant_error(error) {
        Some(mistake) => mistake.to_string(),
        None => cause(error),
    };
    if message.contains("ubquery") {
        return subquery();
    }
    Complaint::new(
        message,
        "write an SQL expression that is true or false, for example `avg > 90 AND points >= 10`",
    )
}

fn columns(schema: &DFSchema) -> String {
    format!("the columns {}", listed(schema.fields().iter().map(|field| field.name().as_str())))
}
