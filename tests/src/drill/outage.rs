//! InfluxDB is killed, slow, deaf, busy or broken, for longer than what is buffered; and refuses
//! some rows for good.

use rand::seq::SliceRandom;

use super::proxy::{Fault, Proxy};
use super::round::{Round, Setup};
use super::site::PARTIALS;
use super::verdict::Verdict;
use super::{Ground, Plan};
use crate::influx::Influx;

/// Hosts whose rows are refused, each in its way.
const POISON: [(&str, u16); 2] = [("host-00003", 400), ("host-00007", 422)];
/// Writes that meet each fault before it ends, if the epochs for it lead to as many.
const WRITES: usize = 3;
/// Epochs that are sent around the time when InfluxDB is gone. Each corrects windows of both
/// rollups in every partition, and what is buffered is counted in such results: 64 a process.
const EPOCHS_AWAY: usize = 50;
/// Epochs that are sent while a fault lasts, at most.
const EPOCHS_EACH: usize = 6;
/// Transactions of `ingest` during which `rollup` reads nothing: then its buffers are full.
const EPOCHS: i64 = 10;

pub(super) fn run(ground: &Ground<'_>, plan: &Plan) -> Verdict {
    let influx = Influx::start().expect("the shared one has started too");
    let proxy = Proxy::start(&influx.url());
    for (host, status) in POISON {
        proxy.poison(&format!("host={host},"), status);
    }
    let mut faults = vec![
        Fault::Status(429, true),
        Fault::Status(503, true),
        Fault::Status(503, false),
        Fault::Status(500, false),
        Fault::Slow,
        Fault::Deaf,
        Fault::Cut,
    ];
    let rounds = plan.size(1, 4);
    let slices = rounds * (EPOCHS_AWAY + faults.len() * EPOCHS_EACH) + 1;
    let mut setup = Setup::new(ground, plan.size(40_000, 600_000), slices);
    setup.influx = &influx;
    setup.options.influx_url = Some(proxy.url());
    let mut round = Round::new("c-influxdb", ground, plan, &setup);
    let accepted = |host: &str| POISON.iter().all(|(poison, _)| *poison != host);
    for (_, rows) in &mut round.expected {
        rows.retain(|key, _| key.tags.get("host").is_none_or(|host| accepted(host)));
    }
    round.start(2);
    for _ in 0..rounds {
        send_epochs(&mut round, EPOCHS_AWAY / 4);
        influx.kill9();
        round.site.faults += 1;
        let victim = round.any_member();
        round.crash(victim);
        send_epochs(&mut round, EPOCHS_AWAY - EPOCHS_AWAY / 4);
        wait_for_full_buffers(&mut round);
        influx.restart();

        faults.shuffle(&mut round.random);
        for fault in &faults {
            proxy.inject(Some(*fault));
            for _ in 0..EPOCHS_EACH {
                if proxy.injected() < WRITES {
                    send_epochs(&mut round, 1);
                }
            }
            round.wait(&format!("a write to meet {fault:?}"), |_| match proxy.injected() {
                0 => Err("none".to_owned()),
                _ => Ok(()),
            });
            round.site.faults += proxy.injected();
            proxy.inject(None);
        }
    }
    round.send_last();
    round.finish()
}

/// Sends so many parts, each when the one before is read: each is an epoch of its own.
fn send_epochs(round: &mut Round<'_>, epochs: usize) {
    for _ in 0..epochs {
        round.send();
        round.wait_for_read(round.sent());
    }
}

/// Waits until `rollup` reads nothing while `ingest` goes on.
fn wait_for_full_buffers(round: &mut Round<'_>) {
    let partials = round.site.topic_of("partials");
    let mut stood_still_since = None;
    round.wait("rollup to stop reading", |round| {
        let end: i64 = round.ends(&partials, PARTIALS)?.into_iter().sum();
        let name = "tidemark_rollup_partials_total";
        let read: f64 = round.site.members.iter().map(|member| member.metric(name, &[]).unwrap_or(0.0)).sum();
        let (read_then, end_then) = *stood_still_since.get_or_insert((read, end));
        if read != read_then || read == 0.0 {
            stood_still_since = None;
        }
        // A transaction puts a message and its end on each partition.
        let epochs = (end - end_then) / (2 * PARTIALS as i64);
        if epochs >= EPOCHS {
            Ok(())
        } else {
            Err(format!("{epochs} epochs while {read} messages were read"))
        }
    });
}
