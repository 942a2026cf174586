use std::collections::BTreeMap;

use arrow::datatypes::Int64Type;

use super::*;
use crate::exchange::{Partials, Section};
use crate::fold::{Applied, Fold};
use crate::sql::compile;
use crate::testing::{OPTIONS, message_until};
use crate::watermark::EpochFacts;

fn rollups(options: &str) -> Vec<Arc<Rollup>> {
    let sql = format!(
        "CREATE MATERIALIZED VIEW cpu {options} AS
         SELECT tumble(time, INTERVAL '10 seconds') AS w, labels['host'] AS host, name,
                max(value) AS max, count(*) AS n, approx_distinct(name) AS names,
                approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY value) AS median
         FROM points GROUP BY 1, 2, 3"
    );
    let catalog = compile(&[("cpu.sql".into(), sql)]);
    assert_eq!(catalog.errors, []);
    catalog.rollups
}

/// The message of an epoch with points of these hosts at one time.
fn message(rollups: &[Arc<Rollup>], second: i64, hosts: &[String]) -> Partials {
    let points: Vec<_> =
        hosts.iter().enumerate().map(|(value, host)| (host.as_str(), second, value as f64)).collect();
    message_until(rollups, &points, Some(second))
}

fn hosts(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|host| format!("a host with a long name {host}")).collect()
}

fn bounds(series_limit: u64, state_bytes: usize) -> Bounds {
    Bounds { series_limit, state_bytes, ..Bounds::default() }
}

/// Host and points of each row given out.
fn counts(applied: &Applied) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for results in &applied.results {
        let names = results.rows.column_by_name("host").unwrap().as_string_view();
        let points = results.rows.column_by_name("n").unwrap().as_primitive::<Int64Type>();
        for (name, points) in names.iter().zip(points.values()) {
            assert_eq!(counts.insert(name.unwrap().to_owned(), *points), None, "a row is given out once");
        }
    }
    counts
}

#[test]
fn groups_beyond_the_limit_are_one_group_and_no_point_is_lost() {
    let rollups = rollups("");
    let mut fold = Fold::new(&rollups, OPTIONS).bounded(bounds(100, usize::MAX));
    let first = fold.apply(&message(&rollups, 1, &hosts(0..90)));
    assert_eq!(first.overflows, []);
    let second = fold.apply(&message(&rollups, 2, &hosts(80..130)));
    let overflow = Overflow {
        rollup: "cpu".to_owned(),
        tier: "10s".into(),
        window: 0,
        groups: 30,
        points: 30,
        is_first: true,
        out_of_memory: false,
    };
    assert_eq!(second.overflows, std::slice::from_ref(&overflow));
    // Known groups go on, new ones go where those before them went.
    let third = fold.apply(&message(&rollups, 3, &hosts(95..140)));
    assert_eq!(third.overflows, [Overflow { groups: 40, points: 40, is_first: false, ..overflow }]);

    let closed = counts(&fold.apply(&message(&rollups, 10, &hosts(0..1))));
    assert_eq!(closed.len(), 101);
    assert_eq!(closed["__overflow__0"], 70);
    assert_eq!(closed.values().sum::<i64>(), 90 + 50 + 45);
    // A window has places of its own.
    assert_eq!(fold.apply(&message(&rollups, 11, &hosts(200..299))).overflows, []);
}

#[test]
fn a_correction_that_finds_no_place_corrects_the_overflow_group() {
    let rollups = rollups("WITH (series_limit = 2)");
    let mut fold = Fold::new(&rollups, OPTIONS).bounded(bounds(1_000, usize::MAX));
    fold.apply(&message(&rollups, 1, &hosts(0..3)));
    let closed = counts(&fold.apply(&message(&rollups, 12, &hosts(0..1))));
    assert_eq!((closed.len(), closed["__overflow__0"]), (3, 1));
    let corrected = counts(&fold.apply(&message(&rollups, 5, &hosts(1..4))));
    let known = &hosts(1..2)[0];
    assert_eq!(corrected, BTreeMap::from([(known.clone(), 2), ("__overflow__0".to_owned(), 3)]));
}

#[test]
fn a_full_state_takes_no_new_groups_and_still_every_point() {
    let rollups = rollups("");
    let mut fold = Fold::new(&rollups, OPTIONS).bounded(bounds(1_000, 10_000));
    let mut sent = 0;
    for epoch in 0..20 {
        // An epoch's rows are taken as a whole, so the bound is passed by one epoch at most.
        let applied = fold.apply(&message(&rollups, 1, &hosts(epoch * 10..epoch * 10 + 20)));
        assert!(applied.overflows.iter().all(|overflow| overflow.out_of_memory));
        sent += 20;
    }
    let full = fold.bytes();
    let closed = counts(&fold.apply(&message(&rollups, 10, &[])));
    assert_eq!(closed.values().sum::<i64>(), sent);
    assert!(closed.contains_key("__overflow__0") && closed.len() < 110, "{closed:?}");
    // Beside the rows, each batch that has not been merged takes a little.
    assert!((10_000..60_000).contains(&full), "{full}");
}

#[test]
fn what_is_held_beside_counts_as_state() {
    let rollups = rollups("");
    for (beside, admitted) in [(0, true), (9_999, true), (10_000, false), (usize::MAX, false)] {
        let mut fold = Fold::new(&rollups, OPTIONS).bounded(bounds(1_000, 10_000));
        fold.hold_beside(beside);
        let applied = fold.apply(&message(&rollups, 1, &hosts(0..20)));
        assert_eq!(applied.overflows.is_empty(), admitted, "{beside}");
    }
}

#[test]
fn a_restored_fold_diverts_what_the_first_would_have() {
    let rollups = rollups("");
    for bounds in [bounds(40, usize::MAX), bounds(1_000, 10_000)] {
        let mut fold = Fold::new(&rollups, OPTIONS).bounded(bounds);
        for epoch in 0..12 {
            let bytes = fold.snapshot(String::new()).unwrap();
            let mut restored = Fold::restore(&rollups, OPTIONS, &bytes).unwrap().fold.bounded(bounds);
            assert_eq!(restored.bytes(), fold.bytes(), "epoch {epoch}");
            let next = message(&rollups, epoch / 3, &hosts(epoch as usize * 7..epoch as usize * 7 + 25));
            assert_eq!(restored.apply(&next).overflows, fold.apply(&next).overflows, "epoch {epoch}");
            let next = message(&rollups, 20, &[]);
            assert_eq!(counts(&restored.apply(&next)), {
                let bytes = fold.snapshot(String::new()).unwrap();
                let copy = Fold::restore(&rollups, OPTIONS, &bytes).unwrap().fold;
                counts(&copy.bounded(bounds).apply(&next))
            });
        }
    }
}

#[test]
fn the_parts_of_a_limit_add_up_to_it() {
    for (limit, partitions) in [(1, 8), (3, 8), (100, 7), (1_000_000, 8), (5, 1)] {
        let parts = (0..partitions).map(|partition| {
            share_of(limit, &Bounds { partition, partitions, series_limit: limit, state_bytes: 0 }) as u64
        });
        assert_eq!(parts.sum::<u64>(), limit);
    }
}

#[test]
fn equal_rows_weigh_the_same_whatever_their_buffers() {
    let rollups = rollups("");
    let states = message(&rollups, 1, &hosts(0..50)).states.remove(0).batches.remove(0);
    let whole = content_bytes(&states);
    assert!((50 * 100..50 * 300).contains(&whole), "name, host, sketches and counts of 50 groups: {whole}");
    let halves = content_bytes(&states.slice(0, 20)) + content_bytes(&states.slice(20, 30));
    assert_eq!(halves, whole);
    let part = states.slice(7, 5);
    let section = Section { rollup: "cpu".into(), fingerprint: 1, batches: vec![part.clone()] };
    let facts =
        EpochFacts { wall: 0, uptime: None, topics: BTreeMap::new(), partitions: Vec::new(), owner: None };
    let bytes = Partials { facts, plans: BTreeMap::new(), states: vec![section] }.encode().unwrap();
    let stored = Partials::decode(&bytes).unwrap().states.remove(0).batches.remove(0);
    assert_eq!(content_bytes(&stored), content_bytes(&part));
}

/// Each epoch has many groups of one window and a late point of another: that one must not keep the
/// epoch's rows alive.
#[test]
fn what_is_held_is_what_is_counted() {
    let rollups = rollups("");
    let mut fold = Fold::new(&rollups, OPTIONS);
    let names: Vec<String> =
        (0..2_000).map(|host| format!("a host whose name is not inlined {host}")).collect();
    for epoch in 0..40 {
        let now = 600 + epoch;
        let mut points: Vec<(&str, i64, f64)> = names.iter().map(|name| (name.as_str(), now, 1.0)).collect();
        points.push((names[epoch as usize].as_str(), 60 * (epoch % 9 + 1), 2.0));
        fold.apply(&crate::testing::message(&rollups, &points));
        let restored = Fold::restore(&rollups, OPTIONS, &fold.snapshot(String::new()).unwrap()).unwrap().fold;
        for fold in [&fold, &restored] {
            let (held, counted) = (fold.allocated(), fold.bytes());
            assert!(held <= counted * 12 / 10, "epoch {epoch}: {held} bytes are held, {counted} counted");
        }
        assert_eq!(restored.bytes(), fold.bytes());
    }
}

#[test]
fn a_limit_is_a_number_of_groups() {
    for (option, expected) in [
        ("series_limit = 50000", Some(50_000)),
        ("series_limit = '50_000'", Some(50_000)),
        ("allowed_lateness = '1 day'", None),
    ] {
        assert_eq!(rollups(&format!("WITH ({option})"))[0].series_limit, expected);
    }
    let sql = "CREATE MATERIALIZED VIEW cpu WITH (series_limit = 'many') AS
        SELECT tumble(time, INTERVAL '1 day') AS w, count(*) AS n FROM points GROUP BY 1";
    let error = compile(&[("cpu.sql".into(), sql.into())]).errors.remove(0);
    assert_eq!((error.line, error.column), (1, 51), "{error}");
    assert!(error.to_string().contains("'many' is not a number of groups"), "{error}");
}
