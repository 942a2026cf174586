//! The archive of raw points:
//! `raw/date=YYYY-MM-DD/hour=HH/<topic>-<partition>-<first offset>.parquet`, by event hour.
//!
//! A chunk is what one source partition delivered from one offset to another. It becomes one file
//! for each hour that it has points of, all named after its first offset. The same chunk always
//! becomes the same files, row by row: so it may be written any number of times, by any number of
//! processes, and each point is stored once. It is for the caller to remember where it cut, before
//! it writes.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use parquet::file::metadata::KeyValue;
use tokio::sync::Semaphore;
use tracing::{debug, info};

use super::by_series::PointsBySeries;
use super::points::{self, WRITER};
use crate::Error;
use crate::timestamp::time;

/// Files of a chunk that are encoded and stored at once: enough to hide the store's latency, few
/// enough to bound the memory.
const CONCURRENT_PUTS: usize = 4;

/// Chunks that are sorted or encoded at once, which bounds their memory as well.
pub const WORKERS: usize = 2;

/// Days that are listed at once when files are looked for.
const CONCURRENT_LISTS: usize = 8;

/// Raw points under `raw/` of a store.
#[derive(Debug, Clone)]
pub struct RawArchive {
    store: Arc<dyn ObjectStore>,
    root: Path,
    workers: Arc<Semaphore>,
}

/// All accepted points of consecutive offsets of one source partition.
#[derive(Debug, Clone)]
pub struct RawChunk {
    pub topic: String,
    pub partition: i32,
    pub first_offset: i64,
    /// Inclusive.
    pub last_offset: i64,
    pub points: PointsBySeries,
}

/// What a chunk became.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    pub files: usize,
    pub bytes: u64,
    pub rows: u64,
}

impl RawArchive {
    /// Files go to `<prefix>/raw/`.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: Path) -> Self {
        Self { store, root: prefix.join("raw"), workers: Arc::new(Semaphore::new(WORKERS)) }
    }

    /// Stores a chunk; Ok means that all of its files are durable. On an error some may be: write
    /// the same chunk again.
    pub async fn write(&self, chunk: RawChunk) -> Result<Written, Error> {
        let chunk = Arc::new(chunk);
        let sorting = chunk.clone();
        let hours = self.work(move || Ok(sorting.points.by_hour())).await?;
        let mut files = stream::iter(hours.into_iter().map(|(hour, rows)| self.put(&chunk, hour, rows)))
            .buffer_unordered(CONCURRENT_PUTS);
        let mut written = Written::default();
        while let Some(file) = files.next().await {
            let file = file?;
            written.files += file.files;
            written.bytes += file.bytes;
            written.rows += file.rows;
        }
        Ok(written)
    }

    /// Deletes the files of `topic` and `partition` whose first offset is `offset` or higher, and
    /// returns how many there were: for offsets that someone has set back, whose chunks will be cut
    /// elsewhere. Lists the whole archive, as points of any hour can arrive late.
    pub async fn delete_from(&self, topic: &str, partition: i32, offset: i64) -> Result<usize, Error> {
        let doomed = self.files_from(topic, partition, offset).await?;
        let count = doomed.len();
        let deleted = self.store.delete_stream(stream::iter(doomed.into_iter().map(Ok)).boxed());
        deleted
            .filter(|result| {
                // Deleted by someone else is deleted as well.
                std::future::ready(!matches!(result, Err(object_store::Error::NotFound { .. })))
            })
            .try_for_each(|path| {
                debug!(%path, "deleted raw file");
                std::future::ready(Ok(()))
            })
            .await?;
        if count > 0 {
            info!(topic, partition, offset, files = count, "deleted raw files past the safe offset");
        }
        Ok(count)
    }

    /// Whether any file of `topic` and `partition` is there. Lists the whole archive.
    pub async fn has_files(&self, topic: &str, partition: i32) -> Result<bool, Error> {
        let has_chunks = !self.files_from(topic, partition, 0).await?.is_empty();
        Ok(has_chunks || self.compacted_until(topic, partition).await?.is_some())
    }

    /// The offset below which compaction has merged points of `topic` and `partition`, none where
    /// it has not. Offsets must not be set back below it: their points cannot be taken out again.
    /// Lists the whole archive.
    pub async fn compacted_until(&self, topic: &str, partition: i32) -> Result<Option<i64>, Error> {
        super::compact::covered_until(&self.store, &self.root, topic, partition).await
    }

    /// The chunk of `topic` and `partition` that starts before `offset` and goes on after it, as
    /// its first offset and the one after its last. Looks only at chunks that were not compacted.
    /// Lists the whole archive.
    pub async fn chunk_across(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<Option<(i64, i64)>, Error> {
        let files = self.files(topic, partition).await?;
        // Chunks follow each other: only the last one that starts before can reach so far.
        let before = files.into_iter().filter(|(first, _)| *first < offset).max_by_key(|(first, _)| *first);
        let Some((first, file)) = before else { return Ok(None) };
        let origin = super::live::origin(&self.store, &file).await?;
        Ok(origin.filter(|origin| origin.last_offset >= offset).map(|origin| (first, origin.last_offset + 1)))
    }

    async fn files_from(&self, topic: &str, partition: i32, offset: i64) -> Result<Vec<Path>, Error> {
        let files = self.files(topic, partition).await?.into_iter();
        Ok(files.filter(|(first, _)| *first >= offset).map(|(_, file)| file.location).collect())
    }

    /// The chunks' files of a partition, with their first offsets.
    async fn files(&self, topic: &str, partition: i32) -> Result<Vec<(i64, ObjectMeta)>, Error> {
        let days = self.store.list_with_delimiter(Some(&self.root)).await?.common_prefixes;
        stream::iter(days)
            .map(|day| self.store.list(Some(&day)))
            .flatten_unordered(CONCURRENT_LISTS)
            .try_filter_map(|file| {
                let name = FileName::parse(&file.location);
                let wanted = name.filter(|name| name.topic == topic && name.partition == partition);
                let first_offset = wanted.map(|name| name.first_offset);
                std::future::ready(Ok(first_offset.map(|first| (first, file))))
            })
            .try_collect()
            .await
            .map_err(Error::from)
    }

    async fn put(&self, chunk: &Arc<RawChunk>, hour: i64, rows: Vec<u32>) -> Result<Written, Error> {
        let count = rows.len() as u64;
        let metadata = metadata(chunk, count);
        let encoding = Arc::clone(chunk);
        let bytes = self.work(move || points::encode(&encoding.points, &rows, metadata)).await?;
        let written = Written { files: 1, bytes: bytes.len() as u64, rows: count };
        self.store.put(&self.path(chunk, hour), bytes.into()).await?;
        Ok(written)
    }

    /// Sorts or encodes, as soon as not too many others do.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let _permit = self.workers.acquire().await.expect("the semaphore is never closed");
        blocking(work).await
    }

    fn path(&self, chunk: &RawChunk, hour: i64) -> Path {
        let hour = time(hour);
        self.root
            .clone()
            .join(format!("date={}", hour.format("%Y-%m-%d")))
            .join(format!("hour={}", hour.format("%H")))
            .join(format!("{}-{}-{:020}.parquet", chunk.topic, chunk.partition, chunk.first_offset))
    }
}

/// The parts of `<topic>-<partition>-<first offset>.parquet`. Topics may contain `-`.
#[derive(Debug, PartialEq)]
struct FileName<'a> {
    topic: &'a str,
    partition: i32,
    first_offset: i64,
}

impl<'a> FileName<'a> {
    fn parse(path: &'a Path) -> Option<Self> {
        let (rest, first_offset) = path.filename()?.strip_suffix(".parquet")?.rsplit_once('-')?;
        let (topic, partition) = rest.rsplit_once('-')?;
        Some(Self { topic, partition: partition.parse().ok()?, first_offset: first_offset.parse().ok()? })
    }
}

fn metadata(chunk: &RawChunk, rows: u64) -> Vec<KeyValue> {
    let entry = |key: &str, value: String| KeyValue::new(format!("tidemark.{key}"), Some(value));
    vec![
        entry("topic", chunk.topic.clone()),
        entry("partition", chunk.partition.to_string()),
        entry("first_offset", chunk.first_offset.to_string()),
        entry("last_offset", chunk.last_offset.to_string()),
        entry("rows", rows.to_string()),
        entry("writer", WRITER.to_owned()),
    ]
}

/// Sorting and encoding take many milliseconds: they must not hold up other tasks.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use parquet::file::reader::{FileReader, SerializedFileReader};

    use super::*;
    use crate::parquet::live::HOUR;
    use crate::parquet::points::tests::{Row, points, read, shown};

    fn chunk(topic: &str, partition: i32, first_offset: i64, times: &[i64]) -> RawChunk {
        let rows: Vec<Row<'_>> =
            times.iter().map(|time| ("cpu", [("host", "a")].as_slice(), *time, *time as f64)).collect();
        RawChunk {
            topic: topic.into(),
            partition,
            first_offset,
            last_offset: first_offset + times.len() as i64 - 1,
            points: points(&rows),
        }
    }

    async fn paths(store: &InMemory) -> Vec<String> {
        let mut paths: Vec<String> =
            store.list(None).map_ok(|file| file.location.to_string()).try_collect().await.unwrap();
        paths.sort();
        paths
    }

    async fn all_points(store: &InMemory) -> Vec<String> {
        let mut all = Vec::new();
        for path in paths(store).await {
            let bytes = store.get(&Path::from(path)).await.unwrap().bytes().await.unwrap();
            all.extend(shown(&read(bytes.to_vec())));
        }
        all.sort();
        all
    }

    #[tokio::test]
    async fn a_chunk_becomes_one_file_for_each_hour() {
        let store = Arc::new(InMemory::new());
        let archive = RawArchive::new(store.clone(), Path::from("cold"));
        let written = archive.write(chunk("points", 3, 42, &[HOUR, 25 * HOUR, HOUR + 1])).await.unwrap();
        assert_eq!((written.files, written.rows), (2, 3));
        assert_eq!(
            paths(&store).await,
            [
                "cold/raw/date=1970-01-01/hour=01/points-3-00000000000000000042.parquet",
                "cold/raw/date=1970-01-02/hour=01/points-3-00000000000000000042.parquet",
            ]
        );
        let path = Path::from(paths(&store).await.remove(0));
        let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
        let file = SerializedFileReader::new(bytes).unwrap();
        let metadata = file.metadata().file_metadata().key_value_metadata().unwrap();
        let shown: Vec<_> =
            metadata.iter().map(|pair| format!("{}={}", pair.key, pair.value.as_deref().unwrap())).collect();
        assert_eq!(
            shown,
            [
                "tidemark.topic=points",
                "tidemark.partition=3",
                "tidemark.first_offset=42",
                "tidemark.last_offset=44",
                "tidemark.rows=2",
                &format!("tidemark.writer={WRITER}"),
            ]
        );
    }

    #[tokio::test]
    async fn offsets_that_were_set_back_store_each_point_once() {
        let store = Arc::new(InMemory::new());
        let archive = RawArchive::new(store.clone(), Path::default());
        let (safe, unsafe_chunk) = ([HOUR, 2 * HOUR], [3 * HOUR, 90 * HOUR, 4 * HOUR]);
        archive.write(chunk("points", 0, 0, &safe)).await.unwrap();
        archive.write(chunk("points", 0, 2, &unsafe_chunk)).await.unwrap();
        // Neighbours whose names are alike stay.
        archive.write(chunk("points", 1, 7, &[5 * HOUR])).await.unwrap();
        archive.write(chunk("points-0", 0, 7, &[6 * HOUR])).await.unwrap();
        let before = all_points(&store).await;

        assert_eq!(archive.delete_from("points", 0, 2).await.unwrap(), 3);
        assert_eq!(archive.delete_from("points", 0, 2).await.unwrap(), 0);
        // The new owner cuts its chunks elsewhere.
        archive.write(chunk("points", 0, 2, &unsafe_chunk[..1])).await.unwrap();
        archive.write(chunk("points", 0, 3, &unsafe_chunk[1..])).await.unwrap();
        assert_eq!(all_points(&store).await, before);
    }

    #[tokio::test]
    async fn writing_the_same_chunk_again_changes_nothing() {
        let store = Arc::new(InMemory::new());
        let archive = RawArchive::new(store.clone(), Path::default());
        for _ in 0..2 {
            archive.write(chunk("points", 0, 0, &[HOUR, 2 * HOUR])).await.unwrap();
        }
        assert_eq!(all_points(&store).await.len(), 2);
        assert_eq!(archive.write(chunk("points", 0, 2, &[])).await.unwrap(), Written::default());
    }

    #[test]
    fn file_names_are_taken_apart_from_the_right() {
        let parse = |name: &str| {
            FileName::parse(&Path::from(name)).map(|f| (f.topic.to_owned(), f.partition, f.first_offset))
        };
        assert_eq!(parse("raw/a-b-3-00000000000000000042.parquet"), Some(("a-b".into(), 3, 42)));
        assert_eq!(parse("raw/other.parquet"), None);
        assert_eq!(parse("raw/a-3-42.tmp"), None);
    }
}
