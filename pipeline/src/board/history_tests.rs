use std::sync::Arc;

use arrow::array::{Float64Array, StringViewArray, TimestampNanosecondArray};
use operators::exchange::Partials;
use operators::fold::Fold;
use operators::partial::{aggregate, points_schema};
use operators::sql::compile;
use operators::watermark::{PartitionFacts, WatermarkOptions};

use super::*;

const SECOND: i64 = 1_000_000_000;
const SQL: &str = "CREATE MATERIALIZED VIEW cpu WITH (allowed_lateness = '1 minute') AS
    SELECT tumble(time, INTERVAL '10 seconds') AS w, count(*) AS n FROM points GROUP BY 1";

/// A fold and its history, one message an epoch.
struct Bench {
    rollups: Vec<Arc<Rollup>>,
    fold: Fold,
    history: History,
    offset: i64,
}

impl Bench {
    fn new() -> Self {
        let catalog = compile(&[("cpu.sql".into(), SQL.into())]);
        assert_eq!(catalog.errors, []);
        let fold = Self::fold(&catalog.rollups);
        Self { rollups: catalog.rollups, fold, history: History::default(), offset: 0 }
    }

    fn fold(rollups: &[Arc<Rollup>]) -> Fold {
        let options = WatermarkOptions {
            max_out_of_orderness: 0,
            idle_timeout: 60 * SECOND,
            owner_timeout: 60 * SECOND,
        };
        Fold::new(rollups, options)
    }

    /// Points at these seconds, in a source partition of two; the other one only keeps up with
    /// `other`.
    fn take(&mut self, partition: i32, seconds: &[i64], other: i64) {
        let times: Vec<i64> = seconds.iter().map(|time| time * SECOND).collect();
        let points = RecordBatch::try_new(
            points_schema(&[]),
            vec![
                Arc::new(StringViewArray::from_iter_values(seconds.iter().map(|_| "cpu"))),
                Arc::new(TimestampNanosecondArray::from_iter_values(times.iter().copied())),
                Arc::new(Float64Array::from_iter_values(seconds.iter().map(|_| 1.0))),
            ],
        );
        let facts = |partition, low, high| PartitionFacts {
            topic: "points".into(),
            partition,
            from: self.offset,
            to: self.offset + 1,
            high,
            low,
            at_end: false,
            silent: 0,
        };
        let own = facts(partition, times.iter().min().copied(), times.iter().max().copied());
        let kept_up = facts(1 - partition, Some(other * SECOND), Some(other * SECOND));
        let facts = EpochFacts {
            wall: self.offset * SECOND,
            uptime: None,
            topics: BTreeMap::from([("points".into(), 2)]),
            partitions: vec![own, kept_up],
            owner: None,
        };
        let mut messages = aggregate(&self.rollups, &[points.expect("points")], &facts, 1).messages;
        self.fold_in(&messages.remove(0));
        self.offset += 1;
    }

    fn fold_in(&mut self, message: &Partials) {
        let before = self.fold.watermark();
        let applied = self.fold.apply(message);
        assert!(applied.failures.is_empty(), "{:?}", applied.failures);
        let after = self.fold.watermark();
        let facts = &message.facts;
        let applied = &applied;
        self.history.note(&Folded { partition: 0, offset: self.offset, facts, before, after, applied });
    }

    fn window(&self, start: i64) -> WindowHistory {
        let mut windows = self.history.window("cpu", Time(start * SECOND));
        assert_eq!(windows.len(), 1, "of the window that starts at {start} s");
        windows.remove(0)
    }
}

#[test]
fn a_window_is_closed_corrected_and_missed_by_what_came_too_late() {
    let mut bench = Bench::new();
    bench.take(0, &[1, 2], 1);
    bench.take(0, &[12], 12);
    // Partition 1 gives an old point, partition 0 only new ones.
    bench.take(1, &[3], 13);
    bench.take(0, &[100], 100);
    bench.take(0, &[4, 5], 101);

    let window = bench.window(0);
    assert_eq!((window.end, window.corrections, window.late_points), (Time(10 * SECOND), 1, 2));
    let closed = window.closed.expect("it closed");
    assert_eq!((closed.offset, closed.at, closed.rows), (1, Time(SECOND), 1));
    assert_eq!(closed.watermark, Some(Time(12 * SECOND)));
    let range = |partition, from| OffsetRange { topic: "points".into(), partition, from, to: from + 1 };
    assert_eq!(window.corrected[0].sources, [range(1, 2)]);
    assert_eq!((window.late[0].rows, &window.late[0].sources[..]), (2, &[range(0, 4)][..]));
    assert_eq!(bench.history.late_points("cpu"), BTreeMap::from([("10m".to_owned(), 2)]));
    assert_eq!(bench.history.changed("cpu", 8), [bench.window(0)]);
}

#[test]
fn a_replay_is_noted_once() {
    let mut bench = Bench::new();
    bench.take(0, &[1], 1);
    bench.take(0, &[12], 12);
    bench.take(0, &[3], 12);
    let before = bench.window(0);
    bench.fold = Bench::fold(&bench.rollups);
    bench.offset = 0;
    bench.take(0, &[1], 1);
    bench.take(0, &[12], 12);
    bench.take(0, &[3], 12);
    assert_eq!(bench.window(0), before);
    bench.take(0, &[4], 12);
    assert_eq!(bench.window(0).corrections, 2);
}

#[test]
fn any_number_of_ancient_points_displaces_no_recent_window() {
    let mut bench = Bench::new();
    bench.take(0, &[100_001], 100_001);
    bench.take(0, &[100_012], 100_012);
    let ancient: Vec<i64> = (0..2_000).map(|window| window * 10).collect();
    bench.take(0, &ancient, 100_012);
    assert!(bench.window(100_000).closed.is_some());
    let recent = &bench.history.tables[&("cpu".to_owned(), 0)];
    assert_eq!((recent.windows.windows.len(), recent.late.windows.len()), (1, WINDOWS));
}
