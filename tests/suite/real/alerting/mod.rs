//! Trials of alerting from a point in Kafka to a mail, a webhook, an Alertmanager.
//!
//! Event time is what the trials make of it: each site reads one partition, whose points are in
//! order, and a heartbeat closes the windows before it. Several trials look at one site, because
//! starting one costs seconds; it is started for the first of them, and ends with the last.

mod feed;
mod kinds;
mod ledger;
mod live;
mod receivers;
mod restart;
mod routes;
mod told;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use libtest_mimic::Trial;

use super::{Servers, trial};

pub(super) fn trials() -> Vec<Trial> {
    [kinds::trials(), told::trials(), restart::trials(), live::trials()].into_iter().flatten().collect()
}

/// What several trials look at: made for the first one that asks, and dropped after the last one.
struct Shared<T> {
    make: fn(&Servers) -> T,
    made: OnceLock<Result<T, String>>,
}

impl<T> Shared<T> {
    fn new(make: fn(&Servers) -> T) -> Arc<Self> {
        Arc::new(Self { make, made: OnceLock::new() })
    }

    /// # Panics
    /// When it could not be made, each time: others that ask do not try again.
    #[track_caller]
    fn get(&self, servers: &Servers) -> &T {
        let make = || catch_unwind(AssertUnwindSafe(|| (self.make)(servers))).map_err(|_| "see the first");
        let made = self.made.get_or_init(|| make().map_err(str::to_owned));
        made.as_ref().unwrap_or_else(|reason| panic!("what these trials share could not be made: {reason}"))
    }
}

/// The name of a trial, and what it looks at of what is shared.
type Check<T> = (&'static str, fn(&T));

/// A trial for each check of what is shared.
fn shared_trials<T: Send + Sync + 'static>(
    make: fn(&Servers) -> T,
    checks: impl IntoIterator<Item = (&'static str, impl FnOnce(&T) + Send + 'static)>,
) -> Vec<Trial> {
    let shared = Shared::new(make);
    let mut trials = Vec::new();
    for (name, check) in checks {
        let shared = Arc::clone(&shared);
        trials.push(trial(&format!("real::alerting::{name}"), move |servers| check(shared.get(servers))));
    }
    trials
}
