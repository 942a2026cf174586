//! Rules: rows that cannot be judged, gaps, changed rules, memory of alerts.

use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    Vec::new()
}
