//! Epochs of points for the tests of the fold and of what surrounds it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Float64Array, MapBuilder, RecordBatch, StringBuilder, StringViewArray,
    TimestampNanosecondArray,
};

use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::AccumulatorFactoryFunction;
use datafusion::logical_expr::{Accumulator, AggregateUDF, Volatility, create_udaf};

use crate::exchange::Partials;
use crate::partial::{aggregate, points_schema};
use crate::sql::{Rollup, compile};
use crate::watermark::{EpochFacts, PartitionFacts, WatermarkOptions};

pub(crate) const SECOND: i64 = 1_000_000_000;
pub(crate) const OPTIONS: WatermarkOptions =
    WatermarkOptions { max_out_of_orderness: 0, idle_timeout: 60 * SECOND, owner_timeout: 60 * SECOND };

/// Points of `cpu`, given as (host, seconds, value), with the label `host` alone.
pub(crate) fn points(given: &[(&str, i64, f64)]) -> RecordBatch {
    RecordBatch::try_new(
        points_schema(&["host".to_owned()]),
        vec![
            Arc::new(StringViewArray::from_iter_values(given.iter().map(|_| "cpu"))),
            Arc::new(TimestampNanosecondArray::from_iter_values(given.iter().map(|(_, at, _)| at * SECOND))),
            Arc::new(Float64Array::from_iter_values(given.iter().map(|(.., value)| *value))),
            Arc::new(StringViewArray::from_iter_values(given.iter().map(|(host, ..)| host))),
        ],
    )
    .unwrap()
}

/// The rollup of one SQL file.
pub(crate) fn rollup(sql: &str) -> Arc<Rollup> {
    let mut catalog = compile(&[("rollup.sql".to_owned(), sql.to_owned())]);
    assert_eq!(catalog.errors, []);
    catalog.rollups.remove(0)
}

/// The same points as they are stored, with a map of labels.
pub(crate) fn stored_points(given: &[(&str, i64, f64)]) -> RecordBatch {
    let mut labels = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    for (host, ..) in given {
        labels.keys().append_value("host");
        labels.values().append_value(host);
        labels.append(true).unwrap();
    }
    let points = points(given);
    let column = |name: &str| Arc::clone(points.column_by_name(name).unwrap());
    let columns = [("name", column("name")), ("time", column("time")), ("value", column("value"))];
    let labels: ArrayRef = Arc::new(labels.finish());
    RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().chain([("labels", labels)]).map(|(name, column)| (name, column, true)),
    )
    .unwrap()
}

/// The message of an epoch with these points, as it is read from the topic.
pub(crate) fn message(rollups: &[Arc<Rollup>], given: &[(&str, i64, f64)]) -> Partials {
    message_until(rollups, given, given.iter().map(|(_, at, _)| *at).max())
}

/// The same, when event time has come to `high` seconds: a heartbeat may be ahead of the points.
pub(crate) fn message_until(
    rollups: &[Arc<Rollup>],
    given: &[(&str, i64, f64)],
    high: Option<i64>,
) -> Partials {
    let facts = EpochFacts {
        wall: 0,
        uptime: None,
        topics: BTreeMap::from([("points".into(), 1)]),
        partitions: vec![PartitionFacts {
            topic: "points".into(),
            partition: 0,
            from: 0,
            to: given.len() as i64,
            high: high.map(|high| high * SECOND),
            low: given.iter().map(|(_, at, _)| at * SECOND).min(),
            at_end: false,
            silent: 0,
        }],
        owner: None,
    };
    let message = aggregate(rollups, &[points(given)], &facts, 1).messages.remove(0);
    Partials::decode(&message.encode().unwrap()).unwrap()
}

/// An aggregate for tests, the sum of its values. It does not take -1, does not merge sums beyond
/// 400 and gives none from 50 to 100; at 77 it panics.
pub(crate) fn picky() -> AggregateUDF {
    let accumulator: AccumulatorFactoryFunction = Arc::new(|_| Ok(Box::new(Picky(0.0))));
    let float = || Arc::new(DataType::Float64);
    create_udaf(
        "picky",
        vec![DataType::Float64],
        float(),
        Volatility::Immutable,
        accumulator,
        Arc::new(vec![DataType::Float64]),
    )
}

#[derive(Debug)]
struct Picky(f64);

impl Accumulator for Picky {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values[0].as_primitive::<Float64Type>().iter().flatten() {
            if value == -1.0 {
                return exec_err!("-1 is not taken");
            }
            self.0 += value;
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for sum in states[0].as_primitive::<Float64Type>().iter().flatten() {
            if sum > 400.0 {
                return exec_err!("sums beyond 400 do not merge");
            }
            self.0 += sum;
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::from(self.0)])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        assert!(self.0 % 77.0 != 0.0 || self.0 == 0.0, "77 is too much");
        if (50.0..).contains(&self.0) {
            return exec_err!("sums from 50 on are not given");
        }
        Ok(ScalarValue::from(self.0))
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }
}
