//! SQL files that change while the stream runs: processes are started anew one after the other, in
//! any order, and what the new plans give, with the windows that are rebuilt, is what batch gives.
//! No fragment of a window is ever written.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampNanosecondType;
use libtest_mimic::{Failed, Trial};
use operators::exchange::Partials;
use operators::fold::{Applied, Fold};
use operators::gaps::Gap;
use operators::overflow::Bounds;
use operators::rebuild::{Change, Rebuilder, Rebuilt};
use operators::sql::Rollup;
use operators::watermark::WatermarkOptions;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::case::Case;
use crate::random::point;
use crate::rollups::{batch_tables, differences};
use crate::stream;
use crate::table::Table;

const CASES: u32 = 48;
const SECOND: i64 = 1_000_000_000;

/// The same query before and after, with a tier more.
const KEPT: [&str; 2] = [
    "CREATE MATERIALIZED VIEW kept WITH (tiers = '5s, 10s') AS
     SELECT tumble(time, INTERVAL '5 seconds') AS w, labels['host'] AS host, count(*) AS n, sum(value) AS sum
     FROM points GROUP BY 1, 2",
    "CREATE MATERIALIZED VIEW kept WITH (tiers = '5s, 10s, 20s') AS
     SELECT tumble(time, INTERVAL '5 seconds') AS w, labels['host'] AS host, count(*) AS n, sum(value) AS sum
     FROM points GROUP BY 1, 2",
];
const CHANGED: [&str; 2] = [
    "CREATE MATERIALIZED VIEW changed AS
     SELECT tumble(time, INTERVAL '10 seconds') AS w, labels['host'] AS host, max(value) AS max, count(*) AS n
     FROM points GROUP BY 1, 2",
    // Points that the plan before left out, another tag, other aggregates.
    "CREATE MATERIALIZED VIEW changed AS
     SELECT tumble(time, INTERVAL '10 seconds') AS w, labels['core'] AS core, avg(value) AS avg, count(*) AS n
     FROM points WHERE name = 'a' GROUP BY 1, 2 HAVING avg(value) < 60",
];
const ADDED: &str = "CREATE MATERIALIZED VIEW added AS
    SELECT hop(time, INTERVAL '21 seconds', INTERVAL '7 seconds') AS w, min(value) AS min, count(*) AS n
    FROM points GROUP BY 1";

pub(crate) fn trials() -> Vec<Trial> {
    vec![Trial::test("plans::changed_in_the_middle_of_the_stream", changed)]
}

fn files(sql: &[(&str, &str)]) -> Vec<(String, String)> {
    sql.iter().map(|(name, text)| (format!("{name}.sql"), (*text).to_owned())).collect()
}

fn changed() -> Result<(), Failed> {
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let inputs = (prop::collection::vec(point(), 1..150), any::<u64>());
    TestRunner::new(config)
        .run(&inputs, |(points, seed)| check(&points.concat(), seed).map_err(TestCaseError::fail))
        .map_err(|error| error.to_string().into())
}

fn check(points: &str, seed: u64) -> Result<(), String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let lateness = [0, 15 * SECOND, 1_000 * SECOND][rng.random_range(0..3)];
    let mut before = case(&[("kept", KEPT[0]), ("changed", CHANGED[0])], points, lateness)?;
    let mut after = case(&[("kept", KEPT[1]), ("changed", CHANGED[1]), ("added", ADDED)], points, lateness)?;
    // The processes of ingest go over to the new files while this many to that many points are
    // unread.
    let last = rng.random_range(0..=before.len());
    let first = rng.random_range(last..=before.len());
    let choose = |unread: usize, rng: &mut StdRng| match unread {
        unread if unread > first => 0,
        unread if unread <= last => 1,
        _ => rng.random_range(0..2),
    };
    let (logs, read) = stream::ingest(&mut [&mut before, &mut after], choose, &mut rng);
    let options = WatermarkOptions {
        max_out_of_orderness: disorder(&before, &read),
        idle_timeout: 60 * SECOND,
        owner_timeout: 60 * SECOND,
    };
    let batch = batch_tables(&mut after).map_err(|error| format!("{error:?}"))?;
    let whole = whole_tables(&mut after, logs.len())?;
    let (mut all, mut expected, mut found) = (empty(&after), empty(&after), empty(&after));
    for (partition, (log, whole)) in (0..).zip(logs.iter().zip(whole)) {
        let partitions = logs.len();
        let mut run = Run {
            read: &read,
            options,
            partition,
            partitions,
            found: &mut found,
            left_out: BTreeMap::new(),
            changed_at: None,
        };
        run.fold(&before, &mut after, log, &mut rng);
        for (name, table) in whole {
            all.get_mut(&name).unwrap().rows.extend(table.rows.clone());
            let rows = table.rows.into_iter().filter(|(key, _)| run.is_of_new_plan(&name, at(&key[0])));
            expected.get_mut(&name).unwrap().rows.extend(rows);
        }
    }
    let rebuilt_is_batch = differences(&batch, &all, None);
    let stream_is_batch = differences(&expected, &found, None);
    let text = format!("{rebuilt_is_batch}{stream_is_batch}");
    if text.is_empty() { Ok(()) } else { Err(text) }
}

fn case(sql: &[(&str, &str)], points: &str, lateness: i64) -> Result<Case, String> {
    let mut case = Case::new(&files(sql), points.as_bytes())?;
    for rollup in &mut case.catalog.rollups {
        Arc::get_mut(rollup).expect("nobody else has the catalog yet").allowed_lateness = lateness;
    }
    Ok(case)
}

fn empty(case: &Case) -> BTreeMap<String, Table> {
    let tiers = case
        .catalog
        .rollups
        .iter()
        .flat_map(|rollup| rollup.tiers().iter().map(|tier| (tier.table.clone(), Table::new(rollup))));
    tiers.collect()
}

/// How far points are behind the newest one before them in their source partition: with that much
/// nothing is late.
fn disorder(case: &Case, read: &[Vec<usize>]) -> i64 {
    let mut disorder = 0;
    for points in read {
        let mut newest = i64::MIN;
        for point in points {
            let (time, _) = case.time_and_series(*point);
            newest = newest.max(time);
            disorder = disorder.max(newest - time);
        }
    }
    disorder
}

/// Every window of each partition, as a rebuild of all of them gives it.
fn whole_tables(case: &mut Case, partitions: usize) -> Result<Vec<BTreeMap<String, Table>>, String> {
    let mut tables = vec![empty(case); partitions];
    let points: Vec<usize> = (0..case.len()).collect();
    let points = case.ingested(&points);
    for rollup in case.catalog.rollups.clone() {
        let everything = Gap { from: i64::MIN, to: i64::MAX, written: None, other_fields: false };
        for (number, tier) in rollup.tiers().iter().enumerate() {
            let wanted = (0..).take(partitions).map(|partition| (partition, everything.clone())).collect();
            for part in rebuild(&rollup, number, wanted, partitions, &points) {
                let table = tables[usize::try_from(part.partition).unwrap()].get_mut(&tier.table).unwrap();
                table.write(&rollup, &part.rows);
            }
        }
    }
    Ok(tables)
}

fn rebuild(
    rollup: &Arc<Rollup>,
    tier: usize,
    wanted: BTreeMap<i32, Gap>,
    partitions: usize,
    points: &RecordBatch,
) -> Vec<Rebuilt> {
    let bounded = |(partition, gap)| (partition, (gap, Bounds { partitions, ..Bounds::default() }));
    let mut rebuilder = Rebuilder::new(rollup, tier, wanted.into_iter().map(bounded).collect());
    // In two pieces: states are merged.
    let half = points.num_rows() / 2;
    for part in [points.slice(0, half), points.slice(half, points.num_rows() - half)] {
        rebuilder.push(&[part]).unwrap();
    }
    let rebuilt = rebuilder.take(i64::MIN, i64::MAX).unwrap();
    assert_eq!(rebuilder.take_failures(), []);
    rebuilt
}

/// A window's start as the tables show it.
fn at(text: &str) -> i64 {
    let time = text.parse::<chrono::NaiveDateTime>().unwrap();
    time.and_utc().timestamp_nanos_opt().unwrap()
}

/// One partition: folded by the plans before, then by those after.
struct Run<'a> {
    read: &'a [Vec<usize>],
    options: WatermarkOptions,
    partition: i32,
    partitions: usize,
    found: &'a mut BTreeMap<String, Table>,
    /// Windows that were left out of the stream, by table: from the first up to, without, the last.
    left_out: BTreeMap<String, Vec<(i64, i64)>>,
    /// Event time when the new plans took over.
    changed_at: Option<i64>,
}

impl Run<'_> {
    fn fold(&mut self, before: &Case, after: &mut Case, log: &[Vec<u8>], rng: &mut StdRng) {
        let mut old = Fold::new(&before.catalog.rollups, self.options);
        let times = (0..after.len()).map(|point| after.time_and_series(point).0);
        let newest = times.max().unwrap();
        let is_heartbeat = |message: &Vec<u8>| {
            let facts = Partials::decode(message).unwrap().facts;
            facts.partitions.iter().any(|partition| partition.high > Some(newest))
        };
        let mut next = rng.random_range(0..=log.iter().position(is_heartbeat).unwrap());
        for message in &log[..next] {
            let mut applied = old.apply(&Partials::decode(message).unwrap());
            // What other plans wrote is not what is looked at here.
            applied.results.retain(|results| results.rollup.name == "kept");
            stream::store(&applied, self.found);
        }
        let mut snapshot = (next, old.snapshot(String::new()).unwrap());
        let rollups = after.catalog.rollups.clone();
        let restored = Fold::restore(&rollups, self.options, &snapshot.1).unwrap();
        let new_tiers = vec!["20s".to_owned()];
        let kept = Change::Kept { lateness_before: None, other_results: false, new_tiers };
        assert_eq!(restored.changes["kept"], kept);
        assert!(matches!(restored.changes["changed"], Change::StartsOver { .. }));
        assert_eq!(restored.changes["added"], Change::New);
        let mut fold = restored.fold;
        self.changed_at = fold.watermark();
        let mut crashes = 3;
        loop {
            self.note_left_out(&fold);
            self.rebuild_due(&mut fold, after);
            if next == log.len() {
                break;
            }
            let applied = fold.apply(&Partials::decode(&log[next]).unwrap());
            assert!(applied.failures.is_empty(), "{:?}", applied.failures);
            Self::check_left_out(&fold, &applied);
            stream::store(&applied, self.found);
            next += 1;
            if rng.random_bool(0.2) {
                snapshot = (next, fold.snapshot(String::new()).unwrap());
            }
            if crashes > 0 && rng.random_bool(0.1) {
                fold = Fold::restore(&rollups, self.options, &snapshot.1).unwrap().fold;
                next = snapshot.0;
                crashes -= 1;
            }
        }
        assert!(fold.rebuilds().is_empty(), "everything is final in the end");
    }

    fn note_left_out(&mut self, fold: &Fold) {
        for rebuild in fold.rebuilds() {
            let ranges = self.left_out.entry(rebuild.tier().table.clone()).or_default();
            ranges.push((rebuild.gap.from, rebuild.gap.to));
        }
    }

    /// Whether the new plans give a window: those before the first that was left out were the old
    /// ones', and so was what they had closed between two gaps.
    fn is_of_new_plan(&self, table: &str, start: i64) -> bool {
        let Some(ranges) = self.left_out.get(table) else { return true };
        let first = ranges.iter().map(|(from, _)| *from).min();
        if ranges.iter().any(|(from, to)| (*from..*to).contains(&start)) {
            return true;
        }
        let was_closed = table == "changed" && self.changed_at.is_some_and(|at| start + 10 * SECOND <= at);
        first.is_none_or(|first| start >= first) && !was_closed
    }

    fn check_left_out(fold: &Fold, applied: &Applied) {
        for results in &applied.results {
            let gaps =
                fold.rebuilds().into_iter().filter(|rebuild| rebuild.tier().table == results.tier().table);
            for rebuild in gaps {
                let starts = results.rows.column(results.rollup.shape.time);
                let starts = starts.as_primitive::<TimestampNanosecondType>();
                let is_left_out = |start: &i64| (rebuild.gap.from..rebuild.gap.to).contains(start);
                assert!(!starts.values().iter().any(is_left_out), "{:?}, yet {results:?}", rebuild.gap);
            }
        }
    }

    /// As the role does, from the points that the log has told of by now.
    fn rebuild_due(&mut self, fold: &mut Fold, case: &mut Case) {
        for due in fold.due_rebuilds() {
            let mut points = Vec::new();
            for ((_, source), offset) in fold.source_offsets() {
                let read = &self.read[usize::try_from(*source).unwrap()];
                points.extend_from_slice(&read[..usize::try_from(offset).unwrap().min(read.len())]);
            }
            let points = case.ingested(&points);
            let wanted = BTreeMap::from([(self.partition, due.gap.clone())]);
            for part in rebuild(&due.rollup, due.tier, wanted, self.partitions, &points) {
                self.found.get_mut(&due.tier().table).unwrap().write(&due.rollup, &part.rows);
            }
            fold.rebuilt(&due);
        }
    }
}
