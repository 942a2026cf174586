//! A storm of rebalances: each second a member joins or leaves.

use rand::Rng;

use super::round::{Round, Setup};
use super::verdict::Verdict;
use super::{Ground, Plan};

const MOST: usize = 4;

pub(super) fn run(ground: &Ground<'_>, plan: &Plan) -> Verdict {
    let changes = plan.size(3, 10);
    let setup = Setup::new(ground, plan.size(30_000, 300_000), plan.size(3, 6));
    let mut round = Round::new("b-rebalance", ground, plan, &setup);
    round.start(2);
    while round.send() {
        storm(&mut round, changes);
    }
    round.send_last();
    storm(&mut round, changes);
    round.finish()
}

fn storm(round: &mut Round<'_>, changes: usize) {
    for _ in 0..changes {
        let running = round.running();
        let joins = running.len() <= 1 || (running.len() < MOST && round.random.random_bool(0.5));
        if joins {
            let absent = (0..round.site.members.len()).find(|member| !running.contains(member));
            let member = absent.unwrap_or_else(|| round.site.add());
            round.site.spawn(member);
        } else {
            let member = round.any_member();
            round.terminate(member);
        }
        round.site.faults += 1;
        round.pause(2_000);
    }
}
