//! Epochs of points for the tests of the fold and of what surrounds it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Float64Array, RecordBatch, StringViewArray, TimestampNanosecondArray};

use crate::exchange::Partials;
use crate::partial::{aggregate, points_schema};
use crate::sql::Rollup;
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
