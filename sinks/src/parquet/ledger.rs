//! The ledger of alerts: `alerts/date=YYYY-MM-DD/<partition>-<first offset>.parquet`, by the day of
//! the entries.
//!
//! A chunk is what one partition of the ledger's topic holds from one offset to another. It becomes
//! one file for each day that it has entries of, all named after its first offset. The same chunk
//! always becomes the same files: so it may be written any number of times, by any number of
//! processes, and each entry is stored once. It is for the caller to remember where it cut, before
//! it writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use parquet::file::metadata::KeyValue;

use super::live::metadata;
use super::points::WRITER;
use super::raw::blocking;
use super::rollup::encode;
use crate::Error;
use crate::timestamp::time;

/// A line of the ledger, in the order of the columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerRow {
    /// Nanoseconds since the epoch.
    pub at: i64,
    pub transition: Option<String>,
    pub dispatch: Option<String>,
    pub rule: String,
    /// A JSON object.
    pub labels: String,
    pub incident: String,
    pub what: String,
    pub receiver: Option<String>,
    pub by: Option<String>,
    pub reason: Option<String>,
}

/// All entries of consecutive offsets of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerChunk {
    pub partition: i32,
    pub first_offset: i64,
    /// Inclusive.
    pub last_offset: i64,
    pub rows: Vec<LedgerRow>,
}

/// The ledger under `alerts/` of a store.
#[derive(Clone, Debug)]
pub struct LedgerParquet {
    store: Arc<dyn ObjectStore>,
    root: Path,
}

impl LedgerParquet {
    /// Files go to `<prefix>/alerts/`.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: Path) -> Self {
        Self { store, root: prefix.join("alerts") }
    }

    /// Stores a chunk and returns how many files it became; Ok means that all of them are durable.
    /// On an error some may be: write the same chunk again.
    pub async fn write(&self, chunk: LedgerChunk) -> Result<usize, Error> {
        let LedgerChunk { partition, first_offset, last_offset, rows } = chunk;
        let mut days: BTreeMap<String, Vec<LedgerRow>> = BTreeMap::new();
        for row in rows {
            days.entry(time(row.at).format("date=%Y-%m-%d").to_string()).or_default().push(row);
        }
        let files = days.len();
        for (day, rows) in days {
            let entry =
                |key: &str, value: i64| KeyValue::new(format!("tidemark.{key}"), Some(value.to_string()));
            let metadata = vec![
                entry("partition", partition.into()),
                entry("first_offset", first_offset),
                entry("last_offset", last_offset),
                KeyValue::new("tidemark.writer".to_owned(), Some(WRITER.to_owned())),
            ];
            let bytes = blocking(move || {
                let batch = batch(&rows)?;
                encode(&batch.schema(), std::slice::from_ref(&batch), Some(metadata))
            })
            .await?;
            let name = format!("{partition}-{first_offset:020}.parquet");
            self.store.put(&self.root.clone().join(day).join(name), bytes.into()).await?;
        }
        Ok(files)
    }

    /// First and last offset of the newest chunk of a partition that has a file. Of that one, some
    /// files may be missing. Lists all of the ledger.
    pub async fn newest(&self, partition: i32) -> Result<Option<(i64, i64)>, Error> {
        let mut files = self.store.list(Some(&self.root));
        let mut newest: Option<(i64, ObjectMeta)> = None;
        while let Some(file) = files.try_next().await? {
            let Some(first) = first_offset(&file.location, partition) else { continue };
            if newest.as_ref().is_none_or(|(known, _)| first > *known) {
                newest = Some((first, file));
            }
        }
        let Some((first, file)) = newest else { return Ok(None) };
        let metadata = metadata(&self.store, &file).await?;
        let last = metadata.get("tidemark.last_offset").and_then(|last| last.parse().ok());
        let last = last.ok_or_else(|| {
            let reason = "a file has no last offset in its metadata; move it away".into();
            Error::Rows { table: file.location.to_string(), reason }
        })?;
        Ok(Some((first, last)))
    }
}

/// Of `<partition>-<first offset>.parquet`.
fn first_offset(path: &Path, partition: i32) -> Option<i64> {
    let (of, first) = path.filename()?.strip_suffix(".parquet")?.split_once('-')?;
    if of.parse::<i32>().ok()? != partition {
        return None;
    }
    first.parse().ok()
}

fn batch(rows: &[LedgerRow]) -> Result<RecordBatch, Error> {
    let text = |of: fn(&LedgerRow) -> &String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(of)))
    };
    let maybe = |of: fn(&LedgerRow) -> &Option<String>| -> ArrayRef {
        Arc::new(rows.iter().map(|row| of(row).as_deref()).collect::<StringArray>())
    };
    let at = TimestampNanosecondArray::from_iter_values(rows.iter().map(|row| row.at)).with_timezone("UTC");
    let columns: Vec<(&str, bool, ArrayRef)> = vec![
        ("at", false, Arc::new(at)),
        ("transition", true, maybe(|row| &row.transition)),
        ("dispatch", true, maybe(|row| &row.dispatch)),
        ("rule", false, text(|row| &row.rule)),
        ("labels", false, text(|row| &row.labels)),
        ("incident", false, text(|row| &row.incident)),
        ("what", false, text(|row| &row.what)),
        ("receiver", true, maybe(|row| &row.receiver)),
        ("by", true, maybe(|row| &row.by)),
        ("reason", true, maybe(|row| &row.reason)),
    ];
    let field = |(name, nullable, _): &(&str, bool, ArrayRef)| match *name {
        "at" => Field::new(*name, DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), *nullable),
        _ => Field::new(*name, DataType::Utf8, *nullable),
    };
    let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
    Ok(RecordBatch::try_new(Arc::new(schema), columns.into_iter().map(|(_, _, column)| column).collect())?)
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use object_store::memory::InMemory;

    use super::*;
    use crate::parquet::points::tests::read;

    const DAY: i64 = 86_400_000_000_000;

    fn chunk(partition: i32, first_offset: i64, times: &[i64]) -> LedgerChunk {
        let row = |(position, at): (usize, &i64)| LedgerRow {
            at: *at,
            transition: Some(format!("{}", first_offset + position as i64)),
            rule: "cpu_high".into(),
            labels: r#"{"host":"a"}"#.into(),
            what: "received".into(),
            ..LedgerRow::default()
        };
        LedgerChunk {
            partition,
            first_offset,
            last_offset: first_offset + times.len() as i64 - 1,
            rows: times.iter().enumerate().map(row).collect(),
        }
    }

    /// Each file's entries, by path.
    async fn stored(store: &InMemory) -> BTreeMap<String, Vec<String>> {
        let files: Vec<ObjectMeta> = store.list(None).try_collect().await.unwrap();
        let mut stored = BTreeMap::new();
        for file in files {
            let batch = read(store.get(&file.location).await.unwrap().bytes().await.unwrap().to_vec());
            let ids = batch.column_by_name("transition").unwrap().as_string::<i32>();
            let ids = ids.iter().map(|id| id.unwrap().to_owned()).collect();
            stored.insert(file.location.to_string(), ids);
        }
        stored
    }

    #[tokio::test]
    async fn a_chunk_becomes_a_file_for_each_day_and_the_same_files_again() {
        let store = Arc::new(InMemory::new());
        let ledger = LedgerParquet::new(store.clone(), Path::from("cold"));
        assert_eq!(ledger.newest(0).await.unwrap(), None);
        for _ in 0..2 {
            // The clock went back over midnight.
            assert_eq!(ledger.write(chunk(0, 7, &[DAY - 1, DAY, DAY - 1])).await.unwrap(), 2);
            let expected = [
                ("cold/alerts/date=1970-01-01/0-00000000000000000007.parquet", vec!["7", "9"]),
                ("cold/alerts/date=1970-01-02/0-00000000000000000007.parquet", vec!["8"]),
            ];
            let expected = expected
                .map(|(path, ids)| (path.to_owned(), ids.iter().map(|id| (*id).to_owned()).collect()));
            assert_eq!(stored(&store).await, BTreeMap::from(expected));
        }
        ledger.write(chunk(0, 10, &[DAY])).await.unwrap();
        ledger.write(chunk(1, 50, &[DAY])).await.unwrap();
        assert_eq!(ledger.newest(0).await.unwrap(), Some((10, 10)));
        assert_eq!(ledger.newest(1).await.unwrap(), Some((50, 50)));
        assert_eq!(ledger.newest(10).await.unwrap(), None);
        assert_eq!(ledger.write(chunk(0, 11, &[])).await.unwrap(), 0);
    }

    #[test]
    fn columns_are_those_of_an_entry() {
        let row = LedgerRow { by: Some("ada".into()), ..chunk(0, 0, &[5]).rows.remove(0) };
        let batch = read(encode_alone(&row));
        let names: Vec<&str> =
            batch.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(
            names,
            [
                "at",
                "transition",
                "dispatch",
                "rule",
                "labels",
                "incident",
                "what",
                "receiver",
                "by",
                "reason"
            ]
        );
        let by_and_reason = [batch.column(8).as_string::<i32>(), batch.column(9).as_string::<i32>()];
        assert_eq!(by_and_reason.map(|column| column.iter().next().unwrap()), [Some("ada"), None]);
    }

    fn encode_alone(row: &LedgerRow) -> Vec<u8> {
        let batch = batch(std::slice::from_ref(row)).unwrap();
        encode(&batch.schema(), std::slice::from_ref(&batch), None).unwrap()
    }
}
