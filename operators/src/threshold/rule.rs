//! Alert rules: as they are written, and ready to be evaluated.

use super::condition::Condition;
use super::query::Query;
use super::state::Patience;
use super::template::Templates;
use super::verdict::MissingData;
use crate::sql::{Rollup, Shape, Tier};
use crate::window::Windows;
use arrow::datatypes::{DataType, SchemaRef};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A rule as it is written.
#[derive(Clone, Debug, Default)]
pub struct RuleSpec {
    pub name: String,
    pub watches: Watches,
    /// What must be true for a firing alert to be resolved. By default, that the condition is
    /// false. Set it below the threshold (`avg < 80`), and a value that wavers around it does not
    /// make the alert flap.
    pub recovery: Option<String>,
    /// How long the condition must hold, from the end of the first window in which it does to the
    /// end of the one that fires. Zero fires at once.
    pub for_: Duration,
    /// Fires while the window is still open, provisionally: for conditions that stay true once they
    /// are.
    pub early: bool,
    /// How long the alert must be recovered before it is resolved. Zero resolves at once.
    pub keep_firing_for: Duration,
    /// The condition holds when it is true in so many of the last so many windows.
    pub m_of_n: Option<(u32, u32)>,
    pub missing_data: MissingData,
    /// A group without a row for so long is forgotten, and its alert resolved. None: never.
    pub forget_after: Option<Duration>,
    pub severity: String,
    /// Added to those of the group in every transition.
    pub labels: BTreeMap<String, String>,
    /// A template, see [`super::template`].
    pub summary: String,
    /// A template, see [`super::template`].
    pub description: String,
    pub receivers: Vec<String>,
    pub owner: Option<String>,
    pub runbook: Option<String>,
}

/// What a rule looks at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Watches {
    /// Rows of a tier of a rollup: an SQL expression over its columns, such as `avg > 90`.
    Rows { rollup: String, tier: String, condition: String },
    /// The rows of a SELECT over a tier of one or two rollups.
    Query { sql: String, condition: String },
    /// Whether a group that has had a row gets none for so long.
    DeadMan { rollup: String, tier: String, after: Duration },
    /// Whether other rules fire for the same group: all of `all`, at least one of `any` and none of
    /// `none`.
    Rules { all: Vec<String>, any: Vec<String>, none: Vec<String> },
}

impl Default for Watches {
    fn default() -> Self {
        Self::Rows { rollup: String::new(), tier: String::new(), condition: String::new() }
    }
}

/// The rows that a rule can see.
#[derive(Clone, Debug)]
pub struct Watched {
    pub schema: SchemaRef,
    pub shape: Shape,
    pub windows: Windows,
    /// How long after a window's end its rows may still change, nanoseconds.
    pub lateness: i64,
    /// Fields that only grow while a window is open.
    pub growing: Vec<String>,
}

impl Watched {
    pub fn of(rollup: &Rollup, tier: &Tier) -> Self {
        Self {
            schema: Arc::clone(&rollup.schema),
            shape: rollup.shape.clone(),
            windows: tier.windows,
            lateness: rollup.allowed_lateness,
            growing: rollup.growing.clone(),
        }
    }

    /// Column and name of each tag.
    pub(super) fn tags(&self) -> impl Iterator<Item = (usize, &str)> {
        self.shape.tags.iter().map(|column| (*column, self.schema.field(*column).name().as_str()))
    }

    /// Column and name of each field that is a number.
    pub(super) fn numbers(&self) -> impl Iterator<Item = (usize, &str)> {
        let fields = self.shape.fields.iter().map(|column| (*column, self.schema.field(*column)));
        let is_number = |data_type: &DataType| data_type.is_numeric() || *data_type == DataType::Boolean;
        fields
            .filter(move |(_, field)| is_number(field.data_type()))
            .map(|(column, field)| (column, field.name().as_str()))
    }
}

/// A rule that is ready to be evaluated.
#[derive(Debug)]
pub struct Rule {
    pub(super) spec: RuleSpec,
    pub(super) source: RuleSource,
    pub(super) patience: Patience,
    pub(super) templates: Templates,
    pub(super) windows: Windows,
    pub(super) lateness: i64,
    pub(super) time: usize,
    /// Column and name of each tag.
    pub(super) tags: Vec<(usize, String)>,
    /// Column and name of each field that is a number.
    pub(super) fields: Vec<(usize, String)>,
    /// Of what decides its verdicts.
    pub(super) hash: String,
}

/// Where a rule's verdicts come from.
#[derive(Debug)]
pub(super) enum RuleSource {
    Rows {
        rollup: String,
        tier: String,
        conditions: Option<Conditions>,
    },
    /// `tiers`: of each source.
    Query {
        query: Query,
        tiers: Vec<String>,
        conditions: Conditions,
    },
    Rules {
        all: Vec<String>,
        any: Vec<String>,
        none: Vec<String>,
    },
}

#[derive(Debug)]
pub(super) struct Conditions {
    pub(super) condition: Condition,
    /// None when it is the opposite of the condition.
    pub(super) recovery: Option<Condition>,
}

impl Rule {
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    pub fn spec(&self) -> &RuleSpec {
        &self.spec
    }

    /// Of what decides the rule's verdicts: it changes with the condition, and not with texts or
    /// receivers.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The rollup and tier whose open windows it wants to see.
    pub(super) fn watches_open(&self) -> Option<(&str, &str)> {
        match &self.source {
            RuleSource::Rows { rollup, tier, .. } if self.spec.early => Some((rollup, tier)),
            _ => None,
        }
    }

    /// Rollup and tier of the rows that it looks at; nothing where it looks at other rules.
    pub fn sources(&self) -> Vec<(&str, &str)> {
        match &self.source {
            RuleSource::Rows { rollup, tier, .. } => vec![(rollup, tier)],
            RuleSource::Query { query, tiers, .. } => query
                .sources
                .iter()
                .zip(tiers)
                .map(|(rollup, tier)| (rollup.as_str(), tier.as_str()))
                .collect(),
            RuleSource::Rules { .. } => Vec::new(),
        }
    }

    pub(super) fn is_composite(&self) -> bool {
        matches!(self.source, RuleSource::Rules { .. })
    }

    pub(super) fn is_dead_man(&self) -> bool {
        matches!(self.source, RuleSource::Rows { conditions: None, .. })
    }

    /// How windows count in which a group has no row.
    pub(super) fn missing(&self) -> MissingData {
        if self.is_dead_man() { MissingData::Alert } else { self.spec.missing_data }
    }

    /// How long a group is remembered that gets no rows.
    pub(super) fn forget_after(&self) -> i64 {
        let after = self.spec.forget_after.and_then(nanoseconds);
        after.unwrap_or(match self.missing() {
            MissingData::Keep | MissingData::Ok => i64::MAX,
            MissingData::Alert | MissingData::NoData => DAY,
        })
    }
}

/// Where missing data alert, a group is forgotten after this long, unless the rule sets it.
const DAY: i64 = 86_400 * 1_000_000_000;

pub(super) fn nanoseconds(duration: Duration) -> Option<i64> {
    i64::try_from(duration.as_nanos()).ok()
}
