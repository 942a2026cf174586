//! The accounting after a round: what is in InfluxDB, in the archive and in the topics, against
//! what was sent.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::NaiveDateTime;
use serde_json::Value;

use super::round::Round;
use super::workload::ROLLUPS;
use crate::influx::{Field, Key};
use crate::kafka::Message;
use crate::oracle::{self, Rows};

/// Differences that are notified one by one.
const SHOWN: usize = 5;

/// How a round ended.
#[derive(Debug)]
pub struct Verdict {
    pub drill: &'static str,
    pub seed: u64,
    /// Sent: those that were accepted, late and refused.
    pub points: usize,
    pub faults: usize,
    pub took: Duration,
    pub notes: Vec<String>,
    pub accounts: Accounts,
}

/// What does not add up; all zero and empty after a good round.
#[derive(Debug, Default)]
pub struct Accounts {
    /// Rows in InfluxDB and in the late topic that are not those of batch SQL.
    pub differences: usize,
    /// Points that are neither in the archive nor in the dead-letter topic.
    pub unaccounted: usize,
    /// Points that are there twice.
    pub doubled: usize,
    /// The same in words.
    pub problems: Vec<String>,
}

impl Verdict {
    /// # Panics
    /// When something does not add up.
    pub fn assert_clean(&self) {
        let accounts = &self.accounts;
        assert!(
            accounts.problems.is_empty(),
            "drill `{}`, seed {}: {} differences, {} points unaccounted, {} doubled\n{}",
            self.drill,
            self.seed,
            accounts.differences,
            accounts.unaccounted,
            accounts.doubled,
            accounts.problems.join("\n")
        );
    }
}

pub(super) fn account(round: &Round<'_>) -> Accounts {
    let mut accounts = Accounts::default();
    let late = round.kafka.consume_all(&round.site.topic_of("late"));
    for ((name, sql), (_, expected)) in ROLLUPS.into_iter().zip(&round.expected) {
        let found = round.influx.rows(&round.site.id, name);
        accounts.compare(&format!("{name} in influxdb"), &found, expected);
        let expected = oracle::rows(sql, &round.workload.late);
        accounts.compare(&format!("late rows of {name}"), &late_rows(&late, name, &expected), &expected);
    }
    accounts.add_dead_letters(round);
    accounts.add_archive(round);
    accounts
}

impl Accounts {
    fn compare(&mut self, what: &str, found: &Rows, expected: &Rows) {
        let differences = oracle::differences(found, expected);
        if differences.is_empty() {
            return;
        }
        self.differences += differences.len();
        let shown: Vec<&str> = differences.iter().take(SHOWN).map(String::as_str).collect();
        self.problems.push(format!(
            "{what}: {} differences from batch over {} rows, among them\n  {}",
            differences.len(),
            expected.len(),
            shown.join("\n  ")
        ));
    }

    /// Every refused point is in the dead-letter topic, once: two of one message may look the same,
    /// so what is too many is there twice.
    fn add_dead_letters(&mut self, round: &Round<'_>) {
        let letters = round.kafka.consume_all(&round.site.topic_of("dead-letter"));
        let count = |letter: &Message| -> usize {
            let (_, points) = letter.headers.iter().find(|(key, _)| key == "points").expect("it has a count");
            std::str::from_utf8(points).unwrap().parse().unwrap()
        };
        let points: usize = letters.iter().map(count).sum();
        let expected = round.workload.refused;
        self.double("dead letters", points.saturating_sub(expected));
        self.balance("refused points in the dead-letter topic", points.min(expected), expected);
    }

    /// Another engine reads the archive: every accepted point, once, with its own value.
    fn add_archive(&mut self, round: &Round<'_>) {
        let files = format!("read_parquet('{}/raw/**/*.parquet')", round.archive.display());
        let sql = format!(
            "SELECT count(*)::DOUBLE AS rows, coalesce(sum(value), 0) AS total,
                    count(DISTINCT (labels['host'], time))::DOUBLE AS places
             FROM {files} WHERE name = 'cpu.load'
             UNION ALL SELECT count(*)::DOUBLE, 0, 0 FROM {files} WHERE name <> 'cpu.load'"
        );
        let found = round.ground.duckdb.query(&sql);
        let number = |row: usize, name: &str| found[row][name].as_f64().unwrap();
        let (rows, places) = (number(0, "rows") as usize, number(0, "places") as usize);
        self.balance("accepted points in the archive", places, round.workload.accepted().count());
        self.double("points in the archive", rows - places);
        self.balance("other points in the archive", number(1, "rows") as usize, round.workload.others);
        // Values are eighths, so their sum is exact in any order.
        let total: f64 = round.workload.accepted().map(|point| point.value).sum();
        if number(0, "total") != total && self.unaccounted == 0 && self.doubled == 0 {
            self.differences += 1;
            self.problems.push(format!("the archive sums up to {}, not {total}", number(0, "total")));
        }
    }

    pub(super) fn balance(&mut self, what: &str, found: usize, expected: usize) {
        if found != expected {
            self.unaccounted += found.abs_diff(expected);
            self.problems.push(format!("{what}: {found} instead of {expected}"));
        }
    }

    pub(super) fn double(&mut self, what: &str, count: usize) {
        if count > 0 {
            self.doubled += count;
            self.problems.push(format!("{what}: {count} doubled"));
        }
    }
}

/// The rows of a rollup in the late topic. A replay sends some again, and they are the same; with
/// one point a row none is ever in two parts. `like` tells fields from tags.
fn late_rows(messages: &[Message], rollup: &str, like: &Rows) -> Rows {
    let mut rows = Rows::new();
    let Some(kinds) = like.values().next() else { return rows };
    for message in messages.iter().filter(|message| message.key.as_deref() == Some(rollup.as_bytes())) {
        for line in std::str::from_utf8(&message.payload).unwrap().lines() {
            let Value::Object(columns) = serde_json::from_str(line).unwrap() else {
                panic!("not a row: {line}")
            };
            let mut key = Key { time: 0, tags: BTreeMap::new() };
            let mut fields = BTreeMap::new();
            for (name, value) in columns {
                match kinds.get(&name) {
                    Some(Field::Integer(_)) => {
                        fields.insert(name, Field::Integer(value.as_i64().unwrap()));
                    }
                    Some(_) => {
                        fields.insert(name, Field::Float(value.as_f64().unwrap()));
                    }
                    None if name == "window_start" => key.time = nanoseconds(value.as_str().unwrap()),
                    None => {
                        key.tags.insert(name, value.as_str().unwrap().to_owned());
                    }
                }
            }
            rows.insert(key, fields);
        }
    }
    rows
}

fn nanoseconds(text: &str) -> i64 {
    let time: NaiveDateTime = text.trim_end_matches('Z').parse().unwrap();
    time.and_utc().timestamp_nanos_opt().unwrap()
}
