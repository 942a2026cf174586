//! Source topics: transactions, topics that are gone, clocks that jump, silent partitions, labels
//! without bounds.

mod clocks;
mod sizes;

use libtest_mimic::Trial;

use crate::real::Servers;

pub(crate) fn trials() -> Vec<Trial> {
    [clocks::trials(), sizes::trials()].into_iter().flatten().collect()
}

/// A trial on real servers.
fn real(name: &str, body: fn(&Servers)) -> Trial {
    crate::real::trial(&format!("faults::ingest::{name}"), body)
}
