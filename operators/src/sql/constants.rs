//! Prepares the operations of a query before it is optimized: constants are computed, and
//! operations that can fail become nullable.
//!
//! DataFusion would find out in the middle of an optimizer rule that a constant cannot be computed,
//! and report no more than the rule's name. It would also take an operation over columns that are
//! never null for one that is never null, and leave out what should take the place of a null:
//! `coalesce(count(*) / 0, 0)`.

use std::fmt;
use std::sync::{Arc, LazyLock};

use arrow::array::{
    ArrayRef, Float64Array, RecordBatch, RecordBatchOptions, StringArray, TimestampNanosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ScalarValue, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, TryCast, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_expr::create_physical_expr;

use super::cause::cause;
use super::total;

/// The last rule of an analyzer.
#[derive(Debug)]
pub(super) struct Constants;

impl AnalyzerRule for Constants {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(analyze).data()
    }

    fn name(&self) -> &str {
        "constants"
    }
}

/// An operation over constants that cannot be computed, and so is a mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConstantError {
    /// None of a cast, which the cause tells.
    operation: Option<String>,
    /// The function, when it is a call.
    pub(crate) function: Option<String>,
    pub(crate) constants: Vec<String>,
    cause: String,
}

impl fmt::Display for ConstantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.operation {
            Some(operation) => write!(f, "{operation} cannot be computed: {}", self.cause),
            None => f.write_str(&self.cause),
        }
    }
}

impl std::error::Error for ConstantError {}

fn analyze(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(scan) = &plan {
        schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
    }
    let names = NamePreserver::new(&plan);
    let analyzed = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let analyzed = expr.transform_up(|part| analyze_part(part, &schema))?;
        Ok(analyzed.update_data(|expr| name.restore(expr)))
    })?;
    match analyzed.transformed {
        true => analyzed.map_data(LogicalPlan::recompute_schema),
        false => Ok(analyzed),
    }
}

/// As the rule does it, of one expression over the columns of `schema`.
pub(super) fn analyze_expr(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    expr.transform_up(|part| analyze_part(part, schema)).data()
}

fn analyze_part(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    if let Expr::Literal(value, metadata) = expr {
        let finite = total::finite_scalar(value);
        return Ok(Transformed::no(Expr::Literal(finite, metadata)));
    }
    if !is_operation(&expr) {
        return Ok(Transformed::no(expr));
    }
    refuse_long_texts(&expr)?;
    if let Some(constants) = constants_of(&expr)? {
        let value = compute(&expr).map_err(|error| constant_error(&expr, &constants, &error))?;
        return Ok(Transformed::yes(Expr::Literal(value, None)));
    }
    if let Some((constants, error)) = fails_always(&expr, schema)? {
        return Err(constant_error(&expr, &constants, &error));
    }
    if expr.nullable(schema).unwrap_or(true) {
        return Ok(Transformed::no(expr));
    }
    // A cast to the same type is left out of a physical plan.
    let same = expr.get_type(schema)?;
    Ok(Transformed::yes(Expr::TryCast(TryCast::new(Box::new(expr), same))))
}

/// Functions that make a text of the length of their second argument, or that many times as long.
const LENGTHENING: [&str; 3] = ["lpad", "repeat", "rpad"];
const LONGEST: i64 = 65_536;

/// One row could take all memory.
fn refuse_long_texts(expr: &Expr) -> Result<()> {
    let Expr::ScalarFunction(call) = expr else { return Ok(()) };
    if !LENGTHENING.contains(&call.func.name()) {
        return Ok(());
    }
    let length = match call.args.get(1) {
        Some(Expr::Literal(value, _)) => value.cast_to(&DataType::Int64).ok(),
        _ => None,
    };
    match length {
        Some(ScalarValue::Int64(Some(length))) if length <= LONGEST => Ok(()),
        _ => plan_err!("{} takes a constant of at most {LONGEST} as its second argument", call.func.name()),
    }
}

/// Whether it is computed from its parts, and is no comparison or logic.
fn is_operation(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryExpr(BinaryExpr { op, .. }) => !is_comparison(*op),
        Expr::ScalarFunction(call) => call.func.signature().volatility == Volatility::Immutable,
        Expr::Cast(_) | Expr::TryCast(_) | Expr::Negative(_) | Expr::Like(_) | Expr::SimilarTo(_) => true,
        _ => false,
    }
}

/// Comparisons and logic do not fail.
pub(super) fn is_comparison(op: Operator) -> bool {
    matches!(
        op,
        Operator::And
            | Operator::Or
            | Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    )
}

/// What an operation is computed from, when that is constants alone.
fn constants_of(expr: &Expr) -> Result<Option<Vec<ScalarValue>>> {
    let mut constants = Vec::new();
    let mut others = false;
    expr.apply_children(|part| {
        match part {
            Expr::Literal(value, _) => constants.push(value.clone()),
            _ => others = true,
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(Some(constants).filter(|constants| !others && !constants.is_empty()))
}

/// One row without columns.
static ROW: LazyLock<RecordBatch> = LazyLock::new(|| {
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)
        .expect("a batch without columns has any number of rows")
});

/// The constants of an operation with which it fails whatever else it is given, and how it fails: a
/// unit of time that there is not, a pattern that is none. Tried on made-up values; types without
/// such values are not checked.
fn fails_always(expr: &Expr, schema: &DFSchema) -> Result<Option<(Vec<ScalarValue>, DataFusionError)>> {
    let (mut constants, mut samples) = (Vec::new(), Vec::new());
    let mut known = true;
    expr.apply_children(|part| {
        match part {
            Expr::Literal(value, _) => constants.push(value.clone()),
            part => match part.get_type(schema).ok().and_then(|kind| sample(&kind)) {
                Some(values) => samples.push(values),
                None => known = false,
            },
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    // Texts are read by a format that made-up ones do not have: to_date(labels['day'], '%d.%m.%Y').
    if matches!(expr, Expr::ScalarFunction(call) if call.func.name().starts_with("to_") && call.func.name() != "to_char")
    {
        return Ok(None);
    }
    // What a cast fails on always is its type, such as one of a time zone.
    let is_cast = matches!(expr, Expr::Cast(_));
    if !known || samples.is_empty() || constants.is_empty() && !is_cast {
        return Ok(None);
    }
    let columns =
        samples.into_iter().enumerate().map(|(number, values)| (format!("c{number}"), values, true));
    let rows = RecordBatch::try_from_iter_with_nullable(columns)?;
    let mut number = 0;
    let over_samples = expr.clone().map_children(|part| {
        if matches!(part, Expr::Literal(..)) {
            return Ok(Transformed::no(part));
        }
        number += 1;
        Ok(Transformed::yes(Expr::Column(Column::from_name(format!("c{}", number - 1)))))
    })?;
    let sampled = DFSchema::try_from(rows.schema_ref().as_ref().clone())?;
    let context = PhysicalPlanningContext::default();
    let planned = create_physical_expr(&over_samples.data, &sampled, &ExecutionProps::new(), &context);
    let Ok(planned) = planned else { return Ok(None) };
    let mut failure = None;
    for row in 0..rows.num_rows() {
        match total::checked(Arc::clone(&planned), &rows.slice(row, 1)) {
            Ok(_) => return Ok(None),
            // A function that is never run, as it becomes another expression before.
            Err(error) if error.to_string().contains("should have been simplified") => return Ok(None),
            Err(error) => failure = Some(error),
        }
    }
    Ok(failure.map(|error| (constants, error)))
}

/// Values of a type that operations commonly take, in the same number for each type.
fn sample(kind: &DataType) -> Option<ArrayRef> {
    const TEXTS: [&str; 9] =
        ["a", "1", "", "2024-01-31T10:20:30Z", "2024-01-31", "10:20:30", "true", "1 day", "00ff"];
    const NUMBERS: [f64; 9] = [1.0, 0.0, 2.5, 100.0, 0.5, 7.0, 1_000_000.0, -3.0, 12.0];
    let texts: ArrayRef = Arc::new(StringArray::from(TEXTS.to_vec()));
    let numbers: ArrayRef = Arc::new(Float64Array::from(NUMBERS.to_vec()));
    let times: ArrayRef = Arc::new(TimestampNanosecondArray::from_iter_values(
        (1..=9).map(|hour| hour * 7_201 * 1_000_000_000),
    ));
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => cast(&texts, kind).ok(),
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => cast(&times, kind).ok(),
        kind if kind.is_numeric() => cast(&numbers, kind).ok(),
        DataType::Boolean => cast(&numbers, kind).ok(),
        _ => None,
    }
}

fn compute(expr: &Expr) -> Result<ScalarValue> {
    let schema = DFSchema::empty();
    let context = PhysicalPlanningContext::default();
    let planned = create_physical_expr(expr, &schema, &ExecutionProps::new(), &context)?;
    match total::checked(planned, &ROW)? {
        ColumnarValue::Scalar(value) => Ok(value),
        ColumnarValue::Array(values) => ScalarValue::try_from_array(&values, 0),
    }
}

fn constant_error(expr: &Expr, constants: &[ScalarValue], error: &DataFusionError) -> DataFusionError {
    let is_text = |value: &ScalarValue| value.data_type().is_string();
    let quoted = |value: &ScalarValue| match is_text(value) {
        true => format!("'{value}'"),
        false => value.to_string(),
    };
    let quoted: Vec<String> = constants.iter().map(quoted).collect();
    let function = match expr {
        Expr::ScalarFunction(call) => Some(call.func.name().to_owned()),
        _ => None,
    };
    let operation = match expr {
        Expr::BinaryExpr(BinaryExpr { op, .. }) => Some(quoted.join(&format!(" {op} "))),
        _ => function.as_ref().map(|function| format!("{function}({})", quoted.join(", "))),
    };
    let constants = constants.iter().map(ToString::to_string).collect();
    DataFusionError::External(Box::new(ConstantError { operation, function, constants, cause: cause(error) }))
}

#[cfg(test)]
mod tests {
    use crate::sql::compile;

    #[test]
    fn what_may_succeed_is_no_mistake() {
        for field in [
            "count(CAST(labels['a'] AS DOUBLE))",
            "count(CAST(labels['a'] AS DATE))",
            "count(CAST(labels['a'] AS TIME))",
            "count(CAST(labels['a'] AS TIMESTAMP))",
            "count(CAST(labels['a'] AS INTERVAL))",
            "count(CAST(labels['a'] AS BOOLEAN))",
            "count(CAST(value AS DECIMAL(3, 1)))",
            "count(to_timestamp(labels['a'], '%d.%m.%Y %H'))",
            "count(to_date(labels['a'], '%d/%m/%Y'))",
            "count(decode(labels['a'], 'hex'))",
            "count(decode(labels['a'], 'base64'))",
            "count(lpad(labels['a'], 10, '0'))",
            "count(substr(labels['a'], 2, 3))",
            "count(split_part(labels['a'], '.', -1))",
            "count(regexp_replace(labels['a'], '[0-9]+$', 'N'))",
            "count(date_trunc('hour', time))",
            "count(date_part('dow', time))",
            "count(to_char(time, '%H'))",
            "count(100 / CAST(value AS BIGINT))",
            "count(CAST(value AS BIGINT) % 7)",
            "count(time - INTERVAL '1 month')",
            "count(make_date(2024, CAST(value AS INT), 1))",
            "count(power(10, CAST(value AS BIGINT)))",
            "count(chr(CAST(value AS BIGINT)))",
            "count(log(2, value))",
            "count(round(value, 2))",
        ] {
            let sql = format!(
                "CREATE MATERIALIZED VIEW r AS SELECT tumble(time, INTERVAL '1 minute') AS w, {field} AS n FROM points GROUP BY 1"
            );
            assert_eq!(compile(&[("r.sql".to_owned(), sql)]).errors, [], "{field}");
        }
    }
}
