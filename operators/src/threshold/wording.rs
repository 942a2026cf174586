//! From a change to its message.

use super::group::Emitted;
use super::rule::Rule;
use super::state::Change;
use alerts::{StageTimes, Status, Transition, incident_id, provisional_id, transition_id};
use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::record_batch::RecordBatch;
use std::collections::BTreeMap;

/// The label by which an alert about missing data differs from the rule's own.
pub const NO_DATA_LABEL: &str = "no_data";

/// A rule, and the rows that it has judged.
pub(super) struct Wording<'a> {
    pub(super) rule: &'a Rule,
    pub(super) rows: Option<&'a RecordBatch>,
}

impl Wording<'_> {
    /// `row` and `window_start` are those of the row that made the change, if one did.
    pub(super) fn transition(
        &self,
        tags: &[String],
        emitted: Emitted,
        row: Option<usize>,
        window_start: i64,
    ) -> Transition {
        let spec = &self.rule.spec;
        let (status, starts_at, ends_at) = match emitted.change {
            Change::Pending { since } => (Status::Pending, since, None),
            Change::Fired { since } => (Status::Firing, since, None),
            Change::Resolved { since } => (Status::Resolved, since, Some(emitted.end)),
            Change::Ended { since } => (Status::Inactive, since, Some(emitted.end)),
        };
        let names = self.rule.tags.iter().map(|(_, name)| name.as_str());
        let absence = emitted.is_absence.then_some((NO_DATA_LABEL, "true"));
        let group = || names.clone().zip(tags.iter().map(String::as_str)).chain(absence);
        let mut labels = spec.labels.clone();
        labels
            .extend(group().filter(|(_, tag)| !tag.is_empty()).map(|(name, tag)| (name.into(), tag.into())));
        let values = match (self.rows, row) {
            (Some(rows), Some(row)) => self.values(rows, row),
            _ => BTreeMap::new(),
        };
        let window_start =
            if row.is_some() { window_start } else { emitted.end.saturating_sub(self.rule.windows.size()) };
        let mut transition = Transition {
            id: match emitted.is_provisional {
                true => provisional_id(&spec.name, group(), emitted.end, emitted.revision),
                false => transition_id(&spec.name, group(), emitted.end, status, emitted.revision),
            },
            incident: incident_id(&spec.name, group(), starts_at),
            rule: spec.name.clone(),
            status,
            severity: spec.severity.clone(),
            labels,
            summary: String::new(),
            description: String::new(),
            values,
            starts_at,
            ends_at,
            window_start,
            window_end: emitted.end,
            receivers: spec.receivers.clone(),
            cause: emitted.cause,
            provisional: emitted.is_provisional,
            revision: emitted.revision,
            rule_hash: self.rule.hash.clone(),
            owner: spec.owner.clone(),
            runbook: spec.runbook.clone(),
            times: StageTimes::default(),
            partition: None,
        };
        self.rule.templates.render(&mut transition);
        if emitted.is_absence {
            transition.summary = format!("no data: {}", transition.summary);
        }
        transition
    }

    /// The row's numbers. JSON has no infinities and no NaN.
    fn values(&self, rows: &RecordBatch, row: usize) -> BTreeMap<String, f64> {
        let mut values = BTreeMap::new();
        for (column, name) in &self.rule.fields {
            let Some(Ok(number)) =
                rows.columns().get(*column).map(|column| cast(&column.slice(row, 1), &DataType::Float64))
            else {
                continue;
            };
            let number = number.as_primitive::<Float64Type>();
            if number.is_valid(0) && number.value(0).is_finite() {
                values.insert(name.clone(), number.value(0));
            }
        }
        values
    }
}
