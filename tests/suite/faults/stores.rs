//! Stores: types and names that they cannot hold, damaged files, two deployments on one storage.

use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    Vec::new()
}
