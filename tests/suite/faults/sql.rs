//! Rollups: expressions that fail, numbers that are none, windows in time zones, mistakes that `check` finds.

use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    Vec::new()
}
