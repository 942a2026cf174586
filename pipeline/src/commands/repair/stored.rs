//! The rows that a store holds, read and replaced: InfluxDB's or the embedded store's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{
    ArrayRef, AsArray, RecordBatch, StringArray, TimestampNanosecondArray, UInt32Array, new_null_array,
};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::Int64Type;
use operators::sql::Rollup;
use query::{Cold, Target, latest_rows};
use sinks::influx::{InfluxReader, InfluxTiers, RejectedLine, stored_rows};
use sinks::parquet::RollupParquet;
use sinks::parquet::rollup::{VERSION, WITHDRAWN};
use sinks::rows::{Fields, RowKey, rows};
use sinks::{RollupRows, Sink as _, Table};
use uuid::Uuid;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::roles::rollup::influx_config;

/// Where the rows of rollups are.
pub(super) enum Store {
    Influx {
        reader: InfluxReader,
        /// Only when rows are to be written.
        sink: Option<Box<InfluxTiers>>,
        refused: Refused,
    },
    Parquet {
        cold: Cold,
        files: RollupParquet,
    },
}

/// Rows that the server would not take: how many, and the first reason.
type Refused = Arc<Mutex<(u64, Option<String>)>>;

/// The rows of a range.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) rows: BTreeMap<RowKey, Fields>,
    /// In the embedded store, the version of each key, also of those that exist no more.
    versions: BTreeMap<RowKey, i64>,
}

impl Found {
    /// Rows of files, of each key the newest version.
    fn in_files(table: &Table, newest: &RecordBatch) -> Result<Self> {
        let version =
            newest.column_by_name(VERSION).and_then(|column| column.as_primitive_opt::<Int64Type>());
        let withdrawn = newest.column_by_name(WITHDRAWN).and_then(|column| column.as_boolean_opt());
        let (Some(version), Some(withdrawn)) = (version, withdrawn) else {
            return Err(Error::Refused(format!("files of `{}` in rollups/ have no versions", table.name)));
        };
        let mut found = Self::default();
        for (row, (key, fields)) in rows(table, newest)?.into_iter().enumerate() {
            found.versions.insert(key.clone(), version.value(row));
            if !withdrawn.value(row) {
                found.rows.insert(key, fields);
            }
        }
        Ok(found)
    }
}

/// What is to become of a range.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Rows of the batch that are written.
    pub(super) write: Vec<u32>,
    /// Their keys, in the same order.
    pub(super) keys: Vec<RowKey>,
    /// Of these, keys whose row in the store has fields that the new one lacks.
    pub(super) emptied: Vec<RowKey>,
    /// Rows that exist no more.
    pub(super) remove: Vec<RowKey>,
}

impl Store {
    pub(super) async fn open(config: &Config, cold: &Cold, rollup: &Rollup, writes: bool) -> Result<Self> {
        let Some(configured) = &config.influx else {
            let files = RollupParquet::new(Arc::clone(&cold.store), cold.prefix.clone());
            return Ok(Self::Parquet { cold: cold.clone(), files });
        };
        let influx = influx_config(configured);
        let tiers =
            rollup.tiers()[1..].iter().map(|tier| (tier.name.clone(), configured.bucket_of(&tier.name)));
        let tiers: BTreeMap<_, _> = tiers.collect();
        let reader = InfluxReader::new(&influx, tiers.clone())?;
        let refused = Refused::default();
        let sink = match writes {
            true => {
                let refused = Arc::clone(&refused);
                let note = Arc::new(move |line: RejectedLine| note(&refused, &line));
                Some(Box::new(InfluxTiers::connect(influx, tiers, note).await?))
            }
            false => None,
        };
        Ok(Self::Influx { reader, sink, refused })
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Influx { .. } => "influxdb",
            Self::Parquet { .. } => "rollups/",
        }
    }

    /// The rows of a batch as they are once stored; none for one that leaves nothing.
    pub(super) fn as_stored(
        &self,
        target: &Target,
        batch: &RecordBatch,
    ) -> Result<Vec<Option<(RowKey, Fields)>>> {
        Ok(match self {
            Self::Influx { .. } => stored_rows(&target.table, batch)?,
            Self::Parquet { .. } => rows(&target.table, batch)?.into_iter().map(Some).collect(),
        })
    }

    /// The name under which a column is stored.
    pub(super) fn stored_name(&self, column: &str) -> String {
        match self {
            Self::Influx { .. } => sinks::influx::encode::stored_name(column),
            Self::Parquet { .. } => column.to_owned(),
        }
    }

    pub(super) async fn read(&self, target: &Target, from: i64, to: i64) -> Result<Found> {
        match self {
            Self::Influx { reader, .. } => {
                let rows = reader.rows(&target.table, from, to).await?;
                Ok(Found { rows, versions: BTreeMap::new() })
            }
            Self::Parquet { cold, .. } => {
                let rows = latest_rows(cold, target, from, to).await?;
                rows.map_or(Ok(Found::default()), |rows| Found::in_files(&target.table, &rows))
            }
        }
    }

    /// Whether a row can be deleted: InfluxDB deletes by the tags that a point has, so that without
    /// one of them, or with those of another program, other points would go as well.
    pub(super) fn can_remove(&self, target: &Target, key: &RowKey) -> bool {
        match self {
            Self::Influx { .. } => {
                let tags = target.table.tags.iter();
                let names: Vec<String> =
                    tags.map(|tag| self.stored_name(target.schema.field(*tag).name())).collect();
                names.len() == key.tags.len() && names.iter().all(|name| key.tags.contains_key(name))
            }
            Self::Parquet { .. } => true,
        }
    }

    /// Replaces rows of a range. Durable for certain after [`Store::flush`].
    pub(super) async fn apply(
        &self,
        target: &Target,
        batch: &RecordBatch,
        found: &Found,
        changes: Changes,
    ) -> Result<()> {
        let own: Vec<usize> = (0..target.schema.fields().len()).collect();
        let rows = batch.project(&own).map_err(sinks::Error::Arrow)?;
        let rows =
            take_record_batch(&rows, &UInt32Array::from(changes.write)).map_err(sinks::Error::Arrow)?;
        match self {
            Self::Influx { sink: None, .. } => Ok(()),
            Self::Influx { sink: Some(sink), .. } => {
                let gone: Vec<RowKey> = changes.emptied.into_iter().chain(changes.remove).collect();
                let withdrawn = if gone.is_empty() { None } else { Some(self.keys(target, &gone)?) };
                let table = Arc::clone(&target.table);
                Ok(sink.write(RollupRows { table, rows, withdrawn, partition: 0, offset: 0 }).await?)
            }
            Self::Parquet { files, .. } => {
                let removed = self.keys(target, &changes.remove)?;
                let all = concat_batches(&target.schema, [&rows, &removed]).map_err(sinks::Error::Arrow)?;
                let version = |key: &RowKey| found.versions.get(key).map_or(0, |version| version + 1);
                let versions = changes.keys.iter().chain(&changes.remove).map(version).collect();
                let withdrawn = (0..all.num_rows()).map(|row| row >= rows.num_rows()).collect();
                let id = Uuid::new_v4().simple().to_string();
                Ok(files.replace(&target.table, &all, versions, withdrawn, &id).await?)
            }
        }
    }

    /// Ok means that everything applied is durable. Returns how many rows the server would not
    /// take, and why.
    pub(super) async fn flush(&self) -> Result<(u64, Option<String>)> {
        let Self::Influx { sink: Some(sink), refused, .. } = self else { return Ok((0, None)) };
        sink.flush().await?;
        Ok(refused.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Rows with nothing but a key.
    fn keys(&self, target: &Target, keys: &[RowKey]) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = Vec::new();
        for (index, field) in target.schema.fields().iter().enumerate() {
            let column: ArrayRef = if index == target.table.time {
                Arc::new(TimestampNanosecondArray::from_iter_values(keys.iter().map(|key| key.time)))
            } else if target.table.tags.contains(&index) {
                let name = self.stored_name(field.name());
                Arc::new(StringArray::from_iter(keys.iter().map(|key| key.tags.get(&name))))
            } else {
                new_null_array(field.data_type(), keys.len())
            };
            columns.push(cast(&column, field.data_type()).map_err(sinks::Error::Arrow)?);
        }
        Ok(RecordBatch::try_new(Arc::clone(&target.schema), columns).map_err(sinks::Error::Arrow)?)
    }
}

fn note(refused: &Refused, line: &RejectedLine) {
    let mut refused = refused.lock().unwrap_or_else(PoisonError::into_inner);
    refused.0 += 1;
    refused.1.get_or_insert_with(|| format!("{}: {}", line.line, line.reason));
}
