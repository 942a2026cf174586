//! Operation: loading files, configuration, the HTTP port, secrets, signals, terminals.

use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    Vec::new()
}
