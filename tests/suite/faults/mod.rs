//! Inputs that once gave wrong, missing or doubled results, each with what it must give: one module
//! a part of the program.
//!
//! `tests/README.md` lists them by kind of fault. What can be shown without a server is beside the
//! code that it concerns.

mod gone;
mod ingest;
mod notify;
mod operation;
mod rules;
mod sql;
mod stores;

use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    [
        sql::trials(),
        rules::trials(),
        notify::trials(),
        gone::trials(),
        ingest::trials(),
        stores::trials(),
        operation::trials(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
