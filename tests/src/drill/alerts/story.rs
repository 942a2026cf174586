//! Hosts whose load goes up and down, and what two rules must say of it: worked out from the points
//! by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use alerts::Status;
use rand::Rng;
use rand::rngs::StdRng;

use crate::input::{Generator, Point};

const SECOND: i64 = 1_000_000_000;
/// Of the rollup.
const WINDOW: i64 = 10 * SECOND;
/// Points of a window.
const POINTS: usize = 2;
/// How often a host's load changes sides from one window to the next.
const CHANGES: f64 = 0.4;
/// Windows after the first one with a high load from which on `Held` fires: `for = "20s"`.
const HELD: usize = 2;

pub(super) const ROLLUP: &str = "CREATE MATERIALIZED VIEW load AS
SELECT tumble(time, INTERVAL '10 seconds') AS window_start, labels['host'] AS host, labels['region'] AS region,
       avg(value) AS avg
FROM points WHERE name = 'cpu.load' GROUP BY 1, 2, 3";

pub(super) const HIGH: &str = "High";
pub(super) const HELD_HIGH: &str = "Held";

/// Each with the receivers that are notified of it.
pub(super) const RULES: [(&str, &[&str]); 2] =
    [(HIGH, &["steady", "flaky"]), (HELD_HIGH, &["away", "grouped", "mail"])];

/// A transition that people are notified, by what the points say of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Event {
    pub(super) rule: String,
    pub(super) host: String,
    /// End of the window that made it, nanoseconds.
    pub(super) at: i64,
    pub(super) status: Status,
}

#[derive(Debug)]
pub(super) struct Story {
    /// In the order of their times.
    pub(super) points: Vec<Point>,
    events: BTreeSet<Event>,
}

impl Story {
    pub(super) fn new(random: &mut StdRng, hosts: usize, windows: usize) -> Self {
        let interval = Duration::from_nanos(WINDOW.unsigned_abs()) / u32::try_from(POINTS).unwrap();
        let generator = Generator { hosts, interval, ..Generator::default() };
        let mut points = generator.points(hosts * windows * POINTS);
        let mut loads: BTreeMap<usize, Vec<bool>> = BTreeMap::new();
        for host in 0..hosts {
            let mut is_high = random.random_bool(0.5);
            let mut load = || {
                is_high ^= random.random_bool(CHANGES);
                is_high
            };
            loads.insert(host, (0..windows).map(|_| load()).collect());
        }
        for point in &mut points {
            let window = usize::try_from((point.time - generator.start) / WINDOW).unwrap();
            point.value = if loads[&point.series.index][window] { 95.0 } else { 50.0 };
        }
        let mut events = BTreeSet::new();
        for series in generator.series() {
            let host = &series.labels["host"];
            let end = |window: usize| generator.start + i64::try_from(window + 1).unwrap() * WINDOW;
            for (rule, delay) in [(HIGH, 0), (HELD_HIGH, HELD)] {
                for (window, status) in transitions(&loads[&series.index], delay) {
                    events.insert(Event { rule: rule.into(), host: host.clone(), at: end(window), status });
                }
            }
        }
        Self { points, events }
    }

    pub(super) fn events(&self) -> &BTreeSet<Event> {
        &self.events
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    pub(super) fn expected(&self, rule: &str) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(move |event| event.rule == rule)
    }

    /// A time at which all windows are closed.
    pub(super) fn end(&self) -> i64 {
        self.points.iter().map(|point| point.time).max().expect("there are points") + 6 * WINDOW
    }
}

/// By the number of the window. A load that is high in so many more windows than one fires.
fn transitions(loads: &[bool], delay: usize) -> Vec<(usize, Status)> {
    let mut transitions = Vec::new();
    let mut high = 0;
    for (window, is_high) in loads.iter().enumerate() {
        if *is_high {
            high += 1;
            if high == delay + 1 {
                transitions.push((window, Status::Firing));
            }
        } else {
            if high > delay {
                transitions.push((window, Status::Resolved));
            }
            high = 0;
        }
    }
    transitions
}
