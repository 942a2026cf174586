//! kill -9 of any of three processes, at instants of the seed's choosing.

use super::round::{Round, Setup};
use super::verdict::Verdict;
use super::{Ground, Plan};

pub(super) fn run(ground: &Ground<'_>, plan: &Plan) -> Verdict {
    let mut setup = Setup::new(ground, plan.size(60_000, 1_000_000), plan.size(3, 16));
    setup.options.epoch_points = Some(plan.size(1_000, 5_000));
    let mut round = Round::new("a-kill", ground, plan, &setup);
    round.start(3);
    while round.send() {
        kill_one(&mut round);
    }
    round.send_last();
    kill_one(&mut round);
    round.finish()
}

fn kill_one(round: &mut Round<'_>) {
    round.wait_for_instant();
    let victim = round.any_member();
    round.crash(victim);
}
