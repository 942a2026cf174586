//! Differences and progress, for people and for programs.

use std::fmt;
use std::io::IsTerminal as _;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::util::pretty::pretty_format_batches;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value as Json, json};
use sinks::rows::{RowKey, Value};

use super::compare::Difference;
use super::recompute::Progress;
use super::reconcile::Reconciled;
use crate::time::shown;

/// A difference that is listed.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) key: RowKey,
    pub(super) difference: Difference,
}

/// One line of a listing.
struct Line {
    kind: &'static str,
    field: String,
    batch: String,
    store: String,
}

/// A bar on a terminal, nothing elsewhere.
pub(super) fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} chunks  {elapsed}  {eta} left  {msg}");
    ProgressBar::new(0).with_style(style.expect("the template is valid"))
}

pub(super) fn show(bar: &ProgressBar, progress: &Progress) {
    match progress {
        Progress::Waiting(missing) => {
            bar.set_message(format!("waiting: {missing}"));
            bar.tick();
        }
        Progress::Chunks { done, of } => {
            bar.set_message("");
            bar.set_length(*of as u64);
            bar.set_position(*done as u64);
        }
    }
}

impl Found {
    fn lines(&self) -> Vec<Line> {
        let whole = |kind| Line { kind, field: String::new(), batch: String::new(), store: String::new() };
        let text = |value: &Option<Value>| value.as_ref().map_or_else(|| "none".to_owned(), Value::to_string);
        match &self.difference {
            Difference::Missing => vec![whole("missing")],
            Difference::Extra => vec![whole("extra")],
            Difference::Fields(fields) => fields
                .iter()
                .map(|(name, batch, store)| Line {
                    kind: "different",
                    field: name.clone(),
                    batch: text(batch),
                    store: text(store),
                })
                .collect(),
        }
    }

    fn json(&self) -> Json {
        let mut found = json!({ "time": shown(self.key.time), "tags": self.key.tags });
        match &self.difference {
            Difference::Missing => found["kind"] = "missing".into(),
            Difference::Extra => found["kind"] = "extra".into(),
            Difference::Fields(fields) => {
                found["kind"] = "different".into();
                let field = |(name, batch, store): &(String, Option<Value>, Option<Value>)| json!({ "field": name, "batch": json_of(batch.as_ref()), "store": json_of(store.as_ref()) });
                found["fields"] = fields.iter().map(field).collect();
            }
        }
        found
    }
}

/// NaN and the infinities, which JSON has no numbers for, are texts.
fn json_of(value: Option<&Value>) -> Json {
    match value {
        None => Json::Null,
        Some(Value::Float(value)) if !value.is_finite() => value.to_string().into(),
        Some(Value::Float(value)) => (*value).into(),
        Some(Value::Int(value)) => (*value).into(),
        Some(Value::UInt(value)) => (*value).into(),
        Some(Value::Bool(value)) => (*value).into(),
        Some(Value::Text(value)) => value.clone().into(),
    }
}

impl Reconciled {
    /// All of it for a program.
    pub fn json(&self) -> Json {
        json!({
            "table": self.table,
            "store": self.store,
            "from": shown(self.from),
            "to": shown(self.to),
            "equal": self.is_equal(),
            "skipped": self.skipped,
            "windows": self.windows,
            "rows": self.rows,
            "missing": self.missing,
            "extra": self.extra,
            "different": self.different,
            "not_compared": self.not_compared,
            "differences": self.listed.iter().map(Found::json).collect::<Vec<_>>(),
        })
    }

    fn table(&self) -> String {
        let mut cells: [Vec<String>; 6] = Default::default();
        for found in &self.listed {
            let tags: Vec<String> =
                found.key.tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
            for line in found.lines() {
                let row = [
                    line.kind.to_owned(),
                    shown(found.key.time),
                    tags.join(","),
                    line.field,
                    line.batch,
                    line.store,
                ];
                for (column, cell) in cells.iter_mut().zip(row) {
                    column.push(cell);
                }
            }
        }
        let names = ["difference", "window", "tags", "field", "batch", self.store];
        let columns = cells.into_iter().map(|column| Arc::new(StringArray::from(column)) as ArrayRef);
        let batch = RecordBatch::try_from_iter(names.into_iter().zip(columns));
        let table = batch.and_then(|batch| pretty_format_batches(&[batch]).map(|table| table.to_string()));
        table.unwrap_or_else(|error| error.to_string())
    }
}

impl fmt::Display for Reconciled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(reason) = &self.skipped {
            return write!(f, "{}: left out: {reason}", self.table);
        }
        let differences = self.missing + self.extra + self.different;
        if differences > 0 {
            writeln!(f, "{}", self.table())?;
            if (self.listed.len() as u64) < differences {
                writeln!(f, "… and {} rows more", differences - self.listed.len() as u64)?;
            }
        }
        let verdict = if differences == 0 { "equal" } else { "not equal" };
        write!(
            f,
            "{}: {verdict}: {} windows from {} to {}, {} rows in batch; in {}: {} missing, {} extra, {} different",
            self.table,
            self.windows,
            shown(self.from),
            shown(self.to),
            self.rows,
            self.store,
            self.missing,
            self.extra,
            self.different
        )?;
        if !self.not_compared.is_empty() {
            write!(
                f,
                "\n  not compared, as computed from approximate values: {}",
                self.not_compared.join(", ")
            )?;
        }
        Ok(())
    }
}
