//! Crashes after every operation on the store, in every state of an hour: each point is counted
//! once, always.

use object_store::memory::InMemory;

use super::*;
use crate::parquet::failing_store::FailingStore;
use crate::parquet::live::{Hours, live_files};
use crate::parquet::points::tests::{Row, points, read, shown};
use crate::parquet::{RawArchive, RawChunk};

const HOUR: i64 = live::HOUR;
const MINUTE: i64 = HOUR / 60;

fn chunk(partition: i32, first_offset: i64, times: &[i64]) -> RawChunk {
    let labels: &[(&str, &str)] = &[("host", "a")];
    let rows: Vec<Row<'_>> = times.iter().map(|time| ("cpu", labels, *time, *time as f64)).collect();
    RawChunk {
        topic: "points".into(),
        partition,
        first_offset,
        last_offset: first_offset + times.len() as i64 - 1,
        points: points(&rows),
    }
}

/// Two hours of two partitions; the last chunk of each partition is beyond the safe offset.
async fn filled() -> Arc<InMemory> {
    let store = Arc::new(InMemory::new());
    let archive = RawArchive::new(store.clone(), Path::default());
    for partition in [0, 1] {
        let at = i64::from(partition);
        for (first, times) in [
            (0, vec![at, MINUTE + at, HOUR + at]),
            (3, vec![2 * MINUTE + at, HOUR + MINUTE + at]),
            (5, vec![3 * MINUTE + at]),
            (6, vec![4 * MINUTE + at, HOUR + 2 * MINUTE + at]),
        ] {
            archive.write(chunk(partition, first, &times)).await.unwrap();
        }
    }
    store
}

fn safe(offset: i64) -> SafeOffsets {
    [0, 1].into_iter().map(|partition| (("points".to_owned(), partition), offset)).collect()
}

/// Every grace is over.
fn options() -> CompactOptions {
    CompactOptions { until: i64::MAX, now: i64::MAX, grace: Duration::ZERO, dry_run: false }
}

async fn pass(store: Arc<dyn ObjectStore>, safe: &SafeOffsets) -> Result<Compaction, Error> {
    RawCompactor::new(store, Path::default()).pass(safe, options(), &|_| {}).await
}

async fn copy(store: &InMemory) -> Arc<InMemory> {
    let copy = Arc::new(InMemory::new());
    for path in paths(store).await {
        let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
        copy.put(&path, bytes.into()).await.unwrap();
    }
    copy
}

async fn paths(store: &InMemory) -> Vec<Path> {
    let mut paths: Vec<Path> = store.list(None).map_ok(|file| file.location).try_collect().await.unwrap();
    paths.sort();
    paths
}

async fn points_in(store: &InMemory, paths: impl IntoIterator<Item = Path>) -> Vec<String> {
    let mut all = Vec::new();
    for path in paths {
        all.extend(shown(&read(store.get(&path).await.unwrap().bytes().await.unwrap().to_vec())));
    }
    all.sort();
    all
}

async fn live(store: &Arc<InMemory>) -> Hours {
    let store: Arc<dyn ObjectStore> = store.clone();
    live_files(&store, &Path::default(), None).await.unwrap()
}

/// What `tidemark query` counts.
async fn seen(store: &Arc<InMemory>) -> Vec<String> {
    let files = live(store).await.into_values().flatten().map(|file| file.location);
    points_in(store, files).await
}

/// What a reader of `raw/**/*.parquet` counts.
async fn seen_by_others(store: &Arc<InMemory>) -> Vec<String> {
    let files = paths(store).await.into_iter().filter(|path| path.extension() == Some("parquet"));
    points_in(store, files).await
}

#[tokio::test]
async fn each_point_counts_once_after_a_crash_at_any_operation() {
    let original = filled().await;
    let expected = seen(&original).await;
    assert_eq!(expected.len(), 16);
    let mut crashes = 0;
    for allowed in 0.. {
        let store = copy(&original).await;
        let failing = Arc::new(FailingStore::new(store.clone(), allowed));
        let archive = RawArchive::new(store.clone(), Path::default());
        let mut crashed = false;
        let mut more = expected.clone();
        // Two generations: staged, published, cleaned up, then late points, and the same again.
        for round in 0..6 {
            if round == 3 {
                archive.write(chunk(0, 8, &[5 * MINUTE, HOUR + 5 * MINUTE])).await.unwrap();
                more = seen(&store).await;
                assert_eq!(more.len(), 18);
            }
            let safe = safe(if round < 3 { 6 } else { 10 });
            crashed |= pass(failing.clone(), &safe).await.is_err();
            assert_eq!(seen(&store).await, more, "after {allowed} operations, round {round}");
            let others = seen_by_others(&store).await;
            let mut once = others.clone();
            once.dedup();
            assert_eq!(once, more, "nobody misses a point, after {allowed} operations");
        }
        // The next run goes on where this one was cut.
        for _ in 0..6 {
            pass(store.clone(), &safe(10)).await.unwrap();
        }
        assert_eq!(seen(&store).await, more);
        assert_eq!(seen_by_others(&store).await, more, "after the last run nothing is there twice");
        let left = paths(&store).await;
        assert_eq!(left.len(), 2, "one file an hour, and nothing else: {left:?}");
        if !crashed {
            break;
        }
        crashes += 1;
    }
    assert!(crashes > 50, "{crashes} crashes");
}

#[tokio::test]
async fn chunks_beyond_the_safe_offset_are_left_to_their_owner() {
    let store = filled().await;
    for _ in 0..3 {
        pass(store.clone(), &safe(6)).await.unwrap();
    }
    let names: Vec<String> =
        paths(&store).await.iter().map(|path| path.filename().unwrap().to_owned()).collect();
    let unsafe_chunks = names.iter().filter(|name| name.starts_with("points-")).count();
    assert_eq!((unsafe_chunks, names.len()), (4, 6), "{names:?}");
    // A take-over deletes them and writes them again, cut elsewhere.
    let expected = seen(&store).await;
    let archive = RawArchive::new(store.clone(), Path::default());
    for partition in [0, 1] {
        assert_eq!(archive.delete_from("points", partition, 6).await.unwrap(), 2);
        let at = i64::from(partition);
        archive.write(chunk(partition, 6, &[4 * MINUTE + at])).await.unwrap();
        archive.write(chunk(partition, 7, &[HOUR + 2 * MINUTE + at])).await.unwrap();
    }
    assert_eq!(seen(&store).await, expected);
}

#[tokio::test]
async fn readers_that_listed_before_find_their_files_until_the_grace_is_over() {
    let store = filled().await;
    let before = live(&store).await;
    let waiting = CompactOptions { now: 0, grace: Duration::from_secs(60), ..options() };
    let compactor = RawCompactor::new(store.clone(), Path::default());
    let expected = seen(&store).await;
    for _ in 0..3 {
        compactor.pass(&safe(6), waiting, &|_| {}).await.unwrap();
        let listed = before.clone().into_values().flatten().map(|file| file.location);
        assert_eq!(points_in(&store, listed).await, expected);
        assert_eq!(seen(&store).await, expected);
        assert_eq!(seen_by_others(&store).await, expected, "what is staged is not seen by others");
    }
    let staged = live(&store).await;
    pass(store.clone(), &safe(6)).await.unwrap();
    let listed = staged.into_values().flatten().map(|file| file.location);
    assert_eq!(points_in(&store, listed).await, expected, "the staged copy outlives its publication");
}

#[tokio::test]
async fn compactors_that_know_different_safe_offsets_give_way_to_each_other() {
    let store = filled().await;
    let expected = seen(&store).await;
    // Both have listed before either puts: the store is asked through a copy of the names.
    let folder = hour_folder(&Path::from("raw"), 0);
    let hour = HourFiles::list(&store, &folder).await.unwrap();
    let compactor = RawCompactor::new(store.clone(), Path::default());
    let first = compactor.step_of(&folder, &hour, &safe(6), options()).await.unwrap();
    let second = compactor.step_of(&folder, &hour, &safe(8), options()).await.unwrap();
    assert!(matches!(first, Step::Staged { .. }) && matches!(second, Step::Contended));
    assert_eq!(seen(&store).await, expected);
    // And one that wakes up when all is done.
    for _ in 0..6 {
        pass(store.clone(), &safe(8)).await.unwrap();
    }
    let error = compactor.step_of(&folder, &hour, &safe(6), options()).await.err().unwrap();
    assert!(live::is_missing(&error), "{error}");
    assert_eq!(seen(&store).await, expected);
    for _ in 0..3 {
        pass(store.clone(), &safe(8)).await.unwrap();
    }
    assert_eq!(seen_by_others(&store).await, expected);
}

#[tokio::test]
async fn a_chunk_that_comes_back_does_not_count_again() {
    let store = filled().await;
    let expected = seen(&store).await;
    for _ in 0..3 {
        pass(store.clone(), &safe(8)).await.unwrap();
    }
    let archive = RawArchive::new(store.clone(), Path::default());
    archive.write(chunk(0, 3, &[2 * MINUTE, HOUR + MINUTE])).await.unwrap();
    assert_eq!(seen(&store).await, expected);
    pass(store.clone(), &safe(8)).await.unwrap();
    assert_eq!(seen_by_others(&store).await, expected, "the next pass removes it");
}

#[tokio::test]
async fn contradictions_are_left_as_they_are() {
    let store = filled().await;
    let archive = RawArchive::new(store.clone(), Path::default());
    archive.write(chunk(0, 2, &[HOUR, 2 * HOUR])).await.unwrap();
    let done = pass(store.clone(), &safe(6)).await.unwrap();
    assert_eq!((done.staged, done.refused), (1, 1), "the hour with offset 2 and 3 twice stays");
}

#[tokio::test]
async fn a_chunk_of_which_a_part_is_compacted_is_an_error_and_stays() {
    let store = filled().await;
    for _ in 0..3 {
        pass(store.clone(), &safe(6)).await.unwrap();
    }
    let archive = RawArchive::new(store.clone(), Path::default());
    // Someone set the offset back to 4 and cut elsewhere; the chunk of offset 6 was compacted up to
    // there.
    archive.write(chunk(0, 4, &[MINUTE, 2 * MINUTE, 3 * MINUTE, 4 * MINUTE])).await.unwrap();
    let before = paths(&store).await;
    let read: Arc<dyn ObjectStore> = store.clone();
    let error = live_files(&read, &Path::default(), None).await.unwrap_err().to_string();
    assert!(error.contains("offsets 4 to 7, of which those below 6"), "{error}");
    let done = pass(store.clone(), &safe(8)).await.unwrap();
    assert_eq!(done.refused, 1, "the other hour goes on");
    assert!(
        before.iter().all(|path| path.as_ref().contains("hour=01") || store_has(&store, path)),
        "{before:?}"
    );
}

/// Whether a file is there.
fn store_has(store: &InMemory, path: &Path) -> bool {
    futures::executor::block_on(store.head(path)).is_ok()
}

#[tokio::test]
async fn the_archive_knows_whose_points_were_compacted() {
    let store = filled().await;
    for _ in 0..3 {
        pass(store.clone(), &safe(8)).await.unwrap();
    }
    let archive = RawArchive::new(store.clone(), Path::default());
    assert!(archive.has_files("points", 0).await.unwrap());
    assert!(!archive.has_files("points", 7).await.unwrap());
    assert!(!archive.has_files("other", 0).await.unwrap());
    assert_eq!(archive.compacted_until("points", 1).await.unwrap(), Some(8));
}
