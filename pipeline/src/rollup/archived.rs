//! Raw points out of the archive, by event time, as the plans of rollups take them.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use chrono::{DateTime, NaiveDate};
use datafusion::common::ScalarValue;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::{SessionConfig, SessionContext, col, lit};
use object_store::ObjectStore;
use object_store::path::Path;
use operators::partial::points_schema;
use url::Url;

/// The archive has a folder for each hour of event time; in nanoseconds.
pub(super) const HOUR: i64 = 3_600_000_000_000;
/// Points that are computed on at once.
const BATCH: usize = 65_536;

/// The files under `raw/`.
pub(super) struct ArchivedPoints {
    store: Arc<dyn ObjectStore>,
    root: Path,
    url: Url,
    schema: SchemaRef,
    labels: Vec<String>,
}

impl ArchivedPoints {
    /// The archive below the storage's `url`, for plans that ask for `labels`.
    pub(super) fn open(url: &Url, labels: &[String]) -> Result<Self> {
        let (store, root) = sinks::parquet::store::open(url.as_str())?;
        let (url, root) = (url.join("raw/")?, root.join("raw"));
        Ok(Self { store, root, url, schema: points_schema(labels), labels: labels.to_vec() })
    }

    /// Starts of the hours between two times that have files, oldest first.
    pub(super) async fn hours(&self, from: i64, to: i64) -> Result<Vec<i64>> {
        let mut hours = Vec::new();
        for day in self.store.list_with_delimiter(Some(&self.root)).await?.common_prefixes {
            let Some(date) = value(&day, "date=").and_then(|date| date.parse::<NaiveDate>().ok()) else {
                continue;
            };
            let midnight = date.and_hms_opt(0, 0, 0).and_then(|start| start.and_utc().timestamp_nanos_opt());
            let Some(midnight) = midnight else { continue };
            if midnight >= to || midnight.saturating_add(24 * HOUR) <= from {
                continue;
            }
            for hour in self.store.list_with_delimiter(Some(&day)).await?.common_prefixes {
                let Some(number) = value(&hour, "hour=").and_then(|hour| hour.parse::<i64>().ok()) else {
                    continue;
                };
                let start = midnight.saturating_add(number.saturating_mul(HOUR));
                if start < to && start.saturating_add(HOUR) > from {
                    hours.push(start);
                }
            }
        }
        hours.sort_unstable();
        Ok(hours)
    }

    /// The points of some hours that are of `from` or later, and before `to`.
    pub(super) async fn read(&self, hours: &[i64], from: i64, to: i64) -> Result<SendableRecordBatchStream> {
        let config = SessionConfig::new().with_target_partitions(1).with_batch_size(BATCH);
        let session = SessionContext::new_with_config(config);
        if self.url.scheme() != "file" {
            session.register_object_store(&self.url, Arc::clone(&self.store));
        }
        let mut folders = Vec::new();
        for hour in hours {
            let folder = DateTime::from_timestamp_nanos(*hour).format("date=%Y-%m-%d/hour=%H/").to_string();
            folders.push(ListingTableUrl::parse(self.url.join(&folder)?)?);
        }
        let first = folders.first().context("no hour to read")?;
        let options = ListingOptions::new(Arc::new(ParquetFormat::default())).with_file_extension(".parquet");
        let schema = options.infer_schema(&session.state(), first).await?;
        let config = ListingTableConfig::new_with_multi_paths(folders)
            .with_listing_options(options)
            .with_schema(schema);
        let at = |time| lit(ScalarValue::TimestampNanosecond(Some(time), None));
        let frame = session
            .read_table(Arc::new(ListingTable::try_new(config)?))?
            .filter(col("time").gt_eq(at(from)).and(col("time").lt(at(to))))?;
        session.register_table("archived", frame.into_view())?;
        let labels = self.labels.iter().map(|label| format!(", labels['{}']", label.replace('\'', "''")));
        let sql = format!("SELECT name, time, value{} FROM archived", labels.collect::<String>());
        Ok(session.sql(&sql).await?.execute_stream().await?)
    }

    /// A batch of [`Self::read`] in the types that plans are made for.
    pub(super) fn typed(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut columns = Vec::new();
        for (column, field) in batch.columns().iter().zip(self.schema.fields()) {
            columns.push(cast(column, field.data_type())?);
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

/// What follows `key` in the last part of a path.
fn value<'a>(path: &'a Path, key: &str) -> Option<&'a str> {
    path.filename()?.strip_prefix(key)
}
