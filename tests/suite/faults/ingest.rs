//! Source topics: transactions, topics that are gone, clocks that jump, silent partitions, labels without bounds.

use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    Vec::new()
}
