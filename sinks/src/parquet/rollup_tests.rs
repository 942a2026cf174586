//! What the files hold, and that replays and failures lose nothing. The SQL itself runs in the
//! workspace's integration tests, where DataFusion is at hand.

use arrow::array::{AsArray, Float64Array, StringArray, TimestampNanosecondArray};
use arrow::datatypes::{Float64Type, Int64Type, TimestampNanosecondType};
use futures::TryStreamExt;
use object_store::memory::InMemory;

use super::*;
use crate::parquet::points::tests::read;

fn table() -> Arc<Table> {
    Arc::new(Table { name: "cpu_1m".into(), time: 0, tags: vec![1], fields: vec![2], ..Table::default() })
}

fn batch(rows: &[(i64, &str, f64)]) -> RecordBatch {
    let columns: [(&str, ArrayRef); 3] = [
        ("window_start", Arc::new(TimestampNanosecondArray::from_iter_values(rows.iter().map(|row| row.0)))),
        ("region", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1)))),
        ("avg", Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.2)))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn rows(offset: i64, rows: &[(i64, &str, f64)], withdrawn: &[(i64, &str, f64)]) -> RollupRows {
    let withdrawn = (!withdrawn.is_empty()).then(|| batch(withdrawn));
    RollupRows { table: table(), rows: batch(rows), withdrawn, partition: 0, offset }
}

async fn files(store: &InMemory) -> Vec<Path> {
    let mut files: Vec<Path> = store.list(None).map_ok(|file| file.location).try_collect().await.unwrap();
    files.sort();
    files
}

/// The current rows, as the SELECT defines them.
async fn current(store: &InMemory) -> Vec<String> {
    let mut newest: HashMap<(i64, String), (i64, bool, f64)> = HashMap::new();
    for path in files(store).await {
        let batch = read(store.get(&path).await.unwrap().bytes().await.unwrap().to_vec());
        for row in 0..batch.num_rows() {
            let key = (
                batch.column(0).as_primitive::<TimestampNanosecondType>().value(row),
                batch.column(1).as_string::<i32>().value(row).to_owned(),
            );
            let version = batch.column_by_name(VERSION).unwrap().as_primitive::<Int64Type>().value(row);
            let exists = !batch.column_by_name(WITHDRAWN).unwrap().as_boolean().value(row);
            let value = batch.column(2).as_primitive::<Float64Type>().value(row);
            let entry = newest.entry(key).or_insert((version, exists, value));
            if (version, exists) > (entry.0, entry.1) {
                *entry = (version, exists, value);
            }
        }
    }
    let mut shown: Vec<String> = newest
        .into_iter()
        .filter(|(_, (_, exists, _))| *exists)
        .map(|((time, region), (_, _, value))| format!("{time} {region} {value}"))
        .collect();
    shown.sort();
    shown
}

#[tokio::test]
async fn rows_of_one_offset_that_come_in_parts_share_a_file_however_full_the_buffer_is() {
    let store = Arc::new(InMemory::new());
    let sink = RollupParquet { max_buffered: 0, ..RollupParquet::new(store.clone(), Path::from("x")) };
    for region in ["eu", "sa", "us"] {
        sink.write(rows(5, &[(0, region, 1.0)], &[])).await.unwrap();
    }
    sink.write(rows(6, &[(0, "us", 2.0)], &[])).await.unwrap();
    sink.flush().await.unwrap();
    assert_eq!(current(&store).await, ["0 eu 1", "0 sa 1", "0 us 2"]);
    assert_eq!(files(&store).await.len(), 2, "the buffer was stored between the offsets");
}

#[tokio::test]
async fn corrections_and_withdrawals_win_by_their_offset() {
    let store = Arc::new(InMemory::new());
    let sink = RollupParquet::new(store.clone(), Path::from("x"));
    sink.write(rows(5, &[(0, "eu", 1.0), (0, "us", 2.0)], &[])).await.unwrap();
    sink.write(rows(6, &[(60, "eu", 3.0)], &[(0, "us", 0.0)])).await.unwrap();
    assert!(files(&store).await.is_empty(), "nothing before the flush");
    sink.flush().await.unwrap();
    let [file] = files(&store).await.try_into().unwrap();
    let name = "x/rollups/cpu_1m/0-00000000000000000005-00000000000000000006-";
    assert!(file.as_ref().starts_with(name), "{file}");
    assert_eq!(current(&store).await, ["0 eu 1", "60 eu 3"]);

    sink.write(rows(9, &[(0, "us", 7.0)], &[(0, "us", 0.0)])).await.unwrap();
    sink.flush().await.unwrap();
    sink.flush().await.unwrap();
    assert_eq!(current(&store).await, ["0 eu 1", "0 us 7", "60 eu 3"]);
    assert_eq!(files(&store).await.len(), 2, "an empty flush writes no file");
}

#[tokio::test]
async fn rows_of_one_offset_may_be_flushed_in_parts_and_equal_content_is_one_file() {
    let store = Arc::new(InMemory::new());
    let sink = RollupParquet::new(store.clone(), Path::default());
    for _ in 0..2 {
        for region in ["eu", "us"] {
            sink.write(rows(5, &[(0, region, 1.0)], &[])).await.unwrap();
            sink.flush().await.unwrap();
        }
        assert_eq!(current(&store).await, ["0 eu 1", "0 us 1"]);
        assert_eq!(files(&store).await.len(), 2);
    }
}

#[tokio::test]
async fn a_replay_cut_anywhere_changes_nothing() {
    let log = [
        rows(1, &[(0, "eu", 1.0)], &[]),
        rows(2, &[(0, "eu", 2.0), (60, "us", 1.0)], &[]),
        rows(3, &[(60, "eu", 1.0)], &[(60, "us", 0.0)]),
    ];
    let store = Arc::new(InMemory::new());
    let sink = RollupParquet::new(store.clone(), Path::default());
    for input in &log {
        sink.write(input.clone()).await.unwrap();
    }
    sink.flush().await.unwrap();
    let before = current(&store).await;
    for start in 0..log.len() {
        for end in start..=log.len() {
            // A process that ended before its second flush.
            let replay = RollupParquet::new(store.clone(), Path::default());
            for input in &log[start..end] {
                replay.write(input.clone()).await.unwrap();
            }
            replay.flush().await.unwrap();
            assert_eq!(current(&store).await, before, "replay of {start}..{end}");
        }
    }
}

#[tokio::test]
async fn what_could_not_be_stored_is_stored_by_the_next_flush() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("data");
    let (store, prefix) = crate::parquet::store::open(root.to_str().unwrap()).unwrap();
    let sink = RollupParquet::new(store, prefix);
    sink.write(rows(1, &[(0, "eu", 1.0)], &[])).await.unwrap();
    // A file where the folder should be.
    std::fs::write(root.join("rollups"), "").unwrap();
    assert!(sink.flush().await.unwrap_err().retryable());
    std::fs::remove_file(root.join("rollups")).unwrap();
    sink.flush().await.unwrap();
    assert_eq!(std::fs::read_dir(root.join("rollups/cpu_1m")).unwrap().count(), 1);
}

#[test]
fn sql_names_key_and_versions() {
    let sql = latest_rows_sql(&table(), &["window_start", "region", "a\"vg"]);
    assert_eq!(
        sql,
        "SELECT \"window_start\", \"region\", \"a\"\"vg\" FROM (SELECT \"window_start\", \"region\", \"a\"\"vg\", \
         _version, _withdrawn FROM (SELECT *, row_number() OVER (PARTITION BY \"window_start\", \"region\" \
         ORDER BY _version DESC, _withdrawn) AS _age FROM \"cpu_1m_versions\") AS aged WHERE _age = 1\
         ) AS versions WHERE NOT _withdrawn"
    );
}
