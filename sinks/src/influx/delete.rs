//! Withdrawn rows to delete requests of InfluxDB 2 (`POST /api/v2/delete`).
//!
//! A request deletes the points of a time range whose tags satisfy a predicate, and a predicate can
//! only ask for tags that are there. So a row that lacks one of its table's tags cannot be deleted
//! without the rows that have it: [`Deletion`] has that, and the caller reports it.

use serde_json::{Value, json};

use super::encode::Series;
use crate::timestamp::rfc3339;

/// How to withdraw one row.
#[derive(Debug, PartialEq)]
pub(crate) enum Deletion {
    /// The body of the request.
    Request(Value),
    /// This point, in line protocol, has to stay: it lacks this tag.
    Impossible { point: String, missing_tag: String },
}

pub(crate) fn deletion(series: &Series, row: usize) -> Deletion {
    let mut predicate = format!("_measurement={}", literal(series.measurement()));
    for (name, value) in series.tags(row) {
        let Some(value) = value else {
            let point = format!("{} {}", series.line_head(row), series.time(row));
            return Deletion::Impossible { point, missing_tag: name.to_owned() };
        };
        predicate.push_str(&format!(" AND {}={}", literal(name), literal(&value)));
    }
    // Both ends of the range are inside it.
    let time = rfc3339(series.time(row));
    Deletion::Request(json!({ "start": time, "stop": time, "predicate": predicate }))
}

/// A double-quoted name or value; quotes and backslashes are the only characters to escape, as
/// stored names and values have no line breaks.
fn literal(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampNanosecondArray};

    use super::*;
    use crate::Table;

    #[test]
    fn a_row_is_deleted_by_all_its_tags_and_its_exact_time() {
        let time: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![60_000_000_001, 0]));
        let region: ArrayRef = Arc::new(StringArray::from(vec![Some("e\"u\\"), None]));
        let host: ArrayRef = Arc::new(StringArray::from(vec!["h 1", "h2"]));
        let rows = RecordBatch::try_from_iter([("time", time), ("region", region), ("host", host)]).unwrap();
        let table = Table { rollup: "cpu".into(), time: 0, tags: vec![1, 2], ..Table::default() };
        let series = Series::new(&table, &rows).unwrap();
        assert_eq!(
            deletion(&series, 0),
            Deletion::Request(json!({
                "start": "1970-01-01T00:01:00.000000001Z",
                "stop": "1970-01-01T00:01:00.000000001Z",
                "predicate": r#"_measurement="cpu" AND "host"="h 1" AND "region"="e\"u\\ ""#,
            }))
        );
        assert_eq!(
            deletion(&series, 1),
            Deletion::Impossible { point: "cpu,host=h2 0".into(), missing_tag: "region".into() }
        );
    }
}
