//! Total operations: an operation that fails on a row gives null for that row, and a float that is
//! not finite is null.
//!
//! Arrow and DataFusion evaluate an operation over a whole batch, and one row that it does not take
//! fails them all. Here each operation of a plan is wrapped by itself: a function call, arithmetic,
//! a cast. Since it is the innermost operation that gives null, the value of an expression does not
//! depend on how an optimizer splits, moves or shares its parts, so a stream and a batch query
//! agree. Comparisons and logic are not wrapped: they cannot fail, and optimizers look into them.
//!
//! Where nothing fails, a wrapped operation costs one more call a batch and, if it gives floats, a
//! look at each of them. Rows that fail are found by halving the batch.

mod count;
mod plan;

pub(crate) use count::{Failed, counted};
pub(in crate::sql) use plan::TotalOperations;
pub(crate) use plan::{total_plan, total_root};

use std::fmt;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch, new_empty_array,
    new_null_array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::concat;
use arrow::datatypes::{DataType, FieldRef, Float16Type, Float32Type, Float64Type, Schema};
use arrow::error::ArrowError;
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::physical_expr::expressions::{
    BinaryExpr, CastExpr, Column, LikeExpr, Literal, NegativeExpr, TryCastExpr,
};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_expr_common::physical_expr::fmt_sql;

use super::cause::{cause, panicked};
use super::constants::is_comparison;
use super::{hop, tumble};

/// Functions that fail on no row. Access to a field is looked for by optimizers, so it must stay
/// visible.
const NEVER_FAIL: [&str; 4] = [tumble::NAME, hop::NAME, hop::STARTS, "get_field"];

/// The expression with every operation in it total. `schema` is that of the rows.
pub(crate) fn total(expr: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    if expr.downcast_ref::<Total>().is_some() {
        return Ok(Arc::clone(expr));
    }
    if let Some(literal) = expr.downcast_ref::<Literal>() {
        let value = finite_scalar(literal.value().clone());
        return Ok(if value == *literal.value() { Arc::clone(expr) } else { Arc::new(Literal::new(value)) });
    }
    let children: Vec<_> =
        expr.children().into_iter().map(|child| total(child, schema)).collect::<Result<_>>()?;
    let same = children.iter().zip(expr.children()).all(|(new, old)| Arc::ptr_eq(new, old));
    let expr = if same { Arc::clone(expr) } else { Arc::clone(expr).with_new_children(children)? };
    let expr = fails_on_overflow(expr, schema)?;
    Ok(if can_fail(expr.as_ref()) { Arc::new(Total { inner: expr }) } else { expr })
}

/// The value of an operation over constants, with an error where it fails.
pub(super) fn checked(expr: Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<ColumnarValue> {
    let expr = fails_on_overflow(expr, rows.schema_ref())?;
    Ok(finite(attempt(expr.as_ref(), rows)?))
}

/// The columns of `rows` with null in place of floats that are not finite.
pub fn finite_rows(rows: &RecordBatch) -> RecordBatch {
    let columns = rows.columns().iter().map(finite_array).collect();
    RecordBatch::try_new(rows.schema(), columns).unwrap_or_else(|_| rows.clone())
}

fn can_fail(expr: &dyn PhysicalExpr) -> bool {
    if let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>() {
        return !NEVER_FAIL.contains(&call.fun().name());
    }
    if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        return !is_comparison(*binary.op());
    }
    expr.downcast_ref::<CastExpr>().is_some()
        || expr.downcast_ref::<TryCastExpr>().is_some()
        || expr.downcast_ref::<NegativeExpr>().is_some()
        || expr.downcast_ref::<LikeExpr>().is_some()
}

/// Arithmetic of whole numbers that fails where DataFusion's would wrap around to another number.
fn fails_on_overflow(expr: Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    if let Some(binary) = expr.downcast_ref::<BinaryExpr>()
        && matches!(binary.op(), Operator::Plus | Operator::Minus | Operator::Multiply)
    {
        let checked = BinaryExpr::new(Arc::clone(binary.left()), *binary.op(), Arc::clone(binary.right()));
        return Ok(Arc::new(checked.with_fail_on_overflow(true)));
    }
    if let Some(negative) = expr.downcast_ref::<NegativeExpr>()
        && negative.data_type(schema)?.is_signed_integer()
    {
        let zero = Arc::new(Literal::new(ScalarValue::new_zero(&negative.data_type(schema)?)?));
        let checked = BinaryExpr::new(zero, Operator::Minus, Arc::clone(negative.arg()));
        return Ok(Arc::new(checked.with_fail_on_overflow(true)));
    }
    Ok(expr)
}

/// An operation that gives null where `inner` fails or gives a float that is not finite. It reads
/// as `inner` does.
#[derive(Debug, Clone)]
struct Total {
    inner: Arc<dyn PhysicalExpr>,
}

impl Total {
    /// The values of a batch on which the operation has failed as a whole.
    fn by_row(&self, rows: &RecordBatch, error: &DataFusionError) -> Result<ColumnarValue> {
        if lacks_columns(self.inner.as_ref(), rows) {
            return datafusion::common::exec_err!("{}", error.strip_backtrace());
        }
        let kind = self.inner.data_type(rows.schema_ref())?;
        if rows.num_rows() == 0 {
            return Ok(ColumnarValue::Array(new_empty_array(&kind)));
        }
        if let Some(values) = self.by_safe_cast(rows, error)? {
            return Ok(ColumnarValue::Array(values));
        }
        let mut parts = Vec::new();
        self.halve(rows, &kind, error, &mut parts)?;
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        Ok(ColumnarValue::Array(concat(&parts)?))
    }

    /// Casts know themselves which rows fail.
    fn by_safe_cast(&self, rows: &RecordBatch, error: &DataFusionError) -> Result<Option<ArrayRef>> {
        let Some(cast) = self.inner.downcast_ref::<CastExpr>() else { return Ok(None) };
        let safe = TryCastExpr::new(Arc::clone(cast.expr()), cast.cast_type().clone());
        let Ok(values) = attempt(&safe, rows) else { return Ok(None) };
        let values = values.into_array(rows.num_rows())?;
        let given = count::uncounted(|| attempt(cast.expr().as_ref(), rows))?.into_array(rows.num_rows())?;
        let failed = values.logical_null_count().saturating_sub(given.logical_null_count());
        count::add(failed, || self.failure(error));
        Ok(Some(values))
    }

    fn halve(
        &self,
        rows: &RecordBatch,
        kind: &DataType,
        error: &DataFusionError,
        parts: &mut Vec<ArrayRef>,
    ) -> Result<()> {
        let count = rows.num_rows();
        if count == 1 {
            count::add(usize::from(!is_division_by_zero(error)), || self.failure(error));
            parts.push(new_null_array(kind, 1));
            return Ok(());
        }
        for half in [rows.slice(0, count / 2), rows.slice(count / 2, count - count / 2)] {
            match attempt(self.inner.as_ref(), &half) {
                Ok(values) => parts.push(values.into_array(half.num_rows())?),
                Err(error) => self.halve(&half, kind, &error, parts)?,
            }
        }
        Ok(())
    }

    /// What failed and why, for people.
    fn failure(&self, error: &DataFusionError) -> String {
        const LONGEST: usize = 120;
        let mut operation = fmt_sql(self.inner.as_ref()).to_string();
        if operation.chars().count() > LONGEST {
            operation = operation.chars().take(LONGEST).chain("…".chars()).collect();
        }
        format!("{}: {}", operation.replace("points.", ""), cause(error))
    }
}

/// Whether the rows are not those that the expression is for. Optimizers evaluate expressions over
/// no columns at all, to learn whether these are constant, and must learn that they are not.
fn lacks_columns(expr: &dyn PhysicalExpr, rows: &RecordBatch) -> bool {
    expr.downcast_ref::<Column>().is_some_and(|column| column.index() >= rows.num_columns())
        || expr.children().into_iter().any(|child| lacks_columns(child.as_ref(), rows))
}

/// Whole numbers are divided by zero as floats are: it gives null, and is no failure.
fn is_division_by_zero(error: &DataFusionError) -> bool {
    match error.find_root() {
        DataFusionError::ArrowError(error, _) => matches!(error.as_ref(), ArrowError::DivideByZero),
        _ => false,
    }
}

/// Evaluates the expression. A panic in it is an error, and what it has counted does not count when
/// it fails.
fn attempt(expr: &dyn PhysicalExpr, rows: &RecordBatch) -> Result<ColumnarValue> {
    count::unless_failed(|| {
        catch_unwind(AssertUnwindSafe(|| expr.evaluate(rows))).unwrap_or_else(|panic| Err(panicked(&*panic)))
    })
}

impl PhysicalExpr for Total {
    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        Ok(Arc::new(self.inner.return_field(schema)?.as_ref().clone().with_nullable(true)))
    }

    fn evaluate(&self, rows: &RecordBatch) -> Result<ColumnarValue> {
        let values = match attempt(self.inner.as_ref(), rows) {
            Ok(values) => values,
            Err(error) => self.by_row(rows, &error)?,
        };
        Ok(finite(values))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(Arc::new(Self { inner: children.swap_remove(0) }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PartialEq for Total {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Eq for Total {}

impl Hash for Total {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

fn finite(values: ColumnarValue) -> ColumnarValue {
    match values {
        ColumnarValue::Array(values) => ColumnarValue::Array(finite_array(&values)),
        ColumnarValue::Scalar(value) => ColumnarValue::Scalar(finite_scalar(value)),
    }
}

pub(super) fn finite_scalar(value: ScalarValue) -> ScalarValue {
    match value {
        ScalarValue::Float64(Some(number)) if !number.is_finite() => ScalarValue::Float64(None),
        ScalarValue::Float32(Some(number)) if !number.is_finite() => ScalarValue::Float32(None),
        ScalarValue::Float16(Some(number)) if !number.is_finite() => ScalarValue::Float16(None),
        other => other,
    }
}

fn finite_array(values: &ArrayRef) -> ArrayRef {
    match values.data_type() {
        DataType::Float64 => finite_floats(values, values.as_primitive::<Float64Type>(), f64::is_finite),
        DataType::Float32 => finite_floats(values, values.as_primitive::<Float32Type>(), f32::is_finite),
        DataType::Float16 => finite_floats(values, values.as_primitive::<Float16Type>(), |number| {
            f32::from(number).is_finite()
        }),
        _ => Arc::clone(values),
    }
}

fn finite_floats<T: ArrowPrimitiveType>(
    array: &ArrayRef,
    floats: &PrimitiveArray<T>,
    is_finite: impl Fn(T::Native) -> bool,
) -> ArrayRef {
    let values = floats.values();
    // Without an early end, so that the compiler makes vector instructions of it.
    if values.iter().fold(true, |all, number| all & is_finite(*number)) {
        return Arc::clone(array);
    }
    let finite = BooleanBuffer::collect_bool(values.len(), |row| is_finite(values[row]));
    let nulls = NullBuffer::union(floats.nulls(), Some(&NullBuffer::new(finite)));
    Arc::new(PrimitiveArray::<T>::new(values.clone(), nulls))
}

#[cfg(test)]
#[path = "total/tests.rs"]
mod tests;
