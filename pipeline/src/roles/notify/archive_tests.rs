//! Owners that come and go at every moment, files that come late, offsets that are lost: each entry
//! is stored once.

use std::path::Path;
use std::sync::Arc;

use alerts::dispatch::{Entry, What};
use arrow::array::AsArray;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tokio::runtime::Runtime;

use super::*;
use crate::config::Config;

use sinks::parquet::live::HOUR;

/// The ledger's topic, what its group has committed, and the store.
struct Bench {
    context: Context,
    store: Arc<InMemory>,
    log: Vec<(i64, Vec<u8>)>,
    begin: i64,
    committed: Option<(i64, String)>,
    /// Every chunk whose end was committed, by which a frozen owner may wake up with its files.
    cuts: Vec<(i64, i64)>,
    runtime: Runtime,
}

impl Bench {
    /// Entries over three days, at every third offset: between them are marks of transactions.
    fn new(entries: i64) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let catalog = Arc::new(operators::sql::compile(&[]));
        let config = Config::local("127.0.0.1:1", Path::new("/tmp"));
        let context = Context::new(config, catalog, runtime.handle().clone());
        let log = (0..entries).map(|number| (number * 3, payload(number))).collect();
        let store = Arc::new(InMemory::new());
        Self { context, store, log, begin: 0, committed: None, cuts: Vec::new(), runtime }
    }

    fn ledger(&self) -> LedgerParquet {
        LedgerParquet::new(self.store.clone(), "data".into())
    }

    /// An owner that rolls at `roll` entries, and crashes at its commit number `crash`: before it
    /// is through, or after. It ends in order when there is none.
    fn own(&mut self, roll: usize, crash: Option<(usize, bool)>) -> Result<()> {
        let mut share = LedgerShare::new(&self.context, self.ledger(), Shutdown::new());
        share.roll_entries = roll;
        let end = self.log.last().map_or(0, |(offset, _)| offset + 2);
        let (offset, metadata) =
            self.committed.clone().map_or((None, String::new()), |(at, text)| (Some(at), text));
        let assigned =
            Assigned { topic: share.topic.clone(), partition: 0, offset, metadata, log: (self.begin, end) };
        let start = share.assigned(&[assigned])?[0].expect("an offset");
        let (committed, cuts, mut commits) = (&mut self.committed, &mut self.cuts, 0);
        let mut commit = |offsets: &Commit| {
            let (_, _, offset, text) = &offsets[0];
            let at = commits;
            commits += 1;
            if crash == Some((at, false)) {
                return Err(Error::Interrupted("the owner crashed"));
            }
            let progress = ArchiveProgress::parse(text).expect("readable").expect("written here");
            cuts.extend(progress.ends.first().map(|end| (*offset, *end)));
            *committed = Some((*offset, text.clone()));
            if crash == Some((at, true)) { Err(Error::Interrupted("the owner crashed")) } else { Ok(()) }
        };
        let mut settle = |share: &mut LedgerShare, which: Vec<(i32, i64)>| {
            which.into_iter().try_for_each(|(partition, end)| share.write(partition, end, &mut commit))
        };
        for (offset, payload) in self.log.iter().filter(|(offset, _)| *offset >= start.max(self.begin)) {
            share.come_to(0, *offset);
            let due = share.due();
            settle(&mut share, due)?;
            share.take(0, *offset, Some(payload));
            let due = share.due();
            settle(&mut share, due)?;
        }
        let all = share.all();
        settle(&mut share, all)
    }

    /// A former owner wakes up, and its files reach the store now.
    fn wake(&self, (first, end): (i64, i64)) {
        let of_chunk = self.log.iter().filter(|(offset, _)| (first..end).contains(offset));
        let rows = of_chunk.map(|(_, payload)| row(Some(payload)).expect("an entry")).collect();
        let chunk = LedgerChunk { partition: 0, first_offset: first, last_offset: end - 1, rows };
        self.runtime.block_on(self.ledger().write(chunk)).expect("memory takes all");
    }

    /// A file whose end was not committed before could have been overtaken by one that was cut
    /// elsewhere.
    #[track_caller]
    fn expect_announced(&self) {
        let files = self.runtime.block_on(self.store.list(None).try_collect::<Vec<_>>()).expect("a listing");
        for file in files {
            let name = file.location.filename().expect("a name").to_owned();
            let announced = self.cuts.iter().any(|(first, _)| name == format!("0-{first:020}.parquet"));
            assert!(announced, "{name} is not one of {:?}", self.cuts);
        }
    }

    /// The transitions of all entries in all files.
    fn stored(&self) -> Vec<i64> {
        let read = async {
            let files: Vec<ObjectMeta> = self.store.list(None).try_collect().await.expect("a listing");
            let mut stored = Vec::new();
            for file in files {
                let bytes =
                    self.store.get(&file.location).await.expect("a file").bytes().await.expect("bytes");
                let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("a reader");
                for batch in reader.build().expect("a reader") {
                    let batch = batch.expect("rows");
                    let ids = batch.column_by_name("transition").expect("a column").as_string::<i32>();
                    stored.extend(ids.iter().map(|id| id.expect("set").parse::<i64>().expect("a number")));
                }
            }
            stored
        };
        let mut stored = self.runtime.block_on(read);
        stored.sort_unstable();
        stored
    }

    #[track_caller]
    fn expect_all(&self, what: &str) {
        assert_eq!(self.stored(), (0..self.log.len() as i64).collect::<Vec<_>>(), "{what}");
    }
}

fn payload(number: i64) -> Vec<u8> {
    let entry = Entry {
        at: number * 3 * HOUR,
        transition: Some(number.to_string()),
        dispatch: None,
        rule: "cpu_high".to_owned(),
        labels: [("host".to_owned(), "a".to_owned())].into(),
        incident: "i".to_owned(),
        what: What::EndedUntold,
        receiver: Some("oncall".to_owned()),
        by: None,
        reason: None,
    };
    serde_json::to_vec(&entry).expect("JSON")
}

#[test]
fn each_entry_is_stored_once_whenever_an_owner_crashes_and_whenever_it_wakes_up() {
    for crash in 0..8 {
        for is_through in [false, true] {
            let what = format!("commit {crash}, through {is_through}");
            let mut bench = Bench::new(24);
            let crashed = bench.own(7, Some((crash, is_through)));
            assert!(crashed.is_err(), "{what}: the owner made fewer commits");
            // The next one is quicker to cut, and crashes as well; the last one cuts once.
            let _ = bench.own(2, Some((3, true)));
            bench.own(1_000, None).expect(&what);
            bench.expect_all(&what);
            bench.expect_announced();
            for cut in bench.cuts.clone() {
                bench.wake(cut);
                bench.expect_all(&what);
            }
        }
    }
}

#[test]
fn without_a_commit_the_files_say_how_far_they_go() {
    let mut bench = Bench::new(24);
    bench.own(7, None).expect("an end in order");
    let end = bench.committed.clone().expect("a commit").0;
    // The group has expired, or somebody has set the offset back; the newest chunk lacks a file, or
    // not.
    for committed in [None, Some((0, String::new())), Some((12, String::new()))] {
        for lacks in [false, true] {
            bench.committed.clone_from(&committed);
            if lacks {
                let newest = bench
                    .runtime
                    .block_on(bench.store.list(None).try_collect::<Vec<_>>())
                    .expect("a listing");
                let newest =
                    newest.into_iter().max_by_key(|file| file.location.filename().map(str::to_owned));
                let newest = newest.expect("there are files").location;
                bench.runtime.block_on(bench.store.delete(&newest)).expect("it is there");
                assert!(bench.stored().len() < 24);
            }
            bench.own(2, None).expect("an end in order");
            bench.expect_all(&format!("{committed:?}, lacks {lacks}"));
            assert_eq!(bench.committed, Some((end, format!("archive={end}"))));
        }
    }
}

#[test]
fn entries_that_the_log_has_lost_stay_in_their_files() {
    let mut bench = Bench::new(24);
    bench.own(7, Some((4, true))).expect_err("it crashes");
    // A chunk was cut, its files were written, and the owner was gone before it could commit it.
    let cut = *bench.cuts.last().expect("a cut");
    bench.wake(cut);
    bench.begin = cut.0 + 6;
    bench.own(1_000, None).expect("an end in order");
    bench.expect_all("after retention");
}

#[test]
fn a_topic_that_was_made_anew_is_refused() {
    let mut bench = Bench::new(24);
    bench.own(7, None).expect("an end in order");
    for committed in [bench.committed.clone(), None] {
        let mut bench =
            Bench { log: vec![(0, payload(0))], committed, store: bench.store.clone(), ..Bench::new(0) };
        let error = bench.own(7, None).expect_err("the log is shorter than the files").to_string();
        assert!(error.contains("was created again"), "{error}");
        assert_eq!(bench.stored().len(), 24);
    }
}

#[test]
fn what_is_no_entry_costs_no_neighbour_and_what_is_not_known_yet_is_kept() {
    let mut bench = Bench::new(3);
    bench.log[1].1 = b"{".to_vec();
    let newer = String::from_utf8(payload(2)).expect("text").replace("ended_untold", "pondered");
    bench.log[2].1 = newer.into_bytes();
    bench.own(2, None).expect("an end in order");
    assert_eq!(bench.stored(), [0, 2]);
    assert_eq!(row(Some(&bench.log[2].1)).expect("an entry").what, "pondered");
}
