//! Reads rows back: Flux queries, and the annotated CSV that answers them.
//!
//! <https://docs.influxdata.com/influxdb/v2/reference/syntax/annotated-csv/>
//!
//! A query asks for a range of time. When the answer is larger than [`PAGE`], the range is halved,
//! so that memory is bounded by the caller's range or by a page, whichever is less.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use chrono::DateTime;
use serde_json::{Value as Json, json};

use super::client::{Client, Queried};
use super::encode::{Series, stored_name};
use super::{Bucket, InfluxConfig};
use crate::rows::{Fields, RowKey, Value, values};
use crate::timestamp::rfc3339;
use crate::{Error, Table};
use arrow::record_batch::RecordBatch;
use std::collections::BTreeMap;

/// Bytes of one answer.
const PAGE: usize = 64 << 20;
/// How long a server that is away or busy is asked again.
const ATTEMPTS: usize = 6;
/// Columns of every answer before those of the data: annotation, result, table.
const FIXED_COLUMNS: usize = 3;

/// Reads from the buckets that [`super::InfluxTiers`] writes to.
#[derive(Debug)]
pub struct InfluxReader {
    client: Client,
    finest: String,
    /// By the length of the tier.
    coarser: BTreeMap<String, Bucket>,
}

impl InfluxReader {
    /// `tiers` are the buckets beyond that of `config`. The server is not contacted yet.
    pub fn new(config: &InfluxConfig, tiers: BTreeMap<String, Bucket>) -> Result<Self, Error> {
        config.check()?;
        Ok(Self { client: Client::new(config)?, finest: config.bucket.clone(), coarser: tiers })
    }

    /// The rows of a table with `start <= time < end`, with tags and fields as they are stored;
    /// also those that other programs wrote under its name.
    ///
    /// Fails with [`Error::Unavailable`] when the server is away for long, with [`Error::Refused`]
    /// when it refuses the query.
    pub async fn rows(&self, table: &Table, start: i64, end: i64) -> Result<BTreeMap<RowKey, Fields>, Error> {
        let bucket = match self.coarser.get(&table.tier) {
            Some(bucket) if !table.is_finest => &bucket.name,
            _ => &self.finest,
        };
        let mut rows = BTreeMap::new();
        let mut todo = vec![(start, end)];
        while let Some((start, end)) = todo.pop() {
            if start >= end {
                continue;
            }
            let flux = flux(bucket, &stored_name(&table.rollup), start, end);
            match self.ask(&flux).await? {
                Some(csv) => parse(&csv, &mut rows).map_err(|reason| self.client.unreadable(reason))?,
                None if end - start == 1 => {
                    let reason = "more than 64 MiB of rows of one instant".to_owned();
                    return Err(self.client.unreadable(reason));
                }
                None => {
                    let middle = start + (end - start) / 2;
                    todo.extend([(middle, end), (start, middle)]);
                }
            }
        }
        Ok(rows)
    }

    /// The answer, or none when it is larger than a page.
    async fn ask(&self, flux: &str) -> Result<Option<Vec<u8>>, Error> {
        let body = json!({
            "query": flux,
            "dialect": { "annotations": ["datatype"], "header": true, "dateTimeFormat": "RFC3339Nano" },
        });
        let ask = || async {
            match self.client.query(&body, PAGE).await? {
                Queried::Csv(csv) => Ok(Some(csv)),
                Queried::TooLarge => Ok(None),
            }
        };
        let backoff = ExponentialBuilder::default().with_jitter().with_max_delay(Duration::from_secs(10));
        ask.retry(backoff.with_max_times(ATTEMPTS)).when(Error::retryable).await
    }
}

/// The rows of a batch as they are in InfluxDB once written: the other side of a comparison with
/// [`InfluxReader::rows`]. None for a row of which nothing is written, as it has no finite field.
pub fn stored_rows(table: &Table, batch: &RecordBatch) -> Result<Vec<Option<(RowKey, Fields)>>, Error> {
    let series = Series::new(table, batch)?;
    let mut rows: Vec<(RowKey, Fields)> = (0..series.len())
        .map(|row| {
            let tags =
                series.tags(row).filter_map(|(name, value)| Some((name.to_owned(), value?.into_owned())));
            (RowKey { time: series.time(row), tags: tags.collect() }, Fields::new())
        })
        .collect();
    for column in &table.fields {
        let name = stored_name(batch.schema_ref().field(*column).name());
        for (row, value) in rows.iter_mut().zip(values(batch.column(*column))?) {
            let value = value.filter(|value| value.as_f64().is_none_or(f64::is_finite));
            row.1.extend(value.map(|value| (name.clone(), value)));
        }
    }
    Ok(rows.into_iter().map(|row| (!row.1.is_empty()).then_some(row)).collect())
}

fn flux(bucket: &str, measurement: &str, start: i64, end: i64) -> String {
    format!(
        "from(bucket: {}) |> range(start: {}, stop: {}) |> filter(fn: (r) => r._measurement == {})",
        literal(bucket),
        rfc3339(start),
        rfc3339(end),
        literal(measurement)
    )
}

/// A Flux string. `${` would begin an expression.
fn literal(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace("${", "\\${");
    format!("\"{escaped}\"")
}

/// Adds the rows of an answer. A `#datatype` row and a row of names begin each table.
fn parse(csv: &[u8], rows: &mut BTreeMap<RowKey, Fields>) -> Result<(), String> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(csv);
    let mut kinds: Vec<String> = Vec::new();
    let mut names: Option<Vec<String>> = None;
    for record in reader.records() {
        let record = record.map_err(|error| error.to_string())?;
        let cells: Vec<&str> = record.iter().collect();
        if cells.first() == Some(&"#datatype") {
            kinds = cells.into_iter().map(str::to_owned).collect();
            names = None;
            continue;
        }
        let Some(names) = &names else {
            names = Some(cells.into_iter().map(str::to_owned).collect());
            continue;
        };
        if names.get(1).is_some_and(|name| name == "error") {
            return Err(format!("the query failed underway: {}", cells.get(1).unwrap_or(&"")));
        }
        if cells.len() != names.len() || cells.len() != kinds.len() {
            return Err(format!("a row of {} cells under {} names", cells.len(), names.len()));
        }
        add(names, &kinds, &cells, rows)?;
    }
    Ok(())
}

fn add(
    names: &[String],
    kinds: &[String],
    cells: &[&str],
    rows: &mut BTreeMap<RowKey, Fields>,
) -> Result<(), String> {
    let mut key = RowKey { time: 0, tags: BTreeMap::new() };
    let (mut time, mut field, mut value) = (None, None, None);
    for ((name, kind), cell) in names.iter().zip(kinds).zip(cells).skip(FIXED_COLUMNS) {
        match name.as_str() {
            "_time" => {
                time = DateTime::parse_from_rfc3339(cell).ok().and_then(|time| time.timestamp_nanos_opt());
            }
            "_field" => field = Some((*cell).to_owned()),
            "_value" => value = Some(value_of(kind, cell).ok_or_else(|| format!("`{cell}` is no {kind}"))?),
            "_start" | "_stop" | "_measurement" => {}
            _ if cell.is_empty() => {}
            _ => _ = key.tags.insert(name.clone(), (*cell).to_owned()),
        }
    }
    let (Some(time), Some(field), Some(value)) = (time, field, value) else {
        return Err("a row without time, field or value".into());
    };
    key.time = time;
    rows.entry(key).or_default().insert(field, value);
    Ok(())
}

fn value_of(kind: &str, cell: &str) -> Option<Value> {
    Some(match kind {
        "double" => Value::Float(cell.parse().ok()?),
        "long" => Value::Int(cell.parse().ok()?),
        "unsignedLong" => Value::UInt(cell.parse().ok()?),
        "boolean" => Value::Bool(cell.parse().ok()?),
        _ => Value::Text(cell.to_owned()),
    })
}

/// The text of a refusal.
pub(super) fn message(body: &[u8]) -> String {
    let json: Option<Json> = serde_json::from_slice(body).ok();
    let text = json.as_ref().and_then(|json| json["message"].as_str()).map(str::to_owned);
    let text = text.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    crate::http::cut(text.trim(), 300).to_owned()
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;
