//! `tumble(time, size [, zone])`: the start of the tumbling window that a time falls into.
//!
//! An ordinary scalar function, so that a rollup's SELECT runs unchanged in batch over stored
//! points.

use std::sync::Arc;

use arrow::array::{Array, AsArray, TimestampNanosecondArray};
use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalUnit, TimeUnit, TimestampNanosecondType};
use datafusion::common::{ScalarValue, exec_err, plan_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use crate::window::Tumble;

/// The function as DataFusion knows it.
pub(super) fn tumble_udf() -> ScalarUDF {
    ScalarUDF::from(TumbleFunction::new())
}

pub(crate) const NAME: &str = "tumble";
pub(super) const TIME: DataType = DataType::Timestamp(TimeUnit::Nanosecond, None);
pub(super) const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

#[derive(Debug, PartialEq, Eq, Hash)]
struct TumbleFunction {
    signature: Signature,
}

impl TumbleFunction {
    fn new() -> Self {
        let forms = vec![
            TypeSignature::Exact(vec![TIME, INTERVAL]),
            TypeSignature::Exact(vec![TIME, INTERVAL, DataType::Utf8]),
        ];
        Self { signature: Signature::one_of(forms, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for TumbleFunction {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(TIME)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let windows = windows_of_literals(&scalars(&args.args[1..])?)?;
        match &args.args[0] {
            ColumnarValue::Array(times) => {
                let times = times.as_primitive::<TimestampNanosecondType>();
                let starts = windows.starts(times.values());
                let starts = TimestampNanosecondArray::new(starts.into(), times.nulls().cloned());
                Ok(ColumnarValue::Array(Arc::new(starts)))
            }
            ColumnarValue::Scalar(ScalarValue::TimestampNanosecond(time, _)) => {
                let start = time.map(|time| windows.start(time));
                Ok(ColumnarValue::Scalar(ScalarValue::TimestampNanosecond(start, None)))
            }
            ColumnarValue::Scalar(other) => exec_err!("tumble takes a time, not {other}"),
        }
    }
}

/// The arguments that describe windows, which must be constants.
pub(super) fn scalars(arguments: &[ColumnarValue]) -> Result<Vec<&ScalarValue>> {
    let literals = arguments.iter().map(|argument| match argument {
        ColumnarValue::Scalar(value) => Ok(value),
        ColumnarValue::Array(_) => plan_err!("what describes the windows must be constant"),
    });
    literals.collect()
}

/// The windows that the constant arguments after the time describe.
pub(crate) fn windows_of_literals(literals: &[&ScalarValue]) -> Result<Tumble> {
    let Some(ScalarValue::IntervalMonthDayNano(Some(interval))) = literals.first() else {
        return plan_err!("the second argument of tumble is not an interval, write INTERVAL '1 minute'");
    };
    let zone = match literals.get(1) {
        None => None,
        Some(value) => match value.try_as_str() {
            Some(Some(zone)) => Some(zone),
            _ => return plan_err!("the third argument of tumble must be a time zone's name"),
        },
    };
    let size = nanoseconds(*interval)?;
    Tumble::new(size, zone).map_err(|error| DataFusionError::Plan(error.to_string()))
}

pub(super) fn nanoseconds(interval: IntervalMonthDayNano) -> Result<i64> {
    if interval.months != 0 {
        return plan_err!("months and years differ in length, write a fixed one such as INTERVAL '30 days'");
    }
    i64::from(interval.days)
        .checked_mul(86_400_000_000_000)
        .and_then(|days| days.checked_add(interval.nanoseconds))
        .ok_or_else(|| DataFusionError::Plan("the window is too long".into()))
}
