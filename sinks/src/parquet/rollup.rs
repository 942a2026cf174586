//! Rollups as Parquet: the store when no InfluxDB is configured.
//!
//! `rollups/<table>/<partition>-<first offset>-<last offset>-<hash of the content>.parquet` holds
//! rows that the partition produced at these offsets, in the columns of the rollup and two more:
//!
//! | column | |
//! |---|---|
//! | `_version` Int64 | the offset that produced the row; for one key the highest counts |
//! | `_withdrawn` Boolean | the row's key exists no more |
//!
//! Files are only ever added. A correction is a row of a higher version, and [`latest_rows_sql`] is
//! the SELECT that leaves the current rows. A replay of the same offsets makes the same rows with
//! the same versions: cut at the same places it writes the same files again, cut elsewhere it adds
//! files with copies, of which a reader keeps one. No file is ever replaced by one that holds less,
//! not even by an owner of the past that does not know yet that it lost the partition.
//!
//! A rebuilt row (`recomputed.<id>.parquet`) has the version after that of the row it replaces.
//! Only final windows are rebuilt, which the stream writes no more, so it stays the newest.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use tokio::sync::Mutex;
use twox_hash::XxHash3_64;

use super::points::WRITER;
use super::times::{marked_schema, under};
use crate::{Error, RollupRows, Sink, Table};

/// The column with the offset that produced a row.
pub const VERSION: &str = "_version";
/// The column that is true when a key exists no more.
pub const WITHDRAWN: &str = "_withdrawn";

/// A write that finds more than this buffered stores it first, so a long time without checkpoint
/// stays bounded.
const MAX_BUFFERED_BYTES: usize = 64 << 20;

/// Stores rollups under `rollups/` of a store.
#[derive(Debug)]
pub struct RollupParquet {
    store: Arc<dyn ObjectStore>,
    root: Path,
    max_buffered: usize,
    buffers: Mutex<Buffers>,
}

#[derive(Debug, Default)]
struct Buffers {
    files: HashMap<(String, i32), Buffer>,
    bytes: usize,
}

/// What becomes one file.
#[derive(Debug)]
struct Buffer {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    first_offset: i64,
    last_offset: i64,
}

impl RollupParquet {
    /// Files go to `<prefix>/rollups/`.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: Path) -> Self {
        let root = prefix.join("rollups");
        Self { store, root, max_buffered: MAX_BUFFERED_BYTES, buffers: Mutex::default() }
    }

    async fn store(&self, buffers: &mut Buffers) -> Result<(), Error> {
        // A file leaves the buffers after it is durable: when a put fails, the next flush tries it
        // again.
        while let Some(((table, partition), buffer)) = buffers.files.iter().next() {
            let (schema, batches) = (buffer.schema.clone(), buffer.batches.clone());
            let encoded = tokio::task::spawn_blocking(move || encode(&schema, &batches, None)).await;
            let bytes = match encoded {
                Ok(bytes) => bytes?,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            };
            let path = self.path(table, *partition, buffer, &bytes);
            self.store.put(&path, bytes.into()).await?;
            let key = (table.clone(), *partition);
            buffers.files.remove(&key);
        }
        buffers.bytes = 0;
        Ok(())
    }

    /// Stores rows that replace what is there, at once: Ok means that they are durable. `rows` are
    /// columns as in [`RollupRows::rows`]; each has a version of its own, one above that of the row
    /// it replaces, and may record that its key exists no more. `id` must be new.
    pub async fn replace(
        &self,
        table: &Table,
        rows: &RecordBatch,
        versions: Vec<i64>,
        withdrawn: Vec<bool>,
        id: &str,
    ) -> Result<(), Error> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let batch = with_versions(table, rows, versions, withdrawn)?;
        let bytes = encode(&batch.schema(), std::slice::from_ref(&batch), None)?;
        let path = self.root.clone().join(table.name.as_str()).join(format!("recomputed.{id}.parquet"));
        self.store.put(&path, bytes.into()).await?;
        Ok(())
    }

    /// Rebuilt windows are written at an offset that has a file already: the content tells the two
    /// apart.
    fn path(&self, table: &str, partition: i32, buffer: &Buffer, content: &[u8]) -> Path {
        let (first, last) = (buffer.first_offset, buffer.last_offset);
        let hash = XxHash3_64::oneshot(content);
        self.root.clone().join(table).join(format!("{partition}-{first:020}-{last:020}-{hash:016x}.parquet"))
    }
}

#[async_trait]
impl Sink<RollupRows> for RollupParquet {
    async fn write(&self, input: RollupRows) -> Result<(), Error> {
        let mut batches = Vec::new();
        // Withdrawn first: a key that is withdrawn and written at one offset exists.
        for (rows, withdrawn) in [(input.withdrawn.as_ref(), true), (Some(&input.rows), false)] {
            if let Some(rows) = rows.filter(|rows| rows.num_rows() > 0) {
                batches.push(versioned(&input.table, rows, input.offset, withdrawn)?);
            }
        }
        let Some(first) = batches.first() else { return Ok(()) };
        let schema = first.schema();
        if batches.iter().any(|batch| batch.schema() != schema) {
            let reason = "written and withdrawn rows have different columns".into();
            return Err(Error::Rows { table: input.table.name.clone(), reason });
        }

        let mut buffers = self.buffers.lock().await;
        let key = (input.table.name.clone(), input.partition);
        let fits = buffers.files.get(&key).is_none_or(|buffer| buffer.schema == schema);
        // Fewer files: the rows of an offset come in parts.
        let goes_on = buffers.files.get(&key).is_some_and(|buffer| buffer.last_offset == input.offset);
        if !fits || (buffers.bytes > self.max_buffered && !goes_on) {
            self.store(&mut buffers).await?;
        }
        buffers.bytes += batches.iter().map(slice_bytes).sum::<usize>();
        let buffer = buffers.files.entry(key).or_insert_with(|| Buffer {
            schema,
            batches: Vec::new(),
            first_offset: input.offset,
            last_offset: input.offset,
        });
        buffer.batches.append(&mut batches);
        buffer.first_offset = buffer.first_offset.min(input.offset);
        buffer.last_offset = buffer.last_offset.max(input.offset);
        Ok(())
    }

    async fn flush(&self) -> Result<(), Error> {
        self.store(&mut *self.buffers.lock().await).await
    }
}

/// Memory of the rows themselves: they may be a slice of a larger batch.
fn slice_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or_default()).sum()
}

fn versioned(table: &Table, rows: &RecordBatch, offset: i64, withdrawn: bool) -> Result<RecordBatch, Error> {
    let count = rows.num_rows();
    with_versions(table, rows, vec![offset; count], vec![withdrawn; count])
}

/// The rows with version and withdrawal. Fields become nullable, as withdrawn rows have none.
fn with_versions(
    table: &Table,
    rows: &RecordBatch,
    versions: Vec<i64>,
    withdrawn: Vec<bool>,
) -> Result<RecordBatch, Error> {
    let input = rows.schema();
    let mut fields: Vec<Field> = Vec::new();
    for (column, field) in input.fields().iter().enumerate() {
        fields.push(field.as_ref().clone().with_nullable(column != table.time));
    }
    fields.push(Field::new(VERSION, DataType::Int64, false));
    fields.push(Field::new(WITHDRAWN, DataType::Boolean, false));
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(Int64Array::from(versions)) as ArrayRef);
    columns.push(Arc::new(BooleanArray::from(withdrawn)));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

pub(crate) fn encode(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    metadata: Option<Vec<KeyValue>>,
) -> Result<Vec<u8>, Error> {
    let properties = WriterProperties::builder()
        .set_created_by(WRITER.to_owned())
        .set_key_value_metadata(metadata)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .build();
    let schema = marked_schema(schema);
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties))?;
    for batch in batches {
        writer.write(&under(&schema, batch)?)?;
    }
    Ok(writer.into_inner()?)
}

/// The name under which [`latest_rows_sql`] expects the files of a table: `<table>_versions`, so
/// that its result can be the view `<table>`.
pub fn versions_table(table: &Table) -> String {
    format!("{}_versions", table.name)
}

/// The SELECT that yields the current rows of a table, with all of `column_names`, from its files
/// registered as [`versions_table`]. `column_names` are those of [`RollupRows::rows`], in order.
/// The SQL is understood by DataFusion and DuckDB.
pub fn latest_rows_sql(table: &Table, column_names: &[&str]) -> String {
    let columns: Vec<String> = column_names.iter().map(|name| quoted(name)).collect();
    let latest = latest_versions_sql(table, column_names);
    format!("SELECT {} FROM ({latest}) AS versions WHERE NOT {WITHDRAWN}", columns.join(", "))
}

/// As [`latest_rows_sql`], with the columns [`VERSION`] and [`WITHDRAWN`], and with the keys that
/// exist no more.
pub fn latest_versions_sql(table: &Table, column_names: &[&str]) -> String {
    let columns: Vec<String> = column_names.iter().map(|name| quoted(name)).collect();
    let mut key = Vec::new();
    for column in [table.time].iter().chain(&table.tags) {
        key.extend(columns.get(*column).cloned());
    }
    format!(
        "SELECT {}, {VERSION}, {WITHDRAWN} FROM (\
         SELECT *, row_number() OVER (PARTITION BY {} ORDER BY {VERSION} DESC, {WITHDRAWN}) AS _age FROM {}\
         ) AS aged WHERE _age = 1",
        columns.join(", "),
        key.join(", "),
        quoted(&versions_table(table)),
    )
}

fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

#[cfg(test)]
#[path = "rollup_tests.rs"]
mod tests;
