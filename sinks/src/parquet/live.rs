//! Which files of `raw/` count, while compaction is at work or after it was cut short.
//!
//! | file of an hour | what |
//! |---|---|
//! | `compacted.<generation>.staged` | compacted points, seen by readers that know this module, and by no `*.parquet` |
//! | `compacted.<generation>.parquet` | the same, published for everyone |
//! | any other `.parquet` | a chunk, as [`super::raw`] writes it |
//!
//! The rule: of the compacted files only those of the highest generation count, and of these one,
//! as they are equal. It lists in `tidemark.covers`, by topic and partition, below which offset it
//! holds all points of the hour; a chunk that ends below counts no more, and one that starts below
//! and ends above is an error. So from the moment a staged file is there each point counts once,
//! whichever of the replaced files have been deleted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backon::{ConstantBuilder, Retryable};
use chrono::NaiveDateTime;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaDataReader;

use crate::Error;
use crate::timestamp::time;

/// The archive has a folder for each hour of event time; in nanoseconds.
pub const HOUR: i64 = 3_600_000_000_000;
const DAY: i64 = 24 * HOUR;

/// Days that are listed, and hours that are looked at, at once.
const CONCURRENT: usize = 8;
/// Enough for the footer of a small file in one request.
const FOOTER: u64 = 64 << 10;
/// How often files may disappear under a reader before it gives up.
const ATTEMPTS: usize = 10;

/// By topic and partition, the offset below which a compacted file holds all points of its hour.
pub(crate) type Covers = BTreeMap<String, BTreeMap<i32, i64>>;

/// The files that count, by the start of their event hour in nanoseconds.
pub type Hours = BTreeMap<i64, Vec<ObjectMeta>>;

/// Where a chunk's points come from, by its metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) first_offset: i64,
    /// Inclusive.
    pub(crate) last_offset: i64,
    pub(crate) rows: u64,
}

/// A compacted file of an hour.
#[derive(Debug, Clone)]
pub(crate) struct Compacted {
    pub(crate) generation: u64,
    pub(crate) published: bool,
    pub(crate) file: ObjectMeta,
}

/// The files of one hour, told apart by their names.
#[derive(Debug, Clone, Default)]
pub(crate) struct HourFiles {
    pub(crate) chunks: Vec<ObjectMeta>,
    /// Highest generation first, and of one generation the published file first.
    pub(crate) compacted: Vec<Compacted>,
}

impl HourFiles {
    pub(crate) fn of(files: Vec<ObjectMeta>) -> Self {
        let mut hour = Self::default();
        for file in files.into_iter().filter(|file| !is_hidden(&file.location)) {
            match compacted_name(&file.location) {
                Some((generation, published)) => {
                    hour.compacted.push(Compacted { generation, published, file });
                }
                None if file.location.extension() == Some("parquet") => hour.chunks.push(file),
                None => {}
            }
        }
        hour.compacted.sort_by_key(|file| std::cmp::Reverse((file.generation, file.published)));
        hour
    }

    pub(crate) async fn list(store: &dyn ObjectStore, folder: &Path) -> Result<Self, Error> {
        Ok(Self::of(store.list(Some(folder)).try_collect().await?))
    }

    /// The chunks that the newest compacted file does not cover, with their origins.
    pub(crate) async fn uncovered(
        &self,
        store: &dyn ObjectStore,
        covers: &Covers,
    ) -> Result<Vec<(ObjectMeta, Option<Origin>)>, Error> {
        let chunks: Vec<(ObjectMeta, Option<Origin>)> = stream::iter(self.chunks.clone())
            .map(|chunk| async move {
                let origin = origin(store, &chunk).await?;
                Ok::<_, Error>((chunk, origin))
            })
            .buffered(CONCURRENT)
            .try_collect()
            .await?;
        let mut uncovered = Vec::new();
        for (file, origin) in chunks {
            let is_covered = origin.as_ref().map(|origin| is_covered(covers, origin, &file)).transpose()?;
            if is_covered != Some(true) {
                uncovered.push((file, origin));
            }
        }
        Ok(uncovered)
    }
}

/// Whether a file is one that systems and editors leave beside others, such as `._copy.parquet`.
pub fn is_hidden(path: &Path) -> bool {
    path.filename().is_some_and(|name| name.starts_with(['.', '_']))
}

/// # Errors
/// [`Error::Rows`] when only a part of the chunk is in the compacted file: neither of the two can
/// then be left out.
fn is_covered(covers: &Covers, origin: &Origin, chunk: &ObjectMeta) -> Result<bool, Error> {
    let covered = covers.get(&origin.topic).and_then(|partitions| partitions.get(&origin.partition));
    let Some(covered) = covered.filter(|covered| origin.first_offset < **covered) else { return Ok(false) };
    if origin.last_offset < *covered {
        return Ok(true);
    }
    let (first, last) = (origin.first_offset, origin.last_offset);
    Err(Error::Rows {
        table: chunk.location.to_string(),
        reason: format!(
            "the file holds offsets {first} to {last}, of which those below {covered} are in the hour's compacted file as \
             well, as after offsets that were set back by hand: move the file away and recompute from elsewhere"
        ),
    })
}

/// The files of `<prefix>/raw/` that count, of the hours that have a part in `[range.0, range.1)`,
/// or of all.
///
/// A reader should open them soon: compaction deletes what it has replaced after its grace, and who
/// then finds a file missing lists again.
pub async fn live_files(
    store: &Arc<dyn ObjectStore>,
    prefix: &Path,
    range: Option<(i64, i64)>,
) -> Result<Hours, Error> {
    let folders = list_hours(store, &prefix.clone().join("raw"), range).await?;
    let hours: Vec<(i64, Vec<ObjectMeta>)> = stream::iter(folders)
        .map(|(hour, (folder, files))| live_hour(store, hour, folder, files))
        .buffer_unordered(CONCURRENT)
        .try_collect()
        .await?;
    Ok(hours.into_iter().filter(|(_, files)| !files.is_empty()).collect())
}

/// All files under `root`, by hour, with the folder of each hour.
pub(crate) async fn list_hours(
    store: &Arc<dyn ObjectStore>,
    root: &Path,
    range: Option<(i64, i64)>,
) -> Result<BTreeMap<i64, (Path, Vec<ObjectMeta>)>, Error> {
    let wanted = |start: i64, length: i64| {
        range.is_none_or(|(from, to)| start < to && start.saturating_add(length) > from)
    };
    let days = store.list_with_delimiter(Some(root)).await?.common_prefixes;
    let days = days.into_iter().filter(|day| day_of(day).is_some_and(|start| wanted(start, DAY)));
    let mut files = stream::iter(days).map(|day| store.list(Some(&day))).flatten_unordered(CONCURRENT);
    let mut hours: BTreeMap<i64, (Path, Vec<ObjectMeta>)> = BTreeMap::new();
    while let Some(file) = files.try_next().await? {
        let Some((hour, folder)) = hour_of(&file.location) else { continue };
        if wanted(hour, HOUR) {
            hours.entry(hour).or_insert_with(|| (folder, Vec::new())).1.push(file);
        }
    }
    Ok(hours)
}

/// The folder of an event hour.
pub(crate) fn hour_folder(root: &Path, hour: i64) -> Path {
    let hour = time(hour);
    root.clone().join(format!("date={}", hour.format("%Y-%m-%d"))).join(format!("hour={}", hour.format("%H")))
}

async fn live_hour(
    store: &Arc<dyn ObjectStore>,
    hour: i64,
    folder: Path,
    files: Vec<ObjectMeta>,
) -> Result<(i64, Vec<ObjectMeta>), Error> {
    let mut listed = Some(HourFiles::of(files));
    let live = retry_while_missing(|| {
        let listed = listed.take();
        let folder = &folder;
        async move {
            let files = match listed {
                Some(files) => files,
                None => HourFiles::list(store, folder).await?,
            };
            resolve(store, &files).await
        }
    });
    Ok((hour, live.await?))
}

async fn resolve(store: &Arc<dyn ObjectStore>, hour: &HourFiles) -> Result<Vec<ObjectMeta>, Error> {
    let Some(newest) = hour.compacted.first() else { return Ok(hour.chunks.clone()) };
    let mut live = vec![newest.file.clone()];
    if !hour.chunks.is_empty() {
        let covers = covers(store, &newest.file).await?;
        let chunks = hour.uncovered(store, &covers).await?;
        live.extend(chunks.into_iter().map(|(file, _)| file));
    }
    Ok(live)
}

/// Generation of a compacted file, and whether it is published.
fn compacted_name(path: &Path) -> Option<(u64, bool)> {
    let (generation, extension) = path.filename()?.strip_prefix("compacted.")?.split_once('.')?;
    let published = match extension {
        "parquet" => true,
        "staged" => false,
        _ => return None,
    };
    Some((generation.parse().ok()?, published))
}

fn hour_of(path: &Path) -> Option<(i64, Path)> {
    let parts: Vec<_> = path.parts().collect();
    let [.., day, hour, _] = parts.as_slice() else { return None };
    let (day, hour) = (day.as_ref().strip_prefix("date=")?, hour.as_ref().strip_prefix("hour=")?);
    let start = NaiveDateTime::parse_from_str(&format!("{day} {hour}:00"), "%Y-%m-%d %H:%M").ok()?;
    let folder = parts[..parts.len() - 1].iter().cloned().collect();
    Some((start.and_utc().timestamp_nanos_opt()?, folder))
}

fn day_of(path: &Path) -> Option<i64> {
    let day = path.filename()?.strip_prefix("date=")?;
    let start = NaiveDateTime::parse_from_str(&format!("{day} 00:00"), "%Y-%m-%d %H:%M").ok()?;
    start.and_utc().timestamp_nanos_opt()
}

/// What a compacted file covers.
pub(crate) async fn covers(store: &dyn ObjectStore, file: &ObjectMeta) -> Result<Covers, Error> {
    let metadata = metadata(store, file).await?;
    let covers = metadata.get("tidemark.covers").and_then(|text| serde_json::from_str(text).ok());
    covers.ok_or_else(|| {
        let path = &file.location;
        Error::Config(format!(
            "a compacted file lacks `tidemark.covers`, so its hour cannot be read: restore it path=`{path}`"
        ))
    })
}

/// Where a chunk comes from; none when its metadata lacks it, as in files of other programs.
pub(crate) async fn origin(store: &dyn ObjectStore, file: &ObjectMeta) -> Result<Option<Origin>, Error> {
    let metadata = metadata(store, file).await?;
    let entry = |key: &str| metadata.get(&format!("tidemark.{key}"));
    let number = |key: &str| entry(key)?.parse::<i64>().ok();
    let origin = || {
        Some(Origin {
            topic: entry("topic")?.clone(),
            partition: entry("partition")?.parse().ok()?,
            first_offset: number("first_offset")?,
            last_offset: number("last_offset")?,
            rows: u64::try_from(number("rows")?).ok()?,
        })
    };
    Ok(origin())
}

/// The key-value pairs in a file's footer.
pub(crate) async fn metadata(
    store: &dyn ObjectStore,
    file: &ObjectMeta,
) -> Result<BTreeMap<String, String>, Error> {
    let mut length = FOOTER.min(file.size);
    let footer = loop {
        let bytes = store.get_range(&file.location, file.size - length..file.size).await?;
        let mut reader = ParquetMetaDataReader::new();
        match reader.try_parse_sized(&bytes, file.size) {
            Err(ParquetError::NeedMoreData(needed)) if (needed as u64) > length => {
                length = (needed as u64).min(file.size);
            }
            parsed => {
                parsed?;
                break reader.finish()?;
            }
        }
    };
    let pairs = footer.file_metadata().key_value_metadata().into_iter().flatten();
    Ok(pairs.filter_map(|pair| Some((pair.key.clone(), pair.value.clone()?))).collect())
}

/// Retries `read` while a file that it had listed is gone. It must list the files each time.
///
/// # Errors
/// Those of `read`, at the tenth attempt also that a file is gone.
pub async fn retry_while_missing<T, E, F>(read: impl FnMut() -> F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
    E: std::error::Error + 'static,
{
    let attempts = ConstantBuilder::new().with_delay(Duration::from_millis(10)).with_max_times(ATTEMPTS - 1);
    read.retry(attempts).when(|error| is_missing(error)).await
}

/// Whether a file that was listed is gone: compaction has replaced it.
pub fn is_missing(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(object_store::Error::NotFound { .. }) = error.downcast_ref() {
            return true;
        }
        cause = error.source();
    }
    false
}
