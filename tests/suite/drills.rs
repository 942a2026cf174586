//! A short round of each drill, on real servers.

use libtest_mimic::Trial;
use tidemark_tests::drill::{Drill, Ground, Plan};
use tidemark_tests::duckdb::DuckDb;

use crate::real;

/// Any other must do as well.
const SEED: u64 = 1;

pub(crate) fn trials() -> Vec<Trial> {
    let trial = |drill: Drill| {
        real::trial(&format!("drill::{}", drill.name), move |servers| {
            let duckdb = DuckDb::find().expect("the other servers are there");
            let ground = Ground { kafka: servers.kafka, influx: &servers.influx, duckdb: &duckdb };
            drill.run(&ground, &Plan { seed: SEED, long: false }).assert_clean();
        })
    };
    Drill::ALL.into_iter().map(trial).collect()
}
