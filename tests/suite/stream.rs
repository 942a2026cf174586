//! The pipeline between its topics, without Kafka: points in several source partitions, read by
//! several processes in epochs, aggregated, sent as bytes through several partials partitions, and
//! folded with crashes and restores on the way. Everything is drawn from a seed.

use std::collections::{BTreeMap, VecDeque};

use operators::exchange::Partials;
use operators::fold::{Applied, Fold};
use operators::overflow::Bounds;
use operators::partial::aggregate;
use operators::rebuild::Change;
use operators::watermark::{EpochFacts, PartitionFacts, WatermarkOptions};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use crate::case::Case;
use crate::table::Table;

const SECOND: i64 = 1_000_000_000;
const TOPIC: &str = "points";
/// Later than the end of every window that a case has.
const FAR: i64 = 1_000 * 86_400 * SECOND;

/// Crashes of each partition's owner, at most.
const CRASHES: u32 = 3;

/// What the store holds in the end, by tier of each rollup.
pub(crate) fn run(case: &mut Case, seed: u64) -> BTreeMap<String, Table> {
    run_with(case, seed, CRASHES, u64::MAX)
}

/// As [`run`], with so many crashes at most, and a limit on the groups of a window.
pub(crate) fn run_with(
    case: &mut Case,
    seed: u64,
    crashes: u32,
    series_limit: u64,
) -> BTreeMap<String, Table> {
    let mut rng = StdRng::seed_from_u64(seed);
    let options = WatermarkOptions {
        max_out_of_orderness: *[0, SECOND, 600 * SECOND].choose(&mut rng).unwrap(),
        idle_timeout: 60 * SECOND,
        owner_timeout: 60 * SECOND,
    };
    let (logs, _) = ingest(&mut [case], |_, _| 0, &mut rng);
    let tiers = case
        .catalog
        .rollups
        .iter()
        .flat_map(|rollup| rollup.tiers().iter().map(|tier| (tier.table.clone(), Table::new(rollup))));
    let mut tables: BTreeMap<String, Table> = tiers.collect();
    for (partition, log) in logs.iter().enumerate() {
        let bounds = Bounds { partition, partitions: logs.len(), series_limit, state_bytes: usize::MAX };
        fold(case, log, options, bounds, crashes, &mut rng, &mut tables);
    }
    tables
}

/// The messages of each partition of the partials topic, and the points of each source partition in
/// the order of their offsets. `cases` have the same points; `choose` says by whose rollups an
/// epoch is aggregated, given how many points are unread.
pub(crate) fn ingest(
    cases: &mut [&mut Case],
    mut choose: impl FnMut(usize, &mut StdRng) -> usize,
    rng: &mut StdRng,
) -> (Vec<Vec<Vec<u8>>>, Vec<Vec<usize>>) {
    let sources = rng.random_range(1..=4);
    let processes = rng.random_range(1..=sources);
    let mut queues = source_partitions(cases[0], sources, rng);
    let read: Vec<Vec<usize>> = queues.iter().map(|queue| queue.iter().copied().collect()).collect();
    let mut offsets = vec![0_i64; sources];
    let mut logs = vec![Vec::new(); rng.random_range(1..=4)];
    let longest_epoch = rng.random_range(1..=(cases[0].len() / 2).clamp(1, 200));
    while queues.iter().any(|queue| !queue.is_empty()) {
        let process = rng.random_range(0..processes);
        let case = &mut *cases[choose(queues.iter().map(VecDeque::len).sum(), rng)];
        let (mut batches, mut facts) = (Vec::new(), Vec::new());
        for source in (process..sources).step_by(processes) {
            let count = rng.random_range(0..=longest_epoch).min(queues[source].len());
            let points: Vec<usize> = queues[source].drain(..count).collect();
            let high = points.iter().map(|point| case.time_and_series(*point).0).max();
            facts.push(source_facts(source, &mut offsets[source], count, high));
            if !points.is_empty() {
                batches.push(case.ingested(&points));
            }
        }
        send(case, &batches, sources, facts, &mut logs);
    }
    let case = &mut *cases[choose(0, rng)];
    // Heartbeats: the last windows close.
    for process in 0..processes {
        let mut facts = Vec::new();
        for source in (process..sources).step_by(processes) {
            let last = (0..case.len()).map(|point| case.time_and_series(point).0).max().unwrap_or(0);
            facts.push(source_facts(source, &mut offsets[source], 1, Some(last + FAR)));
        }
        send(case, &[], sources, facts, &mut logs);
    }
    (logs, read)
}

/// Points by source partition, in order of time up to a random disorder. A series keeps to its
/// partition, or not.
fn source_partitions(case: &Case, sources: usize, rng: &mut StdRng) -> Vec<VecDeque<usize>> {
    let mut order: Vec<usize> = (0..case.len()).collect();
    order.sort_by_key(|point| case.time_and_series(*point).0);
    for chunk in order.chunks_mut(rng.random_range(1..=case.len().max(1))) {
        chunk.shuffle(rng);
    }
    let by_series = rng.random_bool(0.5);
    let mut queues = vec![VecDeque::new(); sources];
    for point in order {
        let source = match by_series {
            true => case.time_and_series(point).1 as usize % sources,
            false => rng.random_range(0..sources),
        };
        queues[source].push_back(point);
    }
    queues
}

fn source_facts(source: usize, offset: &mut i64, count: usize, high: Option<i64>) -> PartitionFacts {
    let from = *offset;
    *offset += count as i64;
    let partition = i32::try_from(source).unwrap();
    PartitionFacts {
        topic: TOPIC.to_owned(),
        partition,
        from,
        to: *offset,
        high,
        low: None,
        at_end: false,
        silent: 0,
    }
}

fn send(
    case: &Case,
    batches: &[arrow::array::RecordBatch],
    sources: usize,
    partitions: Vec<PartitionFacts>,
    logs: &mut [Vec<Vec<u8>>],
) {
    let topics = BTreeMap::from([(TOPIC.to_owned(), i32::try_from(sources).unwrap())]);
    let facts = EpochFacts { wall: 0, uptime: None, topics, partitions, owner: None };
    let aggregated = aggregate(&case.catalog.rollups, batches, &facts, logs.len());
    assert!(case.has_known(&aggregated.failures), "{:?}", aggregated.failures);
    let messages = aggregated.messages;
    for (log, message) in logs.iter_mut().zip(messages) {
        log.push(message.encode().unwrap());
    }
}

/// Folds one log into the tables. A crash loses what came after the last snapshot, and the log is
/// read again from there.
fn fold(
    case: &Case,
    log: &[Vec<u8>],
    options: WatermarkOptions,
    bounds: Bounds,
    mut crashes: u32,
    rng: &mut StdRng,
    tables: &mut BTreeMap<String, Table>,
) {
    let rollups = &case.catalog.rollups;
    let mut fold = Fold::new(rollups, options).bounded(bounds);
    let mut snapshot = (0, fold.snapshot(String::new()).unwrap());
    let mut next = 0;
    while next < log.len() {
        let applied = fold.apply(&Partials::decode(&log[next]).unwrap());
        assert!(case.has_known(&applied.failures), "{:?}", applied.failures);
        assert!(applied.rebuilds.is_empty(), "all states are there");
        store(&applied, tables);
        next += 1;
        if rng.random_bool(0.2) {
            snapshot = (next, fold.snapshot(String::new()).unwrap());
        }
        if crashes > 0 && rng.random_bool(0.1) {
            let restored = Fold::restore(rollups, options, &snapshot.1).unwrap();
            let kept = Change::Kept { lateness_before: None, other_results: false, new_tiers: Vec::new() };
            assert!(restored.changes.values().all(|change| *change == kept), "{:?}", restored.changes);
            (fold, next) = (restored.fold.bounded(bounds), snapshot.0);
            crashes -= 1;
        }
    }
}

/// What the sinks do.
pub(crate) fn store(applied: &Applied, tables: &mut BTreeMap<String, Table>) {
    assert!(applied.late.is_empty(), "nothing is late here: {applied:?}");
    for results in &applied.results {
        let table = tables.get_mut(&results.tier().table).unwrap();
        if let Some(withdrawn) = &results.withdrawn {
            table.withdraw(&results.rollup, withdrawn);
        }
        table.write(&results.rollup, &results.rows);
    }
}
