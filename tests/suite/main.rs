//! Every trial of the project that is more than a unit test:
//! `cargo test --workspace --test tidemark`.
//!
//! A module gives a list of trials; most read theirs from a folder of cases, so that a new case is
//! data. Golden files are rewritten with `TIDEMARK_GOLDEN=rewrite`, and read in review.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod against_state;
mod alertmanager;
mod batch;
mod broken;
mod case;
mod documents;
mod drills;
mod examples;
mod faults;
mod golden;
mod layers;
mod mock;
mod overflow;
mod peers;
mod plans;
mod random;
mod readme;
mod real;
mod receivers;
mod reference;
mod rollups;
mod stream;
mod table;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let arguments = Arguments::from_args();
    let trials: Vec<Trial> = [
        rollups::trials(),
        random::trials(),
        plans::trials(),
        against_state::trials(),
        broken::trials(),
        examples::trials(),
        mock::trials(),
        overflow::trials(),
        peers::trials(),
        faults::trials(),
        documents::trials(),
        layers::trials(),
        readme::trials(),
        reference::trials(),
        receivers::trials(),
        alertmanager::trials(),
        real::trials(),
        drills::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    libtest_mimic::run(&arguments, trials).exit();
}
