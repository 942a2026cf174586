//! Clocks of the processes that are wrong: a minute apart all the time, set by an hour for two
//! seconds, and machines that stand still.
//!
//! Silence counts as idleness after a second, and the points pause again and again: then event time
//! goes on by what the processes say of time.

use std::thread::park_timeout;
use std::time::Duration;

use rand::Rng;
use rand::seq::IndexedRandom;

use super::round::{Round, Setup};
use super::verdict::Verdict;
use super::{Ground, Plan};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

pub(super) fn run(ground: &Ground<'_>, plan: &Plan) -> Verdict {
    let slices = plan.size(4, 16);
    let mut setup = Setup::new(ground, plan.size(40_000, 400_000), slices);
    setup.options.idle_timeout = Some("1s");
    setup.options.has_clocks = true;
    let mut round = Round::new("n-skew", ground, plan, &setup);
    // Further apart than a process may be silent.
    let skews = [0, MINUTE, -MINUTE];
    for (member, skew) in skews.into_iter().enumerate() {
        round.site.set_clock(member, skew);
    }
    round.start(skews.len());
    while round.send() {
        round.wait_for_instant();
        let sent = round.sent();
        round.wait_for_read(sent);
        // All partitions become idle, and the next slice is in time all the same.
        park_timeout(Duration::from_millis(1_500));
        let victim = round.any_member();
        let by = *[HOUR, -HOUR].choose(&mut round.random).unwrap();
        if round.random.random_bool(0.3) {
            round.site.members[victim].signal("STOP");
            park_timeout(Duration::from_secs(3));
            round.site.set_clock(victim, skews[victim] + by);
            round.site.members[victim].signal("CONT");
        } else {
            round.site.set_clock(victim, skews[victim] + by);
        }
        park_timeout(Duration::from_secs(2));
        round.site.set_clock(victim, skews[victim]);
        round.site.faults += 1;
    }
    let seen: usize = round
        .running()
        .into_iter()
        .map(|member| round.site.members[member].log_text().matches("the machine's clock was set").count())
        .sum();
    if seen < round.site.faults {
        round.site.fail(&format!(
            "{seen} steps of a clock were seen: the drill needs a program built with debug assertions or the feature `set-clock`, as `make drill` does"
        ));
    }
    round.send_last();
    round.finish()
}
