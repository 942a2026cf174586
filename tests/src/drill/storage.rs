//! The storage fails under the archive and the snapshots: a full disk, and object storage with its
//! errors.
//!
//! While no snapshot can be stored a process is killed: an offset that was committed without one
//! would show.

use rand::seq::SliceRandom;

use super::disk::Disk;
use super::round::{Round, Setup};
use super::s3::{BUCKET, Fault, S3};
use super::verdict::Verdict;
use super::{Ground, Plan};

/// Objects of the archive, and snapshots, that meet each fault before it ends.
const OBJECTS: usize = 3;

pub(super) fn disk(ground: &Ground<'_>, plan: &Plan) -> Verdict {
    let disk = Disk::new();
    let mut setup = Setup::new(ground, plan.size(30_000, 300_000), plan.size(3, 10));
    setup.options.storage = Some(disk.data().display().to_string());
    let mut round = Round::new("f-disk", ground, plan, &setup);
    round.archive = disk.data();
    round.notes.push(disk.kind().to_owned());
    round.start(2);
    round.send();
    while round.has_more() {
        full(&mut round, &disk);
    }
    round.send_last();
    round.finish()
}

/// What is sent while the disk is full has to wait for it, however soon the points before were
/// stored.
fn full(round: &mut Round<'_>, disk: &Disk) {
    round.wait_for_instant();
    disk.fill();
    round.site.faults += 1;
    round.send();
    for member in 0..2 {
        let before = round.site.members[member].log_text().len();
        round.wait("a member to notice that nothing can be stored", |round| {
            disk.fill();
            let log = round.site.members[member].log_text();
            let new = log.get(before..).unwrap_or_default();
            // Clients of Kafka warn of other things.
            let mut lines = new.lines().filter(|line| !line.contains("kafka"));
            let noticed = lines.any(|line| line.contains(" WARN ") || line.contains("ERROR "));
            if noticed { Ok(()) } else { Err(format!("{} bytes more in its log", new.len())) }
        });
    }
    let victim = round.any_member();
    round.crash(victim);
    round.pause(2_000);
    disk.free();
}

pub(super) fn s3(ground: &Ground<'_>, plan: &Plan) -> Verdict {
    let s3 = S3::start();
    let mut setup = Setup::new(ground, plan.size(30_000, 300_000), 5);
    setup.options.storage = Some(format!("s3://{BUCKET}"));
    setup.options.environment = s3.environment();
    let mut round = Round::new("f-s3", ground, plan, &setup);
    round.archive = s3.directory().to_owned();
    round.notes.push("S3 is a stand-in".to_owned());
    round.start(2);
    let mut faults = [Fault::Error500, Fault::SlowDown503, Fault::Silent, Fault::Reset];
    faults.shuffle(&mut round.random);
    for fault in faults {
        s3.inject(Some(fault));
        round.send();
        for place in ["raw", "state"] {
            round.wait(&format!("{OBJECTS} objects of {place} to meet {fault:?}"), |_| {
                let met = s3.injected(place);
                if met >= OBJECTS { Ok(()) } else { Err(format!("{met}")) }
            });
            round.site.faults += s3.injected(place);
        }
        // What was stored without an answer counts as not stored, and so does what was refused.
        if plan.long || matches!(fault, Fault::Error500 | Fault::Silent) {
            let victim = round.any_member();
            round.crash(victim);
        }
        s3.inject(None);
    }
    round.send_last();
    round.finish()
}
