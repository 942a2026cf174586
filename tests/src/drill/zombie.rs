//! A process is frozen for longer than its session, and wakes up when others own what it had.
//!
//! Everything is sent before anyone reads, and silence counts as idleness after half a second: as
//! long as a partition has unread points that must not happen, and it would let the watermark go
//! far past them.

use rand::Rng;

use super::round::{Round, Setup};
use super::verdict::Verdict;
use super::{Ground, Plan};

pub(super) fn run(ground: &Ground<'_>, plan: &Plan) -> Verdict {
    let mut setup = Setup::new(ground, plan.size(60_000, 400_000), 1);
    setup.options.idle_timeout = Some("500ms");
    let mut round = Round::new("e-zombie", ground, plan, &setup);
    round.send_all();
    round.start(2);
    for step in 1..=plan.size(1, 4) {
        let total = round.sent();
        let stage = total / plan.size(1, 4);
        let begin = stage * (step - 1) + stage * round.random.random_range(1..=10) / 100;
        round.wait_for_read(begin);
        round.pause(300);
        let victim = round.any_member();
        round.site.members[victim].signal("STOP");
        round.site.faults += 1;
        // No member is given more than half of the partitions, so without the frozen one's this is
        // not reached.
        let left = round.sent() - round.wait("the offsets of ingest", Round::read);
        let enough = round.sent() - left * 3 / 10;
        let enough = if step == plan.size(1, 4) { enough } else { enough.min(stage * step) };
        round.wait_for_read(enough);
        round.site.members[victim].signal("CONT");
    }
    round.finish()
}
