//! Hopping windows: `hop(time, size, slide)`, windows of `size`, one of which starts every `slide`.
//!
//! A stream keeps states by pane, the piece of time between two starts, and a window is its panes
//! merged: so `hop` gives the start of a point's pane. In batch, `hop_starts` lists the starts of
//! all windows that hold a point.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, ListArray, TimestampNanosecondArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, TimestampNanosecondType};
use datafusion::common::{ScalarValue, plan_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::tumble::{INTERVAL, TIME, nanoseconds, scalars};
use crate::window::Windows;

pub(crate) const NAME: &str = "hop";
pub(super) const STARTS: &str = "hop_starts";

/// `hop`, as it runs in a stream.
pub(super) fn hop_udf() -> ScalarUDF {
    ScalarUDF::from(HopFunction { signature: signature() })
}

/// `hop_starts`, its counterpart in batch.
pub(super) fn hop_starts_udf() -> ScalarUDF {
    ScalarUDF::from(HopStartsFunction { signature: signature() })
}

fn signature() -> Signature {
    Signature::exact(vec![TIME, INTERVAL, INTERVAL], Volatility::Immutable)
}

/// The windows that the constant arguments after the time describe.
pub(crate) fn windows_of_literals(literals: &[&ScalarValue]) -> Result<Windows> {
    let mut lengths = Vec::new();
    for literal in literals {
        let ScalarValue::IntervalMonthDayNano(Some(interval)) = literal else {
            return plan_err!("hop takes two intervals after the time, write {EXAMPLE}");
        };
        lengths.push(nanoseconds(*interval)?);
    }
    let [size, slide] = lengths[..] else {
        return plan_err!("hop takes two intervals after the time, write {EXAMPLE}");
    };
    Windows::hopping(size, slide).map_err(|error| DataFusionError::Plan(error.to_string()))
}

pub(super) const EXAMPLE: &str = "hop(time, INTERVAL '10 minutes', INTERVAL '1 minute')";

#[derive(Debug, PartialEq, Eq, Hash)]
struct HopFunction {
    signature: Signature,
}

impl ScalarUDFImpl for HopFunction {
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
        let times = args.args[0].to_array(args.number_rows)?;
        let times = times.as_primitive::<TimestampNanosecondType>();
        let panes: TimestampNanosecondArray = times.unary(|time| windows.start(time));
        Ok(ColumnarValue::Array(Arc::new(panes)))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct HopStartsFunction {
    signature: Signature,
}

impl HopStartsFunction {
    fn item() -> FieldRef {
        Arc::new(Field::new_list_field(TIME, true))
    }
}

impl ScalarUDFImpl for HopStartsFunction {
    fn name(&self) -> &str {
        STARTS
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Self::item()))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let windows = windows_of_literals(&scalars(&args.args[1..])?)?;
        let times = args.args[0].to_array(args.number_rows)?;
        let times = times.as_primitive::<TimestampNanosecondType>();
        let mut starts = Vec::new();
        let mut lengths = Vec::with_capacity(times.len());
        for time in times {
            let before = starts.len();
            // A point without a time is in no window.
            starts.extend(time.into_iter().flat_map(|time| windows.holding(windows.start(time))));
            lengths.push(starts.len() - before);
        }
        let starts: ArrayRef = Arc::new(TimestampNanosecondArray::from(starts));
        let lists = ListArray::try_new(Self::item(), OffsetBuffer::from_lengths(lengths), starts, None)?;
        Ok(ColumnarValue::Array(Arc::new(lists)))
    }
}
