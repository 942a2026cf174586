//! Rollups with more groups than they may have: whatever the interleaving and wherever it crashed,
//! no point is lost, no window has more groups than the limit allows, and a crash changes nothing.

use std::collections::BTreeMap;
use std::fmt::Write;

use libtest_mimic::{Failed, Trial};
use operators::overflow::OVERFLOW;

use crate::case::Case;
use crate::rollups::{batch_tables, differences};
use crate::stream;
use crate::table::Table;

const SEEDS: u64 = 40;
const HOSTS: usize = 60;
const LIMIT: u64 = 20;
/// Of partials topics in the streams.
const PARTITIONS: usize = 4;

const SQL: &str = "CREATE MATERIALIZED VIEW load AS
    SELECT tumble(time, INTERVAL '10 seconds') AS w, labels['host'] AS host, labels['rack'] AS rack,
           count(*) AS n, sum(value) AS sum, max(value) AS max
    FROM points GROUP BY 1, 2, 3";

pub(crate) fn trials() -> Vec<Trial> {
    vec![Trial::test("rollup::groups_beyond_the_limit_overflow_the_same_after_every_crash", check)]
}

fn check() -> Result<(), Failed> {
    let mut case = Case::new(&[("load.sql".to_owned(), SQL.to_owned())], points().as_bytes())?;
    let batch = windows(&batch_tables(&mut case)?["load"]);
    for seed in 0..SEEDS {
        let calm = stream::run_with(&mut case, seed, 0, LIMIT);
        let crashed = stream::run_with(&mut case, seed, 5, LIMIT);
        let differences = differences(&calm, &crashed, None);
        assert!(differences.is_empty(), "seed {seed}: crashes change the result:\n{differences}");
        let found = windows(&crashed["load"]);
        assert_eq!(found.keys().collect::<Vec<_>>(), batch.keys().collect::<Vec<_>>(), "seed {seed}");
        for (window, expected) in &batch {
            let found = &found[window];
            let place = format!("seed {seed}, window {window}: {found:?}, {expected:?}");
            assert_eq!(
                (found.points, found.sum, found.max),
                (expected.points, expected.sum, expected.max),
                "{place}"
            );
            assert!(expected.groups > LIMIT as usize, "the case has more groups than places: {place}");
            assert!(found.groups <= LIMIT as usize && found.overflows >= 1, "{place}");
            assert!(found.overflows <= PARTITIONS, "{place}");
        }
    }
    Ok(())
}

/// Each host in each of three windows, some more than once. Values are eighths: sums are exact.
fn points() -> String {
    let mut text = String::new();
    for point in 0..HOSTS * 3 * 2 {
        let (host, window) = (point % HOSTS, point / HOSTS % 3);
        let time = 1_774_738_800_000_u64 + (window as u64 * 10_000) + (point as u64 * 37) % 10_000;
        let value = (point * 53 % 800) as f64 / 8.0;
        let labels = match host % 5 {
            0 => format!("\"host\":\"host-{host}\""),
            rack => format!("\"host\":\"host-{host}\",\"rack\":\"rack number {rack}\""),
        };
        writeln!(text, "{{\"name\":\"load\",\"labels\":{{{labels}}},\"ts\":{time},\"value\":{value}}}")
            .unwrap();
    }
    text
}

#[derive(Debug, Default)]
struct Window {
    groups: usize,
    overflows: usize,
    points: u64,
    sum: f64,
    max: f64,
}

fn windows(table: &Table) -> BTreeMap<String, Window> {
    let mut windows: BTreeMap<String, Window> = BTreeMap::new();
    for (key, fields) in &table.rows {
        let window = windows.entry(key[0].clone()).or_default();
        let overflow = key[1].starts_with(OVERFLOW);
        assert_eq!(overflow, key[2].starts_with(OVERFLOW), "all tags of an overflow group say so: {key:?}");
        if overflow {
            window.overflows += 1;
        } else {
            window.groups += 1;
        }
        window.points += fields[0].parse::<u64>().unwrap();
        window.sum += fields[1].parse::<f64>().unwrap();
        window.max = window.max.max(fields[2].parse().unwrap());
    }
    windows
}
