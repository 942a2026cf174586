//! Threshold rules: as they are written, and compiled against the output of the rollup they watch.

use super::condition::Condition;
use super::template::Templates;
use crate::sql::Shape;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::prelude::SessionContext;
use std::collections::BTreeMap;
use std::time::Duration;
use thiserror::Error;

/// A rule as it is written.
#[derive(Clone, Debug, Default)]
pub struct RuleSpec {
    pub name: String,
    /// The rollup whose rows the rule watches.
    pub rollup: String,
    /// The tier of the rollup, `1h`.
    pub tier: String,
    /// An SQL expression over the rollup's output columns, such as `avg > 90`.
    pub condition: String,
    /// What must be true for a firing alert to be resolved. By default, that the condition is false.
    /// Set it below the threshold (`avg < 80`), and a value that wavers around it does not make the
    /// alert flap.
    pub recovery: Option<String>,
    /// How long the condition must hold, from the end of the first window in which it does to the end of
    /// the one that fires. Zero fires at once.
    pub for_: Duration,
    pub severity: String,
    /// Added to those of the group in every transition.
    pub labels: BTreeMap<String, String>,
    /// A template, see [`super::template`].
    pub summary: String,
    /// A template, see [`super::template`].
    pub description: String,
    pub receivers: Vec<String>,
}

/// A mistake in a rule, for whoever wrote it.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("alert rule `{rule}`, key `{key}`: {message}; {remedy}")]
pub struct RuleError {
    pub rule: String,
    /// The key in the rule's configuration.
    pub key: &'static str,
    pub message: String,
    /// What to write instead.
    pub remedy: String,
}

/// A rule that is ready to be evaluated.
#[derive(Debug)]
pub struct Rule {
    pub(super) spec: RuleSpec,
    /// `for`, in nanoseconds.
    pub(super) hold: i64,
    pub(super) condition: Condition,
    /// None when it is the opposite of the condition.
    pub(super) recovery: Option<Condition>,
    pub(super) templates: Templates,
    pub(super) time: usize,
    /// Column and name of each tag.
    pub(super) tags: Vec<(usize, String)>,
    /// Column and name of each field that is a number.
    pub(super) fields: Vec<(usize, String)>,
}

impl Rule {
    /// Compiles a rule against the output of its rollup.
    pub fn compile(spec: RuleSpec, schema: &SchemaRef, shape: &Shape) -> Result<Self, RuleError> {
        let rule = spec.name.clone();
        let wrong = |key: &'static str| {
            let rule = rule.clone();
            move |Complaint { message, remedy }| RuleError { rule, key, message, remedy }
        };
        if spec.name.trim().is_empty() {
            let complaint = Complaint::new("the rule has no name", "give it one that is its own");
            return Err(wrong("name")(complaint));
        }
        let named = |column: &usize| Some((*column, schema.fields().get(*column)?.name().clone()));
        let columns = |columns: &[usize]| columns.iter().map(named).collect::<Option<Vec<_>>>();
        let (Some(tags), Some(fields)) = (columns(&shape.tags), columns(&shape.fields)) else {
            let complaint =
                Complaint::new("the rollup has fewer columns than its shape says", "check the rollup");
            return Err(wrong("rollup")(complaint));
        };
        let time = schema.fields().get(shape.time).map(|field| field.data_type());
        if !matches!(time, Some(DataType::Timestamp(_, _))) {
            let complaint = Complaint::new("the rollup has no window start", "group it by `tumble(time, …)`");
            return Err(wrong("rollup")(complaint));
        }
        if let Some((_, tag)) = tags.iter().find(|(_, tag)| spec.labels.contains_key(tag)) {
            let message =
                format!("`{tag}` is also a tag of the rollup, which every alert carries as a label");
            return Err(wrong("labels")(Complaint::new(message, "give the rule's label another name")));
        }
        let Ok(hold) = i64::try_from(spec.for_.as_nanos()) else {
            return Err(wrong("for")(Complaint::new(
                "the duration is above 292 years",
                "write a shorter one",
            )));
        };

        let context = SessionContext::new();
        let df_schema = DFSchema::try_from(schema.as_ref().clone()).map_err(|error| {
            wrong("rollup")(Complaint::new(
                error.strip_backtrace(),
                "give each column of the rollup its own name",
            ))
        })?;
        let condition =
            Condition::compile(&spec.condition, &context, &df_schema).map_err(wrong("condition"))?;
        let recovery = match &spec.recovery {
            Some(sql) => Some(Condition::compile(sql, &context, &df_schema).map_err(wrong("recovery"))?),
            None => None,
        };

        let numeric = |(column, _): &(usize, String)| {
            let found = schema.field(*column).data_type();
            found.is_numeric() || *found == DataType::Boolean
        };
        let fields: Vec<_> = fields.into_iter().filter(numeric).collect();
        let labels = tags.iter().map(|(_, name)| name).chain(spec.labels.keys());
        let templates = Templates::compile(
            &spec,
            &labels.map(String::as_str).collect::<Vec<_>>(),
            &fields.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>(),
        )
        .map_err(|(key, complaint)| wrong(key)(complaint))?;
        Ok(Self { spec, hold, condition, recovery, templates, time: shape.time, tags, fields })
    }

    pub fn name(&self) -> &str {
        &self.spec.name
    }

    pub fn spec(&self) -> &RuleSpec {
        &self.spec
    }
}

/// The message and remedy of a [`RuleError`], before it is known where they belong.
#[derive(Debug)]
pub(super) struct Complaint {
    message: String,
    remedy: String,
}

impl Complaint {
    pub(super) fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: remedy.into() }
    }
}

/// The candidate that was most likely meant by `word`, if any is alike.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len().min(word.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Names in backquotes, for a message.
pub(super) fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
