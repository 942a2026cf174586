//! The current rows of a table are the same before, during and after, whatever is cut short.

use std::time::Duration;

use arrow::array::{Float64Array, StringArray, TimestampNanosecondArray};
use object_store::memory::InMemory;

use super::*;
use crate::parquet::RollupParquet;
use crate::parquet::failing_store::FailingStore;
use crate::parquet::points::tests::read;
use crate::{RollupRows, Sink};

fn table() -> Table {
    Table { name: "cpu".into(), tags: vec![1], fields: vec![2], ..Table::default() }
}

fn rows(rows: &[(i64, &str, f64)]) -> RecordBatch {
    let columns: [(&str, ArrayRef); 3] = [
        ("w", Arc::new(TimestampNanosecondArray::from_iter_values(rows.iter().map(|row| row.0)))),
        ("host", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1)))),
        ("avg", Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.2)))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// Three flushes with a correction and a withdrawal, a rebuilt row, and files of other columns.
async fn filled() -> Arc<InMemory> {
    let store = Arc::new(InMemory::new());
    let sink = RollupParquet::new(store.clone(), Path::default());
    let all = table();
    for (offset, written, withdrawn) in [
        (1, vec![(0, "a", 1.0), (0, "b", 1.0)], None),
        (2, vec![(0, "a", 2.0), (60, "a", 1.0)], Some(rows(&[(0, "b", 0.0)]))),
        (3, vec![(60, "b", 1.0)], None),
    ] {
        let table = Arc::new(all.clone());
        let input = RollupRows { table, rows: rows(&written), withdrawn, partition: 0, offset };
        sink.write(input).await.unwrap();
        sink.flush().await.unwrap();
    }
    sink.replace(&all, &rows(&[(60, "a", 9.0)]), vec![3], vec![false], "x").await.unwrap();
    store
}

/// The current rows, as [`super::super::rollup::latest_rows_sql`] defines them.
async fn current(store: &InMemory) -> Vec<String> {
    let files: Vec<ObjectMeta> = store.list(None).try_collect().await.unwrap();
    let mut batches = Vec::new();
    for file in files {
        batches.push(read(store.get(&file.location).await.unwrap().bytes().await.unwrap().to_vec()));
    }
    let all = concat_batches(&batches[0].schema(), &batches).unwrap();
    let newest = newest_versions(&[0, 1], &all).unwrap();
    let text = arrow::util::pretty::pretty_format_batches(&[newest]).unwrap().to_string();
    text.lines().filter(|line| line.contains("false")).map(str::to_owned).collect()
}

async fn pass(store: Arc<dyn ObjectStore>) -> Result<Compaction, Error> {
    let options = CompactOptions { until: i64::MAX, now: i64::MAX, grace: Duration::ZERO, dry_run: false };
    RollupCompactor::new(store, Path::default()).pass(&table(), options).await
}

#[tokio::test]
async fn current_rows_are_the_same_after_a_crash_at_any_operation() {
    let expected = current(&*filled().await).await;
    assert_eq!(expected.len(), 3, "{expected:?}");
    assert!(expected[1].contains("9.0"), "the rebuilt row counts: {expected:?}");
    let mut crashes = 0;
    for allowed in 0.. {
        let store = filled().await;
        let failing: Arc<dyn ObjectStore> = Arc::new(FailingStore::new(store.clone(), allowed));
        let mut crashed = false;
        for _ in 0..2 {
            crashed |= pass(failing.clone()).await.is_err();
            assert_eq!(current(&store).await, expected, "after {allowed} operations");
        }
        for _ in 0..3 {
            pass(store.clone()).await.unwrap();
        }
        assert_eq!(current(&store).await, expected);
        assert_eq!(store.list(None).count().await, 1, "one file is left");
        if !crashed {
            break;
        }
        crashes += 1;
    }
    assert!(crashes > 8, "{crashes} crashes");
}

#[tokio::test]
async fn replaced_files_stay_while_they_may_be_read() {
    let store = filled().await;
    let compactor = RollupCompactor::new(store.clone(), Path::default());
    let options = CompactOptions { until: i64::MAX, now: 0, grace: Duration::from_secs(60), dry_run: false };
    let done = compactor.pass(&table(), options).await.unwrap();
    assert_eq!((done.staged, done.files_before, done.points), (1, 4, 4));
    for _ in 0..3 {
        let again = compactor.pass(&table(), options).await.unwrap();
        assert_eq!((again.staged, again.waiting), (0, 1), "what is replaced already is not merged again");
        assert_eq!(store.list(None).count().await, 5);
    }
}

#[tokio::test]
async fn a_dry_run_and_files_of_other_columns_change_nothing() {
    let store = filled().await;
    let compactor = RollupCompactor::new(store.clone(), Path::default());
    let options = CompactOptions { until: i64::MAX, now: i64::MAX, grace: Duration::ZERO, dry_run: true };
    let done = compactor.pass(&table(), options).await.unwrap();
    assert_eq!((done.staged, store.list(None).count().await), (1, 4));

    // Files of another program, of the same columns: without versions they are not touched.
    let other = Path::from("rollups/cpu/other.parquet");
    let plain = rows(&[(0, "z", 1.0)]);
    for path in [other.clone(), Path::from("rollups/cpu/other2.parquet")] {
        let bytes = encode(&plain.schema(), std::slice::from_ref(&plain), None).unwrap();
        store.put(&path, bytes.into()).await.unwrap();
    }
    for _ in 0..3 {
        pass(store.clone()).await.unwrap();
    }
    assert!(store.head(&other).await.is_ok());
    assert_eq!(store.list(None).count().await, 3);
}
