//! The broker crashes or freezes, and comes back.

use rand::Rng;

use super::round::{Round, Setup};
use super::verdict::Verdict;
use super::{Ground, Plan};
use crate::kafka::Kafka;

pub(super) fn run(ground: &Ground<'_>, plan: &Plan) -> Verdict {
    // Its own: the others must not notice.
    let kafka = Kafka::start().expect("the shared one has started too");
    let mut setup = Setup::new(ground, plan.size(30_000, 500_000), plan.size(2, 8));
    setup.kafka = &kafka;
    let mut round = Round::new("d-broker", ground, plan, &setup);
    round.start(2);
    while round.send() {
        trouble(&mut round);
    }
    round.send_last();
    trouble(&mut round);
    round.finish()
}

fn trouble(round: &mut Round<'_>) {
    round.wait_for_instant();
    if round.random.random_bool(0.3) {
        round.kafka.pause();
        round.pause(8_000);
        round.kafka.resume();
    } else {
        round.kafka.kill9();
        round.pause(3_000);
        round.kafka.restart();
    }
    round.site.faults += 1;
}
