//! Compaction of `rollups/<table>/`: many files, one a flush, become few that hold only the newest
//! version of each key.
//!
//! Readers keep the newest version of a key, so a copy in another file changes nothing: the
//! compacted file (`compacted.<number>.parquet`, put only if nobody has put that number) may stand
//! beside what it replaces. It names those files in `tidemark.replaces`, and a later pass deletes
//! them, when the grace for those who read them is over. Withdrawn keys are kept: an older version
//! of them may come back with a replay.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::KeyValue;

use super::compact::{CompactOptions, Compaction, younger};
use super::live;
use super::raw::blocking;
use super::rollup::{VERSION, WITHDRAWN, encode};
use super::times::{under, unmarked_schema};
use crate::{Error, Table};

/// A file of this size is not small any more.
const SMALL: u64 = 4 << 20;
/// Bytes that go into one file, and files that are read for it.
const MOST_BYTES: u64 = 16 << 20;
const MOST_FILES: usize = 5_000;
const CONCURRENT_GETS: usize = 8;

/// Compacts `<prefix>/rollups/`.
#[derive(Debug, Clone)]
pub struct RollupCompactor {
    store: Arc<dyn ObjectStore>,
    root: Path,
}

impl RollupCompactor {
    pub fn new(store: Arc<dyn ObjectStore>, prefix: Path) -> Self {
        Self { store, root: prefix.join("rollups") }
    }

    /// Deletes what earlier passes have replaced, and merges small files that were written before
    /// `options.until`, here a wall time. Counts rows as points.
    pub async fn pass(&self, table: &Table, options: CompactOptions) -> Result<Compaction, Error> {
        let mut done = Compaction::default();
        let folder = self.root.clone().join(table.name.as_str());
        let mut files: Vec<ObjectMeta> = self.store.list(Some(&folder)).try_collect().await?;
        files.retain(|file| file.location.extension() == Some("parquet"));
        files.sort_by(|a, b| a.location.cmp(&b.location));
        let replaced = self.delete_replaced(&files, options, &mut done).await?;
        let mut bytes = 0;
        files.retain(|file| {
            let written = file.last_modified.timestamp_nanos_opt().unwrap_or(i64::MAX);
            let is_small = file.size < SMALL && written <= options.until;
            let fits = is_small && !replaced.contains(&file.location) && bytes + file.size <= MOST_BYTES;
            bytes += if fits { file.size } else { 0 };
            fits
        });
        files.truncate(MOST_FILES);
        if files.len() < 2 {
            return Ok(done);
        }
        match self.merge(table, &folder, files, options.dry_run, &mut done).await {
            Err(error) if live::is_missing(&error) => done.contended += 1,
            merged => merged?,
        }
        Ok(done)
    }

    /// The files that compacted files replace; those whose grace is over are deleted.
    async fn delete_replaced(
        &self,
        files: &[ObjectMeta],
        options: CompactOptions,
        done: &mut Compaction,
    ) -> Result<BTreeSet<Path>, Error> {
        let mut replaced = BTreeSet::new();
        for compacted in files.iter().filter(|file| number_of(&file.location).is_some()) {
            let metadata = live::metadata(&self.store, compacted).await?;
            let names: Vec<String> = metadata
                .get("tidemark.replaces")
                .and_then(|names| serde_json::from_str(names).ok())
                .unwrap_or_default();
            let folder = compacted.location.parts().collect::<Vec<_>>();
            let folder: Path = folder[..folder.len().saturating_sub(1)].iter().cloned().collect();
            let names = names.into_iter().map(|name| folder.clone().join(name));
            let there: Vec<Path> =
                names.filter(|path| files.iter().any(|file| file.location == *path)).collect();
            replaced.extend(there.iter().cloned());
            if there.is_empty() || options.dry_run {
                continue;
            }
            if younger(compacted, options) {
                done.waiting += 1;
                continue;
            }
            let deleted = self.store.delete_stream(stream::iter(there.into_iter().map(Ok)).boxed());
            let failed = |result: &Result<Path, object_store::Error>| {
                !matches!(result, Err(object_store::Error::NotFound { .. }))
            };
            let failed = |result: &_| std::future::ready(failed(result));
            deleted.filter(failed).try_for_each(|_| std::future::ready(Ok(()))).await?;
            done.published += 1;
        }
        Ok(replaced)
    }

    async fn merge(
        &self,
        table: &Table,
        folder: &Path,
        files: Vec<ObjectMeta>,
        dry_run: bool,
        done: &mut Compaction,
    ) -> Result<(), Error> {
        let read: Vec<(ObjectMeta, Bytes)> = stream::iter(files)
            .map(|file| async move {
                let bytes = self.store.get(&file.location).await?.bytes().await?;
                Ok::<_, Error>((file, bytes))
            })
            .buffered(CONCURRENT_GETS)
            .try_collect()
            .await?;
        let key: Vec<usize> = [table.time].into_iter().chain(table.tags.iter().copied()).collect();
        let merged = blocking(move || merged(&key, read)).await?;
        let last = self.store.list(Some(folder)).try_fold(0, |last, file| {
            std::future::ready(Ok(number_of(&file.location).unwrap_or(0).max(last)))
        });
        let mut number: u64 = last.await?;
        for file in merged {
            number += 1;
            let after = file.bytes.len() as u64;
            let path = folder.clone().join(format!("compacted.{number:06}.parquet"));
            if !dry_run {
                let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
                match self.store.put_opts(&path, file.bytes.into(), options).await {
                    Err(
                        object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. },
                    ) => {
                        done.contended += 1;
                        return Ok(());
                    }
                    put => put?,
                };
            }
            done.staged += 1;
            done.waiting += usize::from(!dry_run);
            done.points += file.rows;
            done.files_before += file.files;
            done.bytes_before += file.before;
            done.bytes_after += after;
        }
        Ok(())
    }
}

/// What becomes one file.
struct Merged {
    bytes: Vec<u8>,
    rows: u64,
    files: usize,
    before: u64,
}

/// The newest versions of the rows of files with the same columns; files that are alone with theirs
/// stay.
fn merged(key: &[usize], read: Vec<(ObjectMeta, Bytes)>) -> Result<Vec<Merged>, Error> {
    let mut by_columns: BTreeMap<String, (Vec<ObjectMeta>, Vec<RecordBatch>)> = BTreeMap::new();
    for (file, bytes) in read {
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
        // Files of releases that left times unmarked are alike.
        let schema = unmarked_schema(reader.schema());
        let (files, batches) = by_columns.entry(schema.to_string()).or_default();
        files.push(file);
        for batch in reader.build()? {
            batches.push(under(&schema, &batch?)?);
        }
    }
    let mut all = Vec::new();
    for (files, batches) in by_columns.into_values() {
        let Some(first) = batches.first() else { continue };
        let is_versioned =
            first.column_by_name(VERSION).is_some() && first.column_by_name(WITHDRAWN).is_some();
        if files.len() < 2 || !is_versioned || key.iter().any(|column| *column >= first.num_columns()) {
            continue;
        }
        let newest = newest_versions(key, &concat_batches(&first.schema(), &batches)?)?;
        let names: Vec<&str> = files.iter().filter_map(|file| file.location.filename()).collect();
        let names = serde_json::to_string(&names).expect("a list of texts is JSON");
        let metadata = vec![KeyValue::new("tidemark.replaces".into(), Some(names))];
        all.push(Merged {
            bytes: encode(&newest.schema(), std::slice::from_ref(&newest), Some(metadata))?,
            rows: newest.num_rows() as u64,
            files: files.len(),
            before: files.iter().map(|file| file.size).sum(),
        });
    }
    Ok(all)
}

/// The row of each key that [`super::rollup::latest_rows_sql`] would choose, in the order of the
/// keys.
fn newest_versions(key: &[usize], rows: &RecordBatch) -> Result<RecordBatch, Error> {
    let columns: Vec<ArrayRef> = key.iter().map(|column| rows.column(*column).clone()).collect();
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let keys = RowConverter::new(fields)?.convert_columns(&columns)?;
    let wrong = || Error::Rows { table: "rollup".into(), reason: "versions of another type".into() };
    let versions = rows.column_by_name(VERSION).and_then(|column| column.as_primitive_opt::<Int64Type>());
    let withdrawn = rows.column_by_name(WITHDRAWN).and_then(|column| column.as_boolean_opt());
    let (versions, withdrawn) = (versions.ok_or_else(wrong)?, withdrawn.ok_or_else(wrong)?);
    let rank = |row: u32| (versions.value(row as usize), !withdrawn.value(row as usize));
    let mut newest: BTreeMap<_, u32> = BTreeMap::new();
    for (row, index) in (0..rows.num_rows()).zip(0_u32..) {
        let chosen = newest.entry(keys.row(row)).or_insert(index);
        if rank(index) > rank(*chosen) {
            *chosen = index;
        }
    }
    let chosen = UInt32Array::from_iter_values(newest.into_values());
    Ok(take_record_batch(rows, &chosen)?)
}

fn number_of(path: &Path) -> Option<u64> {
    path.filename()?.strip_prefix("compacted.")?.strip_suffix(".parquet")?.parse().ok()
}

#[cfg(test)]
#[path = "compact_rollups_tests.rs"]
mod tests;
