//! Sums of whole numbers that do not wrap around.
//!
//! DataFusion adds whole numbers in 64 bits, and goes on from the smallest when the largest is
//! passed. Here they are added as decimals, which have room for more than any rollup counts, and
//! cast back: a sum that does not fit is null.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchema, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Aggregate, Expr, ExprSchemable, LogicalPlan, Projection, Window, WindowFunctionDefinition, cast,
};
use datafusion::optimizer::AnalyzerRule;

/// All whole numbers of 64 bits.
const WHOLE: DataType = DataType::Decimal128(20, 0);
/// Of so many digits, 10 billion decimals can be added without more than 38.
const MOST_DIGITS: u8 = 28;

/// Comes after the types of arguments are known.
#[derive(Debug)]
pub(super) struct Sums;

impl AnalyzerRule for Sums {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(analyze).data()
    }

    fn name(&self) -> &str {
        "sums"
    }
}

fn analyze(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let schema = merge_schema(&plan.inputs());
    match &plan {
        LogicalPlan::Aggregate(aggregate) => {
            let given = aggregate.schema.fields().len() - aggregate.aggr_expr.len();
            let Some((exprs, types)) = widen(&aggregate.aggr_expr, &schema)? else {
                return Ok(Transformed::no(plan));
            };
            let (input, groups) = (Arc::clone(&aggregate.input), aggregate.group_expr.clone());
            let widened = LogicalPlan::Aggregate(Aggregate::try_new(input, groups, exprs)?);
            Ok(Transformed::yes(narrow(widened, given, &types)?))
        }
        LogicalPlan::Window(window) => {
            let given = window.input.schema().fields().len();
            let Some((exprs, types)) = widen(&window.window_expr, &schema)? else {
                return Ok(Transformed::no(plan));
            };
            let widened = LogicalPlan::Window(Window::try_new(exprs, Arc::clone(&window.input))?);
            Ok(Transformed::yes(narrow(widened, given, &types)?))
        }
        _ => Ok(Transformed::no(plan)),
    }
}

/// See [`widen`].
type Widened = (Vec<Expr>, Vec<Option<DataType>>);

/// The functions with sums of decimals in place of sums of whole numbers, and the type of each that
/// was replaced; none when there is no such sum.
fn widen(exprs: &[Expr], schema: &DFSchema) -> Result<Option<Widened>> {
    let (mut widened, mut types) = (Vec::new(), Vec::new());
    for expr in exprs {
        let mut whole = None;
        let expr = expr.clone().transform_up(|part| match part {
            Expr::AggregateFunction(AggregateFunction { func, mut params }) => {
                whole = widen_argument(func.name(), &mut params.args, schema)?;
                Ok(Transformed::yes(Expr::AggregateFunction(AggregateFunction { func, params })))
            }
            Expr::WindowFunction(mut window) => {
                if let WindowFunctionDefinition::AggregateUDF(function) = &window.fun {
                    whole = widen_argument(function.name(), &mut window.params.args, schema)?;
                }
                Ok(Transformed::yes(Expr::WindowFunction(window)))
            }
            other => Ok(Transformed::no(other)),
        });
        widened.push(expr.data()?);
        types.push(whole);
    }
    Ok(Some((widened, types)).filter(|(_, types)| types.iter().any(Option::is_some)))
}

/// The type of the sum, when it is one of whole numbers; its argument is a decimal from then on.
fn widen_argument(function: &str, args: &mut [Expr], schema: &DFSchema) -> Result<Option<DataType>> {
    if function != "sum" && function != "avg" {
        return Ok(None);
    }
    let [argument] = args else { return Ok(None) };
    match argument.get_type(schema)? {
        DataType::Decimal128(digits, _) | DataType::Decimal256(digits, _) if digits > MOST_DIGITS => {
            plan_err!(
                "{function} of decimals with {digits} digits may overflow, cast them to DECIMAL({MOST_DIGITS}, …) or DOUBLE"
            )
        }
        kind if function == "sum" && kind.is_integer() => {
            *argument = cast(argument.clone(), WHOLE);
            Ok(Some(if kind.is_unsigned_integer() { DataType::UInt64 } else { DataType::Int64 }))
        }
        _ => Ok(None),
    }
}

/// The columns of `plan` under their names, with those from the number `given` on that were widened
/// cast back.
fn narrow(plan: LogicalPlan, given: usize, types: &[Option<DataType>]) -> Result<LogicalPlan> {
    let schema = Arc::clone(plan.schema());
    let columns = schema.iter().enumerate().map(|(index, (relation, field))| {
        let column = Expr::Column(Column::from((relation, field)));
        match index.checked_sub(given).and_then(|index| types[index].clone()) {
            Some(whole) => cast(column, whole).alias_qualified(relation.cloned(), field.name()),
            None => column,
        }
    });
    Ok(LogicalPlan::Projection(Projection::try_new(columns.collect(), Arc::new(plan))?))
}
