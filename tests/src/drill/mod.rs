//! Drills: faults while points flow, on real servers, and the accounting afterwards.
//!
//! A round is drawn from a seed: the points, their disorder, what is unreadable among them, the
//! faults and their instants. It is the same again for the same seed, as far as the machine is:
//! which message a process is killed at depends on its speed. After the faults everything settles,
//! and then
//!
//! - the rows in InfluxDB are those of batch SQL over the points that were in time;
//! - the rows in the late topic are those of batch SQL over the points that were late for certain;
//! - each accepted point is in the archive once, each refused one in the dead-letter topic, and
//!   together they are what was sent;
//! - no transaction is open, and every process ended as it was asked to.
//!
//! | module | holds |
//! |---|---|
//! | `workload`, `site`, `round` | what is sent, to which processes, and the steps of a round |
//! | `verdict`, `report` | the accounting, and the closing table |
//! | `proxy`, `s3`, `disk` | faults of InfluxDB, of object storage (a stand-in), of a disk |
//! | the others | a drill each |

mod alerts;
mod broker;
mod clocks;
mod disk;
mod ending;
mod fuzz;
mod kill;
mod outage;
pub mod proxy;
mod rebalance;
mod report;
mod round;
mod s3;
mod site;
mod skew;
mod storage;
mod verdict;
mod workload;
mod zombie;

pub use report::Report;
pub use verdict::{Accounts, Verdict};

use crate::duckdb::DuckDb;
use crate::influx::Influx;
use crate::kafka::Kafka;

/// The servers that rounds share.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    pub kafka: &'a Kafka,
    pub influx: &'a Influx,
    pub duckdb: &'a DuckDb,
}

/// One round of a drill.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub seed: u64,
    /// Many points and faults, or as few as show something.
    pub long: bool,
}

impl Plan {
    fn size(&self, short: usize, long: usize) -> usize {
        if self.long { long } else { short }
    }
}

/// A kind of trouble.
#[derive(Debug, Clone, Copy)]
pub struct Drill {
    pub name: &'static str,
    pub what: &'static str,
    body: fn(&Ground<'_>, &Plan) -> Verdict,
}

impl Drill {
    pub const ALL: [Self; 12] = [
        Self { name: "a-kill", what: "kill -9 of any of three processes", body: kill::run },
        Self { name: "b-rebalance", what: "members join and leave each second", body: rebalance::run },
        Self {
            name: "c-influxdb",
            what: "InfluxDB killed, slow, deaf, answering 429, 503, 500, 400, 422",
            body: outage::run,
        },
        Self { name: "d-broker", what: "the broker killed, frozen and restarted", body: broker::run },
        Self {
            name: "e-zombie",
            what: "a process frozen past its session, that wakes up",
            body: zombie::run,
        },
        Self { name: "f-disk", what: "a full disk under archive and snapshots", body: storage::disk },
        Self { name: "f-s3", what: "object storage (a stand-in) that fails", body: storage::s3 },
        Self { name: "g-fuzz", what: "damaged messages between good ones", body: fuzz::run },
        Self {
            name: "h-clocks",
            what: "clocks of the future, of the past, negative, going back",
            body: clocks::run,
        },
        Self { name: "i-sigterm", what: "SIGTERM under full load", body: ending::run },
        Self {
            name: "j-alerts",
            what: "receivers that refuse, are slow, busy, cut; processes that judge and tell killed, frozen",
            body: alerts::run,
        },
        Self {
            name: "n-skew",
            what: "clocks a minute apart, set by an hour for two seconds, machines that stand still",
            body: skew::run,
        },
    ];

    /// The drills whose name starts like this; all for an empty one.
    pub fn named(start: &str) -> Vec<Self> {
        Self::ALL.into_iter().filter(|drill| drill.name.starts_with(start)).collect()
    }

    /// # Panics
    /// When the round does not come to its end; what it then finds is in the verdict.
    pub fn run(&self, ground: &Ground<'_>, plan: &Plan) -> Verdict {
        (self.body)(ground, plan)
    }
}
