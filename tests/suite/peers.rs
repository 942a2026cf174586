//! How others fail, and that this does not: one trial for each kind of failure that users of stream
//! processors, metrics agents and time-series pipelines have reported; those of alerting are in
//! `alerting`. What needs real servers is in the drills and in `real`; `tests/README.md` has the
//! table.

pub(crate) mod alerting;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, TimestampNanosecondArray};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use libtest_mimic::Trial;
use operators::exchange::Partials;
use operators::fold::{Applied, Fold};
use operators::partial::{aggregate, points_schema};
use operators::sql::{Catalog, compile};
use operators::watermark::{EpochFacts, PartitionFacts, WatermarkOptions};
use points::decode::{DecodeOptions, Decoder, Points};

const SECOND: i64 = 1_000_000_000;
/// A Monday in 2026: no window below starts before it.
const START: i64 = 1_767_571_200 * SECOND;
const OPTIONS: WatermarkOptions =
    WatermarkOptions { max_out_of_orderness: 0, idle_timeout: 60 * SECOND, owner_timeout: 600 * SECOND };
const SQL: &str = "CREATE MATERIALIZED VIEW cpu WITH (allowed_lateness = '1 minute') AS
SELECT tumble(time, INTERVAL '10 seconds') AS w, labels['host'] AS host,
       count(*) AS n, avg(value) AS avg, max(value) AS max
FROM points GROUP BY 1, 2";

pub(crate) fn trials() -> Vec<Trial> {
    let all: [(&str, fn()); 12] = [
        ("a_record_from_the_future_makes_nobody_late", future),
        ("a_silent_partition_with_unread_points_is_not_idle", unread),
        ("a_silent_partition_that_was_read_holds_no_window_open", idle),
        ("the_last_windows_close_when_traffic_stops", last_windows),
        ("a_late_row_gives_out_the_whole_window_again", late_row),
        ("a_former_owner_writes_what_the_next_one_writes", two_owners),
        ("a_restart_neither_loses_nor_doubles_open_windows", restarts),
        ("instances_that_share_a_series_write_one_result", shared_series),
        ("an_average_is_not_one_of_averages", averages),
        ("state_grows_with_groups_and_not_with_epochs", state_size),
        ("a_malformed_point_costs_no_neighbour", malformed),
        ("every_late_point_is_counted", late_counted),
    ];
    let trial = |(name, body): (&str, fn())| {
        Trial::test(format!("peers::{name}"), move || {
            body();
            Ok(())
        })
    };
    all.into_iter().map(trial).chain(alerting::trials()).collect()
}

/// What an `ingest` process says of one source partition in an epoch.
#[derive(Debug, Clone, Default)]
struct Source {
    partition: i32,
    payload: String,
    at_end: bool,
    /// Seconds.
    silent: i64,
}

/// Points are (host, seconds since [`START`], value), a JSON object a line.
fn points(partition: i32, points: &[(&str, i64, f64)]) -> Source {
    let line = |(host, at, value): &(&str, i64, f64)| {
        let time = START / SECOND + at;
        format!("{{\"name\":\"cpu\",\"labels\":{{\"host\":\"{host}\"}},\"ts\":{time},\"value\":{value}}}\n")
    };
    Source { partition, payload: points.iter().map(line).collect(), ..Source::default() }
}

/// From messages to a store, with one partition between.
struct Stream {
    catalog: Catalog,
    decoder: Decoder,
    partitions: i32,
    wall: i64,
    offset: i64,
    fold: Fold,
    /// By window and host.
    store: BTreeMap<String, String>,
    accepted: u64,
    rejected: usize,
    merged: u64,
    late: u64,
}

impl Stream {
    fn new(partitions: i32) -> Self {
        let catalog = compile(&[("cpu.sql".to_owned(), SQL.to_owned())]);
        assert_eq!(catalog.errors, []);
        Self {
            decoder: Decoder::new(DecodeOptions::default(), catalog.labels.clone()),
            fold: Fold::new(&catalog.rollups, OPTIONS),
            catalog,
            partitions,
            wall: START,
            offset: 0,
            store: BTreeMap::new(),
            accepted: 0,
            rejected: 0,
            merged: 0,
            late: 0,
        }
    }

    /// One epoch of one process, folded. Gives what it led to.
    fn epoch(&mut self, sources: &[Source]) -> Applied {
        let message = self.message(sources);
        self.fold(&message)
    }

    /// The message of one epoch of one process.
    fn message(&mut self, sources: &[Source]) -> Vec<u8> {
        let (mut decoded, mut facts) = (Points::default(), Vec::new());
        self.offset += 1;
        for source in sources {
            let (before, mut rejections) = (decoded.len(), Vec::new());
            self.decoder.decode(source.payload.as_bytes(), None, self.wall, &mut decoded, &mut rejections);
            self.rejected += rejections.len();
            facts.push(PartitionFacts {
                topic: "points".to_owned(),
                partition: source.partition,
                from: self.offset - 1,
                to: self.offset,
                high: decoded.time[before..].iter().copied().max(),
                low: decoded.time[before..].iter().copied().min(),
                at_end: source.at_end,
                silent: source.silent * SECOND,
            });
        }
        self.accepted += decoded.len() as u64;
        let (name, labels) = self.decoder.series().columns(&decoded.series);
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(name),
            Arc::new(TimestampNanosecondArray::from(decoded.time)),
            Arc::new(Float64Array::from(decoded.value)),
        ];
        columns.extend(labels.into_iter().map(|label| Arc::new(label) as ArrayRef));
        let batch = RecordBatch::try_new(points_schema(&self.catalog.labels), columns).unwrap();
        let topics = BTreeMap::from([("points".to_owned(), self.partitions)]);
        let facts = EpochFacts { wall: self.wall, uptime: None, topics, partitions: facts, owner: None };
        let mut aggregated = aggregate(&self.catalog.rollups, &[batch], &facts, 1);
        assert!(aggregated.failures.is_empty(), "{:?}", aggregated.failures);
        aggregated.messages.remove(0).encode().unwrap()
    }

    fn fold(&mut self, message: &[u8]) -> Applied {
        let applied = self.fold.apply(&Partials::decode(message).unwrap());
        assert!(applied.failures.is_empty() && applied.rebuilds.is_empty(), "{applied:?}");
        for row in rows(&applied) {
            let key = row.splitn(3, ' ').take(2).collect::<Vec<_>>().join(" ");
            self.store.insert(key, row);
        }
        self.merged += applied.points.iter().map(|(_, points)| points).sum::<u64>();
        self.late += applied.late.iter().map(|late| late.points).sum::<u64>();
        applied
    }

    fn restart(&mut self) {
        let snapshot = self.fold.snapshot(String::new()).unwrap();
        self.fold = Fold::restore(&self.catalog.rollups, OPTIONS, &snapshot).unwrap().fold;
    }

    /// The row of a host in the window that starts so many seconds after [`START`]: count, average,
    /// maximum.
    fn row(&self, host: &str, at: i64) -> Option<&str> {
        let key = format!("2026-01-05T00:{:02}:{:02} {host}", at / 60, at % 60);
        self.store.get(&key).map(|row| row[key.len() + 1..].trim())
    }
}

/// Rows as text, in the order in which they are written.
fn rows(applied: &Applied) -> Vec<String> {
    let options = FormatOptions::default();
    let mut rows = Vec::new();
    for results in &applied.results {
        let columns = results.rows.columns().iter();
        let formatters: Vec<_> =
            columns.map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        rows.extend((0..results.rows.num_rows()).map(|row| {
            let cells = formatters.iter().map(|formatter| formatter.value(row).to_string());
            cells.collect::<Vec<_>>().join(" ")
        }));
    }
    rows
}

fn future() {
    let mut stream = Stream::new(1);
    stream.epoch(&[points(0, &[("a", 1, 1.0), ("b", 1_000_000_000, 1.0), ("a", 2, 3.0)])]);
    assert_eq!((stream.accepted, stream.rejected), (2, 1));
    stream.epoch(&[points(0, &[("a", 5, 5.0)])]);
    stream.epoch(&[points(0, &[("a", 12, 1.0)])]);
    assert_eq!(stream.row("a", 0), Some("3 3.0 5.0"));
    assert_eq!(stream.late, 0);
}

fn unread() {
    let mut stream = Stream::new(2);
    stream.epoch(&[points(0, &[("a", 1, 1.0)]), points(1, &[("b", 1, 1.0)])]);
    let silent = Source { partition: 1, silent: 3_600, ..Source::default() };
    for at in [100, 200, 300] {
        let applied = stream.epoch(&[points(0, &[("a", at, 1.0)]), silent.clone()]);
        assert_eq!(rows(&applied), [""; 0]);
    }
    // What was unread is in time for its window.
    stream.epoch(&[points(1, &[("b", 2, 3.0)])]);
    stream.epoch(&[points(1, &[("b", 300, 3.0)])]);
    assert_eq!(stream.row("b", 0), Some("2 2.0 3.0"));
    assert_eq!(stream.late, 0);
}

fn idle() {
    let mut stream = Stream::new(2);
    stream.epoch(&[points(0, &[("a", 1, 1.0)]), points(1, &[("b", 1, 1.0)])]);
    let idle = Source { partition: 1, silent: 61, at_end: true, ..Source::default() };
    for at in 0..5 {
        stream.epoch(&[points(0, &[("a", 20 + at, 1.0)]), idle.clone()]);
    }
    assert_eq!((stream.row("a", 0), stream.row("b", 0)), (Some("1 1.0 1.0"), Some("1 1.0 1.0")));
}

fn last_windows() {
    let mut stream = Stream::new(2);
    stream.epoch(&[points(0, &[("a", 1, 1.0)]), points(1, &[("b", 2, 2.0)])]);
    let idle = |partition, silent| Source { partition, silent, at_end: true, ..Source::default() };
    for silent in 61..100 {
        stream.wall += SECOND;
        stream.epoch(&[idle(0, silent), idle(1, silent)]);
    }
    assert_eq!((stream.row("a", 0), stream.row("b", 0)), (Some("1 1.0 1.0"), Some("1 2.0 2.0")));
}

fn late_row() {
    let mut stream = Stream::new(1);
    stream.epoch(&[points(0, &[("a", 1, 1.0), ("a", 2, 3.0)])]);
    stream.epoch(&[points(0, &[("a", 10, 1.0)])]);
    assert_eq!(stream.row("a", 0), Some("2 2.0 3.0"));
    let applied = stream.epoch(&[points(0, &[("a", 3, 5.0)])]);
    assert_eq!(rows(&applied), ["2026-01-05T00:00:00 a 3 3.0 5.0"]);
}

fn two_owners() {
    let mut stream = Stream::new(1);
    let messages: Vec<Vec<u8>> = (0..20)
        .map(|at| stream.message(&[points(0, &[("a", at * 4, at as f64), ("b", at * 3, 1.0)])]))
        .collect();
    for message in &messages[..5] {
        stream.fold(message);
    }
    let snapshot = stream.fold.snapshot(String::new()).unwrap();
    let former: Vec<_> = messages[5..].iter().map(|message| rows(&stream.fold(message))).collect();
    stream.fold = Fold::restore(&stream.catalog.rollups, OPTIONS, &snapshot).unwrap().fold;
    let next: Vec<_> = messages[5..].iter().map(|message| rows(&stream.fold(message))).collect();
    assert!(former.iter().any(|rows| rows.len() > 1), "windows closed: {former:?}");
    assert_eq!(former, next);
}

fn restarts() {
    let mut stream = Stream::new(1);
    for at in 0..20 {
        stream.epoch(&[points(0, &[("a", at, at as f64)])]);
        stream.restart();
    }
    stream.epoch(&[points(0, &[("a", 30, 1.0)])]);
    let expected = (Some("10 4.5 9.0"), Some("10 14.5 19.0"));
    assert_eq!((stream.row("a", 0), stream.row("a", 10)), expected);
}

fn shared_series() {
    let mut stream = Stream::new(2);
    stream.epoch(&[points(0, &[("a", 1, 1.0), ("a", 2, 2.0)])]);
    stream.epoch(&[points(1, &[("a", 3, 9.0)])]);
    stream.epoch(&[points(0, &[("a", 11, 1.0)])]);
    let applied = stream.epoch(&[points(1, &[("a", 11, 1.0)])]);
    assert_eq!(rows(&applied), ["2026-01-05T00:00:00 a 3 4.0 9.0"]);
}

fn averages() {
    let mut stream = Stream::new(2);
    stream.epoch(&[points(0, &[("a", 1, 10.0)])]);
    stream.epoch(&[points(1, &[("a", 1, 0.0); 9])]);
    stream.epoch(&[points(0, &[("a", 11, 1.0)]), points(1, &[("a", 11, 1.0)])]);
    // The average of the two processes' averages would be 5.
    assert_eq!(stream.row("a", 0), Some("10 1.0 10.0"));
}

fn state_size() {
    let mut stream = Stream::new(1);
    let hosts: Vec<String> = (0..20).map(|host| format!("h{host}")).collect();
    let epoch: Vec<(&str, i64, f64)> = hosts.iter().map(|host| (host.as_str(), 1, 1.0)).collect();
    let mut most = 0;
    for _ in 0..500 {
        stream.epoch(&[points(0, &epoch)]);
        most = most.max(stream.fold.sizes().map(|(_, rows, _)| rows).sum());
    }
    // 10,000 states of 20 groups: no more are kept than those of 33 epochs and the groups
    // themselves.
    assert!(most <= 20 * 34, "{most} rows of state");
    stream.epoch(&[points(0, &[("h0", 11, 1.0)])]);
    assert_eq!(stream.row("h7", 0), Some("500 1.0 1.0"));
}

fn malformed() {
    let mut stream = Stream::new(1);
    let good = points(0, &[("a", 1, 1.0)]).payload;
    for bad in ["{\"name\":\"cpu\",\"ts\":1767571201,\"value\":\"x\"}\n", "{\"name\":7}\n", "{]\n", "\0\n"] {
        let payload = format!("{good}{bad}{good}");
        stream.epoch(&[Source { payload, ..Source::default() }]);
    }
    stream.epoch(&[points(0, &[("a", 11, 1.0)])]);
    assert_eq!(stream.row("a", 0), Some("8 1.0 1.0"));
    assert_eq!(stream.rejected, 4);
}

fn late_counted() {
    let mut stream = Stream::new(1);
    stream.epoch(&[points(0, &[("a", 1, 1.0)])]);
    stream.epoch(&[points(0, &[("a", 69, 1.0)])]);
    // Still within the minute after the end of its window.
    stream.epoch(&[points(0, &[("a", 2, 1.0), ("a", 70, 1.0)])]);
    stream.epoch(&[points(0, &[("a", 3, 1.0), ("b", 4, 1.0), ("a", 71, 1.0)])]);
    assert_eq!((stream.late, stream.merged, stream.accepted), (2, 5, 7));
    assert_eq!(stream.row("a", 0), Some("2 1.0 1.0"));
}
