//! Wrong clocks: of the future, of the past, negative, and going back.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;

use super::round::{Round, Setup};
use super::verdict::Verdict;
use super::workload::PARTITIONS;
use super::{Ground, Plan};
use crate::input::{NEW_YEAR, Point};
use crate::kafka::Message;

const DAY: i64 = 86_400_000_000_000;

/// Times that must be refused: beyond the skew, before the oldest that is accepted, and what is no
/// time at all. As the text of `ts`.
const REFUSED: [&str; 12] = [
    // 2100 in seconds, milliseconds, microseconds and nanoseconds, and as text.
    "4102444800",
    "4102444800000",
    "4102444800000000",
    "4102444800000000000",
    "\"2100-01-01T00:00:00Z\"",
    "9223372036854775807",
    "1e30",
    // Before 1971.
    "0",
    "1",
    "-1",
    "-1767225600000",
    "\"1960-06-01T00:00:00Z\"",
];

pub(super) fn run(ground: &Ground<'_>, plan: &Plan) -> Verdict {
    let mut setup = Setup::new(ground, plan.size(30_000, 300_000), plan.size(3, 10));
    // Every clock goes back by up to eight minutes, again and again.
    setup.shape.disorder = Duration::from_secs(480);
    let mut round = Round::new("h-clocks", ground, plan, &setup);
    let wrong: Vec<Message> = (0..plan.size(500, 5_000))
        .map(|number| {
            let time = REFUSED[number % REFUSED.len()];
            let value = number % 100;
            let payload = match number % 5 {
                // A heartbeat of the future must not close anything.
                0 => format!(r#"{{"heartbeat":{}}}"#, REFUSED[number % 7]),
                _ => format!(
                    r#"{{"name":"cpu.load","labels":{{"host":"host-00001"}},"ts":{time},"value":{value}}}"#
                ),
            };
            Message::new(i32::try_from(round.random.random_range(0..PARTITIONS)).unwrap(), payload)
        })
        .collect();
    round.site.faults = wrong.len();
    round.workload.refused += wrong.len();
    let mut random = round.random.clone();
    round.workload.mix(&mut random, wrong);
    // Late by decades, not only by a day.
    let first = round.workload.late[0].clone();
    for years in [1, 10, 30, 50] {
        let time = NEW_YEAR - years * 366 * DAY;
        round.workload.late.push(Point { series: Arc::clone(&first.series), time, value: 1.0 });
    }
    round.start(2);
    while round.send() {
        round.wait_for_instant();
    }
    round.send_last();
    round.finish()
}
