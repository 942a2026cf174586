//! The steps of the pipeline one by one, without Kafka: `bench --micro`.

use std::collections::BTreeMap;
use std::sync::Arc;

use alerts::Transition;
use alerts::dispatch::{Dispatcher, Policy, ReceiverPolicy, Route};
use divan::counter::ItemsCount;
use divan::{Bencher, Divan};
use operators::epoch::EpochPoints;
use operators::exchange::Partials;
use operators::fold::{Fold, Results};
use operators::partial::aggregate_each;
use operators::sql::{Catalog, compile};
use operators::watermark::{EpochFacts, PartitionFacts, WatermarkOptions};
use points::decode::{DecodeOptions, Decoder, Points};
use sinks::Table;
use sinks::influx::encode::Lines;
use tidemark_tests::input::{Format, Generator, NEW_YEAR, messages};

/// Points of an epoch: twenty of each host, which make four windows.
const POINTS: usize = 200_000;
const HOSTS: usize = 10_000;
/// Of the partials topic.
const PARTITIONS: usize = 8;
/// The defaults of the configuration.
const OPTIONS: WatermarkOptions = WatermarkOptions {
    max_out_of_orderness: 5_000_000_000,
    idle_timeout: 60_000_000_000,
    owner_timeout: 120_000_000_000,
};
const DAY: i64 = 86_400_000_000_000;

const ROLLUP: &str = "CREATE MATERIALIZED VIEW bench AS
SELECT tumble(time, INTERVAL '1 minute') AS window_start, labels['host'] AS host, labels['region'] AS region,
       count(*) AS points, avg(value) AS avg, max(value) AS max, min(value) AS min
FROM points WHERE name = 'cpu.load' GROUP BY 1, 2, 3";

/// Runs all, and prints how long each takes.
pub(crate) fn run() {
    Divan::default().main();
}

fn catalog() -> Catalog {
    compile(&[("bench.sql".to_owned(), ROLLUP.to_owned())])
}

fn payloads(format: Format) -> Vec<Vec<u8>> {
    let points = Generator { hosts: HOSTS, regions: 8, ..Generator::default() }.points(POINTS);
    messages(&points, 1, format).map(|message| message.payload).collect()
}

fn decoded(decoder: &mut Decoder, payloads: &[Vec<u8>]) -> Points {
    let mut points = Points::default();
    let mut rejected = Vec::new();
    for payload in payloads {
        decoder.decode(payload, None, i64::MAX, &mut points, &mut rejected);
    }
    assert!(points.len() == POINTS && rejected.is_empty());
    points
}

fn epoch() -> Arc<EpochPoints> {
    let mut decoder = Decoder::new(DecodeOptions::default(), catalog().labels);
    let points = decoded(&mut decoder, &payloads(Format::LineProtocol(100)));
    Arc::new(EpochPoints::new(decoder.series(), [points]))
}

fn facts(high: i64) -> EpochFacts {
    let partition = PartitionFacts {
        topic: "points".into(),
        partition: 0,
        from: 0,
        to: POINTS as i64,
        high: Some(high),
        low: Some(NEW_YEAR),
        at_end: false,
        silent: 0,
    };
    EpochFacts {
        wall: high,
        uptime: None,
        topics: BTreeMap::from([("points".into(), 1)]),
        partitions: vec![partition],
        owner: None,
    }
}

/// The messages of an epoch, one for each partition.
fn partials(high: i64) -> Vec<Partials> {
    let points = epoch();
    let aggregated = aggregate_each(&catalog().rollups, || points.batches(), &facts(high), PARTITIONS);
    assert!(aggregated.failures.is_empty());
    aggregated.messages
}

#[divan::bench(args = [Format::Json, Format::JsonLines(100), Format::LineProtocol(100)])]
fn decode(bencher: Bencher<'_, '_>, format: &Format) {
    let payloads = payloads(*format);
    let mut decoder = Decoder::new(DecodeOptions::default(), catalog().labels);
    decoded(&mut decoder, &payloads);
    bencher.counter(ItemsCount::new(POINTS)).bench_local(|| decoded(&mut decoder, &payloads));
}

#[divan::bench]
fn partial(bencher: Bencher<'_, '_>) {
    let (catalog, points) = (catalog(), epoch());
    let facts = facts(NEW_YEAR);
    bencher
        .counter(ItemsCount::new(POINTS))
        .bench_local(|| aggregate_each(&catalog.rollups[..1], || points.batches(), &facts, 1));
}

/// Partial states, divided over the partitions.
#[divan::bench]
fn partial_and_split(bencher: Bencher<'_, '_>) {
    let (catalog, points) = (catalog(), epoch());
    let facts = facts(NEW_YEAR);
    bencher
        .counter(ItemsCount::new(POINTS))
        .bench_local(|| aggregate_each(&catalog.rollups, || points.batches(), &facts, PARTITIONS));
}

#[divan::bench]
fn encode_partials(bencher: Bencher<'_, '_>) {
    let messages = partials(NEW_YEAR);
    bencher
        .counter(ItemsCount::new(POINTS))
        .bench_local(|| messages.iter().map(|message| message.encode().unwrap().len()).sum::<usize>());
}

#[divan::bench]
fn decode_partials(bencher: Bencher<'_, '_>) {
    let encoded: Vec<Vec<u8>> = partials(NEW_YEAR).iter().map(|message| message.encode().unwrap()).collect();
    bencher
        .counter(ItemsCount::new(POINTS))
        .bench_local(|| encoded.iter().map(|bytes| Partials::decode(bytes).unwrap()).collect::<Vec<_>>());
}

/// Five epochs of the same windows, merged as they come, and the results.
#[divan::bench]
fn merge_and_close(bencher: Bencher<'_, '_>) {
    const EPOCHS: usize = 5;
    let rollups = catalog().rollups;
    let (open, close) = (partials(NEW_YEAR), partials(NEW_YEAR + DAY));
    bencher.counter(ItemsCount::new(POINTS * EPOCHS)).bench_local(|| {
        let mut rows = 0;
        for (open, close) in open.iter().zip(&close) {
            let mut fold = Fold::new(&rollups, OPTIONS);
            for _ in 1..EPOCHS {
                fold.apply(open);
            }
            rows += fold.apply(close).results.iter().map(|results| results.rows.num_rows()).sum::<usize>();
        }
        assert_eq!(rows, POINTS / 5);
        rows
    });
}

/// Rows of results to InfluxDB's line protocol.
#[divan::bench]
fn encode_lines(bencher: Bencher<'_, '_>) {
    let mut fold = Fold::new(&catalog().rollups, OPTIONS);
    let results: Vec<Results> = fold.apply(&partials(NEW_YEAR + DAY)[0]).results;
    let shape = &results[0].rollup.shape;
    let table = Table {
        name: "bench".into(),
        rollup: "bench".into(),
        tier: "1m".into(),
        is_finest: true,
        time: shape.time,
        tags: shape.tags.clone(),
        fields: shape.fields.clone(),
    };
    let rows = &results[0].rows;
    bencher
        .counter(ItemsCount::new(rows.num_rows()))
        .bench_local(|| Lines::new(&table, rows).unwrap().map(|line| line.text.len()).sum::<usize>());
}

/// How each of many alerts stands at its receivers, as `alerts list` and `/api/alerts` ask.
#[divan::bench(args = [2_000, 20_000])]
fn list_alerts(bencher: Bencher<'_, '_>, count: usize) {
    let receivers = BTreeMap::from([("hook".to_owned(), ReceiverPolicy { send_resolved: true })]);
    let route = Route { name: "all".into(), receivers: vec!["hook".into()], ..Route::default() };
    let mut dispatcher = Dispatcher::new(Policy { routes: vec![route], receivers, ..Policy::default() });
    let alerts: Vec<Transition> = (0..count).map(firing).collect();
    for alert in &alerts {
        dispatcher.transition(alert, NEW_YEAR);
    }
    bencher.counter(ItemsCount::new(count)).bench_local(|| {
        let standings = dispatcher.standings();
        let of = |alert: &Transition| standings.of(&alert.rule, &alert.labels, NEW_YEAR).len();
        let found: usize = alerts.iter().map(of).sum();
        assert_eq!(found, count, "each is under one receiver");
        found
    });
}

fn firing(number: usize) -> Transition {
    let incident = format!("incident-{number:05}");
    let alert = serde_json::json!({
        "id": format!("{incident}/firing"), "rule": "high", "status": "firing", "severity": "page",
        "labels": { "host": format!("host-{number:05}") }, "summary": "", "description": "", "values": {},
        "starts_at": NEW_YEAR, "ends_at": null, "window_start": NEW_YEAR, "window_end": NEW_YEAR, "receivers": [], "incident": incident,
    });
    serde_json::from_value(alert).expect("an alert")
}
