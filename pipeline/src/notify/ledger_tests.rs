use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

const RECEIVERS: [&str; 3] = ["a", "b", "c"];

fn names(names: &str) -> Vec<Arc<str>> {
    names.split_whitespace().map(Arc::from).collect()
}

fn ledger() -> Ledger {
    Ledger::new(names("a b c"))
}

/// What is due, as `partition@offset text`, and commits it.
fn commit(ledger: &mut Ledger) -> Vec<String> {
    let due = ledger.due();
    let shown = due.iter().map(|due| format!("{}@{} {}", due.partition, due.offset, due.text)).collect();
    ledger.committed(due);
    shown
}

/// A step of partition 0.
enum Step {
    /// Offset, id and receivers of a message; those that are told.
    Read(i64, &'static str, &'static str, &'static str),
    /// Offset and receiver.
    Settle(i64, &'static str),
    /// What is due.
    Commit(&'static [&'static str]),
}

fn check(committed: Option<i64>, text: &str, steps: &[Step]) {
    let mut ledger = ledger();
    ledger.take_over(0, committed, text);
    for (i, step) in steps.iter().enumerate() {
        match step {
            Step::Read(offset, id, receivers, told) => {
                assert_eq!(ledger.read(0, *offset, id, &names(receivers)), names(told), "step {i}");
            }
            Step::Settle(offset, receiver) => ledger.settle(0, *offset, receiver),
            Step::Commit(expected) => assert_eq!(commit(&mut ledger), *expected, "step {i}"),
        }
    }
}

#[test]
fn messages_to_commits() {
    use Step::{Commit, Read, Settle};
    // The commit follows the slowest receiver, the text says what the others have.
    check(
        None,
        "",
        &[
            Commit(&[]),
            Read(5, "i", "a b", "a b"),
            Read(6, "j", "b", "b"),
            Commit(&[r#"0@5 {"a":[[1,2]],"c":[[0,2]]}"#]),
            Settle(5, "b"),
            Settle(6, "b"),
            Commit(&[r#"0@5 {"a":[[1,2]],"b":[[0,2]],"c":[[0,2]]}"#]),
            Commit(&[]),
            Settle(5, "a"),
            Settle(5, "a"),
            Commit(&["0@7 "]),
            Commit(&[]),
        ],
    );
    // What nobody is told is settled at once, gaps in the offsets are not waited for.
    check(None, "", &[Read(0, "i", "", ""), Commit(&["0@1 "]), Read(9, "j", "", ""), Commit(&["0@10 "])]);
    // An id counts once for each receiver.
    check(
        None,
        "",
        &[
            Read(0, "i", "a", "a"),
            Read(1, "i", "a b", "b"),
            Settle(1, "b"),
            Read(2, "i", "a b", ""),
            Commit(&[r#"0@0 {"a":[[1,3]],"b":[[0,3]],"c":[[0,3]]}"#]),
            Settle(0, "a"),
            Commit(&["0@3 "]),
        ],
    );
    // What was read before is told to nobody, neither there nor when it is repeated.
    check(
        Some(12),
        "",
        &[
            Read(10, "i", "a b", ""),
            Read(11, "j", "a", ""),
            Commit(&[]),
            Read(12, "i", "a", ""),
            Read(13, "j", "a b", "b"),
            Commit(&[r#"0@13 {"a":[[0,1]],"c":[[0,1]]}"#]),
        ],
    );
    // What the owner before had settled is not repeated, and stays in the text until it is passed.
    check(
        Some(10),
        r#"{"a":[[0,3]],"gone":[[0,9]]}"#,
        &[
            Read(10, "i", "a b", "b"),
            Commit(&[r#"0@10 {"a":[[0,3]],"c":[[0,1]]}"#]),
            Settle(10, "b"),
            Commit(&[r#"0@11 {"a":[[0,2]]}"#]),
            Read(11, "j", "a", ""),
            Read(12, "k", "a b", "b"),
            Read(13, "l", "a", "a"),
            Settle(12, "b"),
            Commit(&[r#"0@13 {"b":[[0,1]],"c":[[0,1]]}"#]),
        ],
    );
    // A text from elsewhere is ignored.
    check(Some(10), "node-1", &[Read(10, "i", "a", "a"), Settle(10, "a"), Commit(&["0@11 "])]);
}

#[test]
fn reading_begins_a_bounded_history_before_the_committed_offset() {
    for (committed, expected) in
        [(None, None), (Some(0), Some(0)), (Some(7), Some(0)), (Some(10_007), Some(7))]
    {
        assert_eq!(ledger().take_over(0, committed, ""), expected, "committed {committed:?}");
    }
}

#[test]
fn partitions_are_on_their_own_and_share_the_ids() {
    let mut ledger = ledger();
    ledger.take_over(0, None, "");
    ledger.take_over(1, Some(3), "");
    assert_eq!(ledger.read(0, 0, "i", &names("a")), names("a"));
    assert_eq!(ledger.read(1, 3, "i", &names("a")), names(""));
    assert_eq!(ledger.read(1, 4, "j", &names("a")), names("a"));
    assert_eq!(ledger.unsettled(), 2);
    ledger.settle(1, 4, "a");
    assert_eq!(commit(&mut ledger), [r#"0@0 {"b":[[0,1]],"c":[[0,1]]}"#, "1@5 "]);
    // Not owned: of no effect.
    assert_eq!(ledger.read(2, 0, "k", &names("a")), names(""));
    ledger.settle(2, 0, "a");
    assert_eq!(ledger.unsettled(), 1);
}

#[test]
fn a_log_that_ends_before_the_committed_offset_is_read_from_its_beginning() {
    for (end, anew) in [(12, false), (15, false), (11, true)] {
        let mut ledger = ledger();
        ledger.take_over(0, Some(12), "");
        ledger.read(0, 3, "i", &names("a"));
        assert!(ledger.reads_history(0));
        assert_eq!(ledger.ended(0, end), anew, "end {end}");
        assert!(!ledger.reads_history(0));
        assert_eq!(ledger.read(0, 3, "i", &names("a")), names(if anew { "a" } else { "" }), "end {end}");
    }
}

#[test]
fn the_oldest_ids_are_forgotten() {
    let mut told = Told::new(2);
    for id in ["i", "j", "k"] {
        assert_eq!(told.tell(id, &names("a")), names("a"));
    }
    assert_eq!(told.tell("j", &names("a b")), names("b"));
    assert_eq!(told.tell("i", &names("a")), names("a"));
    assert_eq!((told.receivers_by_id.len(), told.oldest_first.len()), (2, 2));
}

#[derive(Debug, Clone)]
enum Event {
    /// The next message of the log is read.
    Read,
    /// One of the deliveries under way is done.
    Settle(Index),
    Commit,
    /// The process ends without notice, another one takes over.
    Crash,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Read),
        6 => any::<Index>().prop_map(Event::Settle),
        2 => Just(Event::Commit),
        1 => Just(Event::Crash),
    ]
}

/// The log, the group's commit, and what receivers got.
#[derive(Default)]
struct World {
    log: Vec<(usize, BTreeSet<&'static str>)>,
    committed: Option<Position>,
    /// By id and receiver: deliveries.
    delivered: BTreeMap<(usize, &'static str), usize>,
    /// Deliveries that the last commit did not know of when the process crashed.
    forgotten: usize,
}

struct Process {
    ledger: Ledger,
    next: usize,
    under_way: Vec<(i64, &'static str)>,
    uncommitted: usize,
}

impl World {
    fn start(&self) -> Process {
        let mut ledger = ledger();
        let offset = self.committed.as_ref().map(|position| position.offset);
        let text = self.committed.as_ref().map_or("", |position| &position.text);
        let next = usize::try_from(ledger.take_over(0, offset, text).unwrap_or(0)).expect("an offset");
        Process { ledger, next, under_way: Vec::new(), uncommitted: 0 }
    }

    fn read(&self, process: &mut Process) {
        let Some((id, receivers)) = self.log.get(process.next) else { return };
        let offset = i64::try_from(process.next).expect("a small log");
        let receivers: Vec<Arc<str>> = receivers.iter().map(|&receiver| receiver.into()).collect();
        for told in process.ledger.read(0, offset, &id.to_string(), &receivers) {
            let receiver = RECEIVERS.into_iter().find(|receiver| **receiver == *told).expect("a receiver");
            process.under_way.push((offset, receiver));
        }
        process.next += 1;
    }

    fn settle(&mut self, process: &mut Process, i: usize) {
        let (offset, receiver) = process.under_way.swap_remove(i);
        let (id, _) = self.log[usize::try_from(offset).expect("an offset")];
        *self.delivered.entry((id, receiver)).or_default() += 1;
        process.ledger.settle(0, offset, receiver);
        process.uncommitted += 1;
    }

    fn commit(&mut self, process: &mut Process) {
        let due = process.ledger.due();
        if let Some(position) = due.first() {
            let before = usize::try_from(position.offset).expect("an offset");
            for (id, receivers) in &self.log[..before] {
                for receiver in receivers {
                    assert!(self.delivered.contains_key(&(*id, *receiver)), "{receiver} was not told {id}");
                }
            }
            self.committed = Some(position.clone());
        }
        process.ledger.committed(due);
        process.uncommitted = 0;
    }
}

proptest! {
    #[test]
    fn every_receiver_is_told_every_id_and_again_only_what_no_commit_knew(
        log in vec((0_usize..12, vec(select(RECEIVERS.as_slice()), 0..4)), 0..20),
        events in vec(event(), 0..120),
    ) {
        let log = log.into_iter().map(|(id, receivers)| (id, receivers.into_iter().collect())).collect();
        let mut world = World { log, ..World::default() };
        let mut process = world.start();
        for event in events {
            match event {
                Event::Read => world.read(&mut process),
                Event::Settle(_) if process.under_way.is_empty() => {}
                Event::Settle(index) => {
                    let i = index.index(process.under_way.len());
                    world.settle(&mut process, i);
                }
                Event::Commit => world.commit(&mut process),
                Event::Crash => {
                    world.forgotten += process.uncommitted;
                    process = world.start();
                }
            }
            let open: BTreeSet<i64> = process.under_way.iter().map(|(offset, _)| *offset).collect();
            prop_assert_eq!(process.ledger.unsettled(), open.len());
        }
        while process.next < world.log.len() {
            world.read(&mut process);
        }
        while !process.under_way.is_empty() {
            world.settle(&mut process, 0);
        }
        world.commit(&mut process);

        let mut repeated = 0;
        for (id, receivers) in &world.log {
            for receiver in receivers {
                prop_assert!(world.delivered.contains_key(&(*id, *receiver)), "{} was not told {}", receiver, id);
            }
        }
        for times in world.delivered.values() {
            repeated += times - 1;
        }
        prop_assert!(repeated <= world.forgotten, "{} repeated, {} forgotten", repeated, world.forgotten);
        if let Some(committed) = world.committed {
            prop_assert_eq!(committed.offset, i64::try_from(world.log.len()).expect("a small log"));
            prop_assert_eq!(committed.text, "");
        }
    }
}
