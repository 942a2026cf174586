//! Owners that take over from each other on one directory. A directory whose place is taken by a
//! file is storage that is away: whatever is written meanwhile waits, and lands when it is back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use points::decode::{DecodeOptions, Decoder};
use sinks::parquet::{CompactOptions, RawCompactor};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::clock::Clock;
use crate::config::Config;

/// Ends a test that has failed.
const LIMIT: Duration = Duration::from_secs(60);

struct Bench {
    folder: TempDir,
    runtime: Runtime,
    clock: Clock,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder, runtime: Runtime::new().unwrap(), clock: Clock::manual(0) }
    }

    fn storage(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The storage's place, while it is away.
    fn away(&self) -> PathBuf {
        self.folder.path().join("away")
    }

    fn take_away(&self) {
        fs::rename(self.storage(), self.away()).unwrap();
        fs::write(self.storage(), "in the way").unwrap();
    }

    fn bring_back(&self) {
        fs::remove_file(self.storage()).unwrap();
        fs::rename(self.away(), self.storage()).unwrap();
    }

    /// An owner with storage in this place, that took over what was committed.
    fn owner(&self, storage: &Path, committed: Option<(i64, &str)>) -> Owner {
        let mut config = Config::local("127.0.0.1:1", storage);
        config.archive.roll_size = 20 * POINT_BYTES;
        let catalog = Arc::new(operators::sql::compile(&[]));
        let runtime = self.runtime.handle().clone();
        let context = Context { clock: self.clock.clone(), ..Context::new(config, catalog, runtime) };
        let mut archive = Archive::new(&context).unwrap();
        let assigned = assigned(committed);
        let next = archive.assigned(&assigned).unwrap();
        let decoder = Decoder::new(DecodeOptions::default(), Vec::new());
        Owner { archive, decoder, source: assigned.source(), next }
    }

    /// How often each value is stored, by another reader than the one of the program.
    fn stored(&self) -> BTreeMap<i64, usize> {
        let mut values = BTreeMap::new();
        let mut folders = vec![self.storage()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "parquet") {
                    let file = SerializedFileReader::new(fs::File::open(path).unwrap()).unwrap();
                    for row in file.get_row_iter(None).unwrap() {
                        *values.entry(row.unwrap().get_double(3).unwrap() as i64).or_default() += 1;
                    }
                }
            }
        }
        values
    }
}

/// The partition, as it is found after this was committed.
fn assigned(committed: Option<(i64, &str)>) -> Assigned {
    Assigned {
        topic: "points".into(),
        partition: 0,
        offset: committed.map(|(offset, _)| offset),
        metadata: committed.map_or_else(String::new, |(_, text)| text.to_owned()),
        log: (0, 1_000),
    }
}

struct Owner {
    archive: Archive,
    decoder: Decoder,
    source: Source,
    next: i64,
}

impl Owner {
    /// Reads messages up to `end`, a point each whose value is its offset; every third one is of
    /// another hour.
    fn read(&mut self, end: i64) {
        while self.next < end {
            let until = self.archive.next_cut(&self.source).map_or(end, |cut| cut.min(end));
            let mut points = Points::default();
            for offset in self.next..until {
                let time = 1_700_000_000 + offset % 3 * 3_600;
                let text = format!(r#"{{"name":"cpu","ts":{time},"value":{offset}}}"#);
                self.decoder.decode(text.as_bytes(), None, i64::MAX, &mut points, &mut Vec::new());
            }
            self.next = until;
            self.archive.append(&self.source, &points, until);
            if self.archive.next_cut(&self.source) == Some(until) {
                self.archive.cut_again(&self.source, self.decoder.series()).unwrap();
            }
        }
    }

    /// Ends an epoch, and returns the text that is committed with it.
    fn commit(&mut self) -> String {
        self.archive.cut_due(self.decoder.series()).unwrap();
        let text = self.archive.submit(&self.source).unwrap();
        self.archive.committed().unwrap();
        text
    }

    /// Ends epochs until the text is this one.
    fn commit_until(&mut self, expected: &str) {
        let started = Instant::now();
        loop {
            let text = self.commit();
            if text == expected {
                return;
            }
            assert!(started.elapsed() < LIMIT, "{text} instead of {expected}");
            std::thread::yield_now();
        }
    }
}

fn once(values: std::ops::Range<i64>) -> BTreeMap<i64, usize> {
    values.map(|value| (value, 1)).collect()
}

#[test]
fn no_file_is_written_before_its_end_is_committed() {
    let bench = Bench::new();
    let mut owner = bench.owner(&bench.storage(), None);
    owner.read(25);
    owner.archive.cut_due(owner.decoder.series()).unwrap();
    assert_eq!(owner.archive.submit(&owner.source).unwrap(), "archive=0,25");
    owner.archive.drain(Duration::ZERO).unwrap();
    assert_eq!(bench.stored(), BTreeMap::new());
    owner.commit_until("archive=25");
    assert_eq!(bench.stored(), once(0..25));
}

#[test]
fn files_of_a_former_owner_that_come_late_change_nothing() {
    let bench = Bench::new();
    let mut first = bench.owner(&bench.storage(), None);
    first.read(25);
    // From here on nothing of the first owner reaches storage, though it got the answer that its
    // commit is there.
    bench.take_away();
    assert_eq!(first.commit(), "archive=0,25");
    first.read(40);

    let away = bench.away();
    let mut second = bench.owner(&away, Some((33, "archive=0,25")));
    assert_eq!(second.next, 0);
    second.read(30);
    second.read(70);
    second.commit_until("archive=70");
    let written = |storage: &Path| fs::metadata(first_file(storage)).unwrap().modified().unwrap();
    let before = written(&away);
    bench.bring_back();

    // What it had on its way arrives; nothing more, since no commit of it is taken any more.
    let started = Instant::now();
    while first.archive.submit(&first.source).unwrap() != "archive=25" {
        assert!(started.elapsed() < LIMIT, "nothing was written again");
        std::thread::yield_now();
    }
    assert!(written(&bench.storage()) > before);
    assert_eq!(bench.stored(), once(0..70));
}

/// A file of the chunk that starts at offset 0.
fn first_file(storage: &Path) -> PathBuf {
    storage.join("raw/date=2023-11-14/hour=22/points-0-00000000000000000000.parquet")
}

#[test]
fn storage_that_is_away_stops_nothing_until_memory_is_full() {
    let bench = Bench::new();
    let mut owner = bench.owner(&bench.storage(), None);
    bench.take_away();
    owner.read(20);
    assert_eq!(owner.commit(), "archive=0,20");
    assert!(!owner.archive.is_full());
    owner.read(60);
    assert_eq!(owner.commit(), "archive=0,20", "one chunk is on its way, the next one grows");
    assert!(!owner.archive.is_full());
    owner.read(100);
    assert!(owner.archive.is_full());
    bench.bring_back();
    owner.commit_until("archive=100");
    assert!(!owner.archive.is_full());
    assert_eq!(bench.stored(), once(0..100));
}

#[test]
fn a_set_back_offset_stores_each_point_once() {
    let bench = Bench::new();
    let mut owner = bench.owner(&bench.storage(), None);
    owner.read(20);
    owner.commit_until("archive=20");
    owner.read(50);
    owner.commit_until("archive=50");
    // The tools of Kafka set an offset without a text.
    let mut next = bench.owner(&bench.storage(), Some((20, "")));
    assert_eq!((next.next, bench.stored()), (20, once(0..20)));
    next.read(60);
    next.commit_until("archive=60");
    assert_eq!(bench.stored(), once(0..60));
}

#[test]
fn an_offset_set_back_into_the_middle_of_a_file_stores_each_point_once() {
    let bench = Bench::new();
    let mut owner = bench.owner(&bench.storage(), None);
    owner.read(30);
    owner.commit_until("archive=30");
    owner.read(60);
    owner.commit_until("archive=60");
    let mut next = bench.owner(&bench.storage(), Some((20, "")));
    assert_eq!(
        (next.next, bench.stored()),
        (0, once(0..30)),
        "the first file is written again, and stays until then"
    );
    next.read(20);
    // Killed here, with nothing committed, the next owner finds the same.
    let mut next = bench.owner(&bench.storage(), Some((20, "")));
    next.read(55);
    next.commit_until("archive=55");
    assert_eq!(bench.stored(), once(0..55));

    let mut late = assigned(Some((20, "")));
    late.log.0 = 10;
    let error = next.archive.assigned(&late).unwrap_err().to_string();
    assert!(error.contains("up to 30 in a file that starts before the log"), "{error}");
    assert_eq!(bench.stored(), once(0..55));
}

#[test]
fn an_offset_set_back_below_compacted_points_is_refused() {
    let bench = Bench::new();
    let mut owner = bench.owner(&bench.storage(), None);
    for end in [30, 60, 90] {
        owner.read(end);
        owner.commit_until(&format!("archive={end}"));
    }
    let (store, prefix) = sinks::parquet::store::open(bench.storage().to_str().unwrap()).unwrap();
    let compactor = RawCompactor::new(store, prefix);
    let options = CompactOptions { until: i64::MAX, now: i64::MAX, grace: Duration::ZERO, dry_run: false };
    let safe = [(("points".to_owned(), 0), 60)].into();
    for _ in 0..3 {
        bench.runtime.block_on(compactor.pass(&safe, options, &|_| {})).unwrap();
    }
    let before = bench.stored();
    let error = owner.archive.assigned(&assigned(Some((45, "")))).unwrap_err().to_string();
    assert!(error.contains("set the group `tidemark-ingest` to 60 or later"), "{error}");
    assert_eq!((&before, &once(0..90)), (&bench.stored(), &before));

    let mut next = bench.owner(&bench.storage(), Some((60, "")));
    next.read(80);
    next.commit_until("archive=80");
    assert_eq!(bench.stored(), once(0..80));
}

#[test]
fn files_that_no_commit_explains_are_refused() {
    let bench = Bench::new();
    let mut owner = bench.owner(&bench.storage(), None);
    owner.read(20);
    owner.commit_until("archive=20");
    let error = owner.archive.assigned(&assigned(None)).unwrap_err();
    assert!(error.to_string().contains("has no committed offset to go on from"), "{error}");
    assert_eq!(bench.stored(), once(0..20));
}
