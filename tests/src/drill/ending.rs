//! SIGTERM under full load: a clean end, soon, and nothing is lost.

use std::time::Duration;

use super::round::{Round, Setup};
use super::verdict::Verdict;
use super::{Ground, Plan};

/// A process has to end within this on any machine. What it took is in the closing table.
const BOUND: Duration = Duration::from_secs(60);

pub(super) fn run(ground: &Ground<'_>, plan: &Plan) -> Verdict {
    let mut setup = Setup::new(ground, plan.size(60_000, 1_000_000), plan.size(3, 10));
    setup.options.epoch_points = Some(plan.size(1_000, 100_000));
    let mut round = Round::new("i-sigterm", ground, plan, &setup);
    let mut slowest = Duration::ZERO;
    round.start(1);
    while round.send() {
        slowest = slowest.max(end_and_start(&mut round));
    }
    round.send_last();
    slowest = slowest.max(end_and_start(&mut round));
    if slowest > BOUND {
        round.site.fail(&format!("a process took {slowest:?} to end, more than {BOUND:?}"));
    }
    round.notes.push(format!("slowest end {:>5.1} s", slowest.as_secs_f64()));
    round.finish()
}

fn end_and_start(round: &mut Round<'_>) -> Duration {
    round.wait_for_instant();
    let took = round.terminate(0);
    round.site.faults += 1;
    round.site.spawn(0);
    took
}
