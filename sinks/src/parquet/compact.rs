//! Compaction of `raw/`: the chunks of an event hour, often many and small, become one file.
//!
//! No store replaces several files at once, so an hour goes through steps, and after each of them,
//! also when it is the last one before a crash, [`super::live`] counts every point once:
//!
//! 1. **Stage.** The merged points are put as `compacted.<next generation>.staged`, and only if
//!    nobody else has put this generation (a conditional put): of two compactors one gives way.
//!    From here on readers that know the rule use this file, while `*.parquet` still finds the
//!    chunks.
//! 2. **Grace.** Readers that listed before are left the time to end.
//! 3. **Publish.** The same bytes are put as `compacted.<generation>.parquet`, then the replaced
//!    files are deleted. Between the two, a few milliseconds, a reader that knows only `*.parquet`
//!    finds points twice; if this process is killed there, until the next run.
//! 4. **Grace** again, then the staged copy is deleted.
//!
//! Only chunks below the archive's safe offset are merged: those beyond it may still be deleted and
//! written again by the next owner of their partition. A file covers offsets, not names, so a chunk
//! that an owner of the past writes once more does not count again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::KeyValue;
use tracing::{debug, warn};

use super::by_series::PointsBySeries;
use super::live::{self, Compacted, Covers, HourFiles, Origin, hour_folder};
use super::points::{self, WRITER};
use super::raw::blocking;
use crate::Error;

/// An hour with more points than this has no small files to speak of, and merging it would take too
/// much memory.
const MAX_POINTS: u64 = 1_000_000;
/// Hours that are merged at once.
const CONCURRENT_HOURS: usize = 2;

/// By topic and partition, the offset before which the archive is durable.
pub type SafeOffsets = BTreeMap<(String, i32), i64>;

/// Compacts `<prefix>/raw/`.
#[derive(Debug, Clone)]
pub struct RawCompactor {
    store: Arc<dyn ObjectStore>,
    root: Path,
}

/// Which hours, and how patiently.
#[derive(Debug, Clone, Copy)]
pub struct CompactOptions {
    /// Hours that end after this event time, in nanoseconds, are left alone.
    pub until: i64,
    /// Wall time in nanoseconds: the age of staged files is judged by it.
    pub now: i64,
    /// How long replaced files stay for those who read them: longer than a query or a listing
    /// takes.
    pub grace: Duration,
    /// Only counts.
    pub dry_run: bool,
}

/// What one pass over all hours did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compaction {
    /// Hours that were merged and staged, or would be.
    pub staged: usize,
    pub published: usize,
    /// Hours that wait for their grace to be over: a later pass goes on.
    pub waiting: usize,
    /// Hours that another compactor was quicker with.
    pub contended: usize,
    /// Hours left as they are because their files contradict each other.
    pub refused: usize,
    /// Of the hours staged: what went in, and what came out.
    pub points: u64,
    pub files_before: usize,
    pub bytes_before: u64,
    pub bytes_after: u64,
}

/// How far one hour was brought by a step.
enum Step {
    Nothing,
    Waiting,
    Published,
    Staged { points: u64, files: usize, before: u64, after: u64 },
    Contended,
    Refused,
}

impl RawCompactor {
    pub fn new(store: Arc<dyn ObjectStore>, prefix: Path) -> Self {
        Self { store, root: prefix.join("raw") }
    }

    /// Brings every hour one step further. `safe` must have been read before this is called, since
    /// an hour is listed afterwards: chunks below it are then all there. `progress` hears of each
    /// hour and of how many there are. Ending this, in whatever way, leaves every point counted
    /// once.
    pub async fn pass(
        &self,
        safe: &SafeOffsets,
        options: CompactOptions,
        progress: &(dyn Fn(usize) + Send + Sync),
    ) -> Result<Compaction, Error> {
        let hours = live::list_hours(&self.store, &self.root, Some((i64::MIN, options.until))).await?;
        let hours: Vec<i64> =
            hours.into_keys().filter(|hour| hour.saturating_add(live::HOUR) <= options.until).collect();
        let total = hours.len();
        let mut steps = stream::iter(hours)
            .map(|hour| self.step(hour_folder(&self.root, hour), safe, options))
            .buffer_unordered(CONCURRENT_HOURS);
        let mut done = Compaction::default();
        while let Some(step) = steps.try_next().await? {
            done.count(&step);
            progress(total);
        }
        Ok(done)
    }

    async fn step(&self, folder: Path, safe: &SafeOffsets, options: CompactOptions) -> Result<Step, Error> {
        let hour = HourFiles::list(&self.store, &folder).await?;
        match self.step_of(&folder, &hour, safe, options).await {
            // Another compactor is ahead; its work is looked at by the next pass.
            Err(error) if live::is_missing(&error) => Ok(Step::Contended),
            Err(error @ Error::Rows { .. }) => {
                warn!(%error, "an hour is not compacted");
                Ok(Step::Refused)
            }
            step => step,
        }
    }

    async fn step_of(
        &self,
        folder: &Path,
        hour: &HourFiles,
        safe: &SafeOffsets,
        options: CompactOptions,
    ) -> Result<Step, Error> {
        let mut covers = Covers::default();
        if let Some(newest) = hour.compacted.first() {
            covers = live::covers(&self.store, &newest.file).await?;
            if !newest.published {
                if options.dry_run || younger(&newest.file, options) {
                    return Ok(Step::Waiting);
                }
                return self.publish(folder, newest).await;
            }
            if !options.dry_run {
                self.delete(self.replaced(hour, &covers).await?).await?;
            }
            if let Some(staged) = hour.compacted.iter().find(|file| !file.published) {
                if options.dry_run || younger(&newest.file, options) {
                    return Ok(Step::Waiting);
                }
                self.delete(vec![staged.file.location.clone()]).await?;
            }
        }
        let chunks = hour.uncovered(&self.store, &covers).await?;
        self.stage(folder, hour, covers, chunks, safe, options.dry_run).await
    }

    /// Makes the staged file everyone's, then deletes what it replaces.
    async fn publish(&self, folder: &Path, staged: &Compacted) -> Result<Step, Error> {
        let bytes = self.store.get(&staged.file.location).await?.bytes().await?;
        let published = compacted_path(folder, staged.generation, "parquet");
        if !self.create(&published, bytes.into()).await? {
            return Ok(Step::Contended);
        }
        // Listed again: what is deleted must be covered by the published file that counts now, even
        // if this process was stopped for so long that others have gone on.
        let hour = HourFiles::list(&self.store, folder).await?;
        if let Some(newest) = hour.compacted.first().filter(|newest| newest.published) {
            let covers = live::covers(&self.store, &newest.file).await?;
            self.delete(self.replaced(&hour, &covers).await?).await?;
        }
        Ok(Step::Published)
    }

    /// Stores a file unless one of that name is there.
    async fn create(&self, path: &Path, payload: PutPayload) -> Result<bool, Error> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(path, payload, options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The files that the newest compacted file replaces: chunks that it covers, and older
    /// generations.
    async fn replaced(&self, hour: &HourFiles, covers: &Covers) -> Result<Vec<Path>, Error> {
        let newest = hour.compacted.first().map_or(0, |file| file.generation);
        let older = hour.compacted.iter().filter(|file| file.generation < newest);
        let uncovered = hour.uncovered(&self.store, covers).await?;
        let covered = hour
            .chunks
            .iter()
            .filter(|chunk| uncovered.iter().all(|(other, _)| other.location != chunk.location));
        Ok(older.map(|file| &file.file).chain(covered).map(|file| file.location.clone()).collect())
    }

    async fn delete(&self, paths: Vec<Path>) -> Result<(), Error> {
        let deleted = self.store.delete_stream(stream::iter(paths.into_iter().map(Ok)).boxed());
        // Deleted by another compactor is deleted as well.
        let failed = |result: &Result<Path, object_store::Error>| {
            !matches!(result, Err(object_store::Error::NotFound { .. }))
        };
        deleted
            .filter(|result| std::future::ready(failed(result)))
            .try_for_each(|path| {
                debug!(%path, "deleted a replaced file");
                std::future::ready(Ok(()))
            })
            .await?;
        Ok(())
    }

    async fn stage(
        &self,
        folder: &Path,
        hour: &HourFiles,
        mut covers: Covers,
        chunks: Vec<(ObjectMeta, Option<Origin>)>,
        safe: &SafeOffsets,
        dry_run: bool,
    ) -> Result<Step, Error> {
        if chunks.iter().any(|(_, origin)| origin.is_none()) {
            warn!(%folder, "an hour with files of other programs is not compacted");
            return Ok(Step::Refused);
        }
        let mut chunks: Vec<(ObjectMeta, Origin)> =
            chunks.into_iter().filter_map(|(file, origin)| Some((file, origin?))).collect();
        chunks.retain(|(_, origin)| {
            let safe = safe.get(&(origin.topic.clone(), origin.partition));
            safe.is_some_and(|safe| origin.last_offset < *safe)
        });
        let newest = hour.compacted.first().map(|file| file.file.clone());
        let files = chunks.len() + usize::from(newest.is_some());
        if chunks.is_empty() || files < 2 {
            return Ok(Step::Nothing);
        }
        if let Some((one, other)) = overlap(&mut chunks) {
            warn!(%one, %other, "files with the same offsets are not compacted: points may be stored twice");
            return Ok(Step::Refused);
        }
        let mut points: u64 = chunks.iter().map(|(_, origin)| origin.rows).sum();
        let mut before: u64 = chunks.iter().map(|(file, _)| file.size).sum();
        for (_, origin) in &chunks {
            let partitions = covers.entry(origin.topic.clone()).or_default();
            let offset = partitions.entry(origin.partition).or_insert(0);
            *offset = (*offset).max(origin.last_offset + 1);
        }
        let mut inputs: Vec<ObjectMeta> = chunks.into_iter().map(|(file, _)| file).collect();
        if let Some(newest) = newest {
            let metadata = live::metadata(&self.store, &newest).await?;
            points += metadata.get("tidemark.rows").and_then(|rows| rows.parse().ok()).unwrap_or(0_u64);
            before += newest.size;
            inputs.push(newest);
        }
        if points > MAX_POINTS {
            return Ok(Step::Nothing);
        }
        let bytes = self.merge(folder, &inputs, points, &covers).await?;
        let staged = Step::Staged { points, files, before, after: bytes.len() as u64 };
        if dry_run {
            return Ok(staged);
        }
        let generation = hour.compacted.first().map_or(1, |file| file.generation + 1);
        let path = compacted_path(folder, generation, "staged");
        Ok(if self.create(&path, bytes.into()).await? { staged } else { Step::Contended })
    }

    async fn merge(
        &self,
        folder: &Path,
        inputs: &[ObjectMeta],
        points: u64,
        covers: &Covers,
    ) -> Result<Vec<u8>, Error> {
        let mut files = Vec::new();
        for input in inputs {
            files.push(self.store.get(&input.location).await?.bytes().await?);
        }
        let covers = serde_json::to_string(covers).expect("maps with text keys are JSON");
        let folder = folder.clone();
        blocking(move || {
            let mut batches = Vec::new();
            for file in files {
                let reader = ParquetRecordBatchReaderBuilder::try_new(file)?.build()?;
                for batch in reader {
                    batches.push(batch?);
                }
            }
            let merged = PointsBySeries::of_rows(&batches)?;
            drop(batches);
            let rows = one_hour(&merged, &folder)?;
            if rows.len() as u64 != points {
                let found = rows.len();
                return Err(contradiction(
                    &folder,
                    format!("{found} points in files whose metadata have {points}"),
                ));
            }
            let entry = |key: &str, value: String| KeyValue::new(format!("tidemark.{key}"), Some(value));
            let metadata = vec![
                entry("covers", covers),
                entry("rows", points.to_string()),
                entry("writer", WRITER.to_owned()),
            ];
            points::encode(&merged, &rows, metadata)
        })
        .await
    }
}

impl Compaction {
    /// Adds what another pass did.
    pub fn add(&mut self, other: &Self) {
        self.staged += other.staged;
        self.published += other.published;
        self.waiting += other.waiting;
        self.contended += other.contended;
        self.refused = self.refused.max(other.refused);
        self.points += other.points;
        self.files_before += other.files_before;
        self.bytes_before += other.bytes_before;
        self.bytes_after += other.bytes_after;
    }

    fn count(&mut self, step: &Step) {
        match step {
            Step::Nothing => {}
            Step::Waiting => self.waiting += 1,
            Step::Published => {
                self.published += 1;
                // Its staged copy is still there.
                self.waiting += 1;
            }
            Step::Staged { points, files, before, after } => {
                self.staged += 1;
                self.points += points;
                self.files_before += files;
                self.bytes_before += before;
                self.bytes_after += after;
            }
            Step::Contended => self.contended += 1,
            Step::Refused => self.refused += 1,
        }
    }
}

/// The offset below which compacted files hold points of a partition, none without such files:
/// chunks alone no longer tell.
pub(crate) async fn covered_until(
    store: &Arc<dyn ObjectStore>,
    root: &Path,
    topic: &str,
    partition: i32,
) -> Result<Option<i64>, Error> {
    let mut until = None;
    for (_, files) in live::list_hours(store, root, None).await?.into_values() {
        let Some(newest) = HourFiles::of(files).compacted.into_iter().next() else { continue };
        let covers = live::covers(store, &newest.file).await?;
        until = until.max(covers.get(topic).and_then(|partitions| partitions.get(&partition)).copied());
    }
    Ok(until)
}

pub(crate) fn younger(file: &ObjectMeta, options: CompactOptions) -> bool {
    let written = file.last_modified.timestamp_nanos_opt().unwrap_or(i64::MAX);
    let grace = i64::try_from(options.grace.as_nanos()).unwrap_or(i64::MAX);
    options.now.saturating_sub(written) < grace
}

fn compacted_path(folder: &Path, generation: u64, extension: &str) -> Path {
    folder.clone().join(format!("compacted.{generation:06}.{extension}"))
}

/// Two chunks of one partition with the same offsets. Sorts the chunks.
fn overlap(chunks: &mut [(ObjectMeta, Origin)]) -> Option<(Path, Path)> {
    chunks.sort_by(|(_, a), (_, b)| {
        (&a.topic, a.partition, a.first_offset).cmp(&(&b.topic, b.partition, b.first_offset))
    });
    chunks.windows(2).find_map(|pair| {
        let [(one, a), (other, b)] = pair else { return None };
        let same = a.topic == b.topic && a.partition == b.partition && b.first_offset <= a.last_offset;
        same.then(|| (one.location.clone(), other.location.clone()))
    })
}

/// The points in the order of their file; they must be of one hour.
fn one_hour(points: &PointsBySeries, folder: &Path) -> Result<Vec<u32>, Error> {
    let mut hours = points.by_hour().into_values();
    match (hours.next(), hours.next()) {
        (Some(rows), None) => Ok(rows),
        _ => Err(contradiction(folder, "points of other hours, or none".into())),
    }
}

fn contradiction(folder: &Path, reason: String) -> Error {
    Error::Rows { table: folder.to_string(), reason }
}

#[cfg(test)]
#[path = "compact_tests.rs"]
mod tests;
