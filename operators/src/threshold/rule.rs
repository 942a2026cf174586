//! Alert rules: as they are written, and compiled against what they watch.

use super::composite::MOST_OPERANDS;
use super::condition::Condition;
use super::labels::check_labels;
use super::query::Query;
use super::state::{MOST_WINDOWS, Patience};
use super::template::Templates;
use super::verdict::MissingData;
use crate::sql::{Rollup, Shape, Tier, chain_of_operations, rule_session};
use crate::window::Windows;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::DFSchema;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use twox_hash::XxHash3_64;

/// A rule as it is written.
#[derive(Clone, Debug, Default)]
pub struct RuleSpec {
    pub name: String,
    pub watches: Watches,
    /// What must be true for a firing alert to be resolved. By default, that the condition is false.
    /// Set it below the threshold (`avg < 80`), and a value that wavers around it does not make the
    /// alert flap.
    pub recovery: Option<String>,
    /// How long the condition must hold, from the end of the first window in which it does to the end of
    /// the one that fires. Zero fires at once.
    pub for_: Duration,
    /// Fires while the window is still open, provisionally: for conditions that stay true once they are.
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
    /// Whether other rules fire for the same group: all of `all`, at least one of `any` and none of `none`.
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
    fn numbers(&self) -> impl Iterator<Item = (usize, &str)> {
        let fields = self.shape.fields.iter().map(|column| (*column, self.schema.field(*column)));
        let is_number = |data_type: &DataType| data_type.is_numeric() || *data_type == DataType::Boolean;
        fields
            .filter(move |(_, field)| is_number(field.data_type()))
            .map(|(column, field)| (column, field.name().as_str()))
    }
}

/// A mistake in a rule, for its author.
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
    /// Compiles a rule. `rollups` gives what it can see of a rollup, and of which tier; `earlier` are the rules before it,
    /// which it may be composed of.
    pub fn compile(
        spec: RuleSpec,
        rollups: &dyn Fn(&str) -> Option<(Watched, String)>,
        earlier: &[Rule],
    ) -> Result<Self, RuleError> {
        let rule = spec.name.clone();
        let wrong = |key: &'static str| {
            let rule = rule.clone();
            move |Complaint { message, remedy }| RuleError { rule, key, message, remedy }
        };
        if spec.name.trim().is_empty() {
            let complaint = Complaint::new("the rule has no name", "give it one that is its own");
            return Err(wrong("name")(complaint));
        }
        let patience = patience(&spec).map_err(|(key, complaint)| wrong(key)(complaint))?;
        let known = |name: &str| {
            let unknown =
                || Complaint::new(format!("unknown rollup `{name}`"), "name a file of the sql directory");
            rollups(name).ok_or_else(unknown)
        };
        let (source, watched) = match &spec.watches {
            Watches::Rows { rollup, tier, condition } => {
                let (watched, _) = known(rollup).map_err(wrong("rollup"))?;
                let conditions = conditions(&spec, condition, &watched)
                    .map_err(|(key, complaint)| wrong(key)(complaint))?;
                let (rollup, tier) = (rollup.clone(), tier.clone());
                (RuleSource::Rows { rollup, tier, conditions: Some(conditions) }, watched)
            }
            Watches::DeadMan { rollup, tier, after: _ } => {
                let (watched, _) = known(rollup).map_err(wrong("rollup"))?;
                (RuleSource::Rows { rollup: rollup.clone(), tier: tier.clone(), conditions: None }, watched)
            }
            Watches::Query { sql, condition } => {
                let seen = |name: &str| known(name).map(|(watched, _)| watched);
                let (query, watched) = Query::compile(sql, &seen).map_err(wrong("query"))?;
                let mut tiers = Vec::new();
                for source in &query.sources {
                    tiers.push(known(source).map_err(wrong("query"))?.1);
                }
                let conditions = conditions(&spec, condition, &watched)
                    .map_err(|(key, complaint)| wrong(key)(complaint))?;
                (RuleSource::Query { query, tiers, conditions }, watched)
            }
            Watches::Rules { all, any, none } => {
                let watched =
                    composed(all, any, none, earlier).map_err(|(key, complaint)| wrong(key)(complaint))?;
                let (all, any, none) = (all.clone(), any.clone(), none.clone());
                (RuleSource::Rules { all, any, none }, watched)
            }
        };
        if spec.early {
            let allowed = match &source {
                RuleSource::Rows { conditions: Some(conditions), .. } => {
                    conditions.condition.only_grows(&watched.growing)
                }
                _ => Err(Complaint::new(
                    "only a rule over a rollup's rows can fire early",
                    "remove `early`, or write the condition over a rollup",
                )),
            };
            allowed.map_err(wrong("early"))?;
            if patience.hold > 0 || patience.m_of_n.is_some() {
                let message = "a rule that waits for several windows cannot fire before one of them closes";
                return Err(wrong("early")(Complaint::new(
                    message,
                    "remove `early`, or `for` and `windows`",
                )));
            }
        }
        let mut patience = patience;
        if let Watches::DeadMan { after, .. } = &spec.watches {
            // The first window that is missing ends its own length after the last row's.
            patience.hold =
                (nanoseconds(*after).unwrap_or(i64::MAX)).saturating_sub(watched.windows.size()).max(0);
        }
        let time = watched.schema.fields().get(watched.shape.time).map(|field| field.data_type());
        if !matches!(time, Some(DataType::Timestamp(_, _))) {
            let complaint = Complaint::new("the rollup has no window start", "group it by `tumble(time, …)`");
            return Err(wrong("rollup")(complaint));
        }
        check_labels(&spec, &watched).map_err(wrong("labels"))?;
        let owned = |(column, name): (usize, &str)| (column, name.to_owned());
        let tags: Vec<_> = watched.tags().map(owned).collect();
        let fields: Vec<_> = watched.numbers().map(owned).collect();
        let labels = tags.iter().map(|(_, name)| name).chain(spec.labels.keys());
        let templates = Templates::compile(
            &spec,
            &labels.map(String::as_str).collect::<Vec<_>>(),
            &fields.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>(),
        )
        .map_err(|(key, complaint)| wrong(key)(complaint))?;
        Ok(Self {
            hash: hash(&spec),
            time: watched.shape.time,
            windows: watched.windows,
            lateness: watched.lateness,
            source,
            patience,
            templates,
            tags,
            fields,
            spec,
        })
    }

    pub fn name(&self) -> &str {
        &self.spec.name
    }

    pub fn spec(&self) -> &RuleSpec {
        &self.spec
    }

    /// Of what decides the rule's verdicts: it changes with the condition, and not with texts or receivers.
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

/// Where missing data alert, a group is forgotten after this long unless the rule says otherwise.
const DAY: i64 = 86_400 * 1_000_000_000;

fn nanoseconds(duration: Duration) -> Option<i64> {
    i64::try_from(duration.as_nanos()).ok()
}

fn patience(spec: &RuleSpec) -> Result<Patience, (&'static str, Complaint)> {
    let within = |key: &'static str, duration: Duration| {
        let long = || (key, Complaint::new("the duration is above 292 years", "write a shorter one"));
        nanoseconds(duration).ok_or_else(long)
    };
    if let Some((m, n)) = spec.m_of_n
        && !(1 <= m && m <= n && n <= MOST_WINDOWS)
    {
        let message = format!("`{m} of {n}` windows cannot be counted");
        let remedy = format!(
            "write `3 of 5`: the second number is at most {MOST_WINDOWS}, the first at most the second"
        );
        return Err(("windows", Complaint::new(message, remedy)));
    }
    Ok(Patience {
        hold: within("for", spec.for_)?,
        keep: within("keep_firing_for", spec.keep_firing_for)?,
        m_of_n: spec.m_of_n,
    })
}

fn conditions(
    spec: &RuleSpec,
    condition: &str,
    watched: &Watched,
) -> Result<Conditions, (&'static str, Complaint)> {
    let context = rule_session();
    let columns = DFSchema::try_from(watched.schema.as_ref().clone()).map_err(|error| {
        let remedy = "give each column of the rollup its own name";
        ("rollup", Complaint::new(error.strip_backtrace(), remedy))
    })?;
    let compile = |key: &'static str, sql: &str| {
        refuse_chains(sql).map_err(|complaint| (key, complaint))?;
        Condition::compile(sql, &context, &columns).map_err(|complaint| (key, complaint))
    };
    Ok(Conditions {
        condition: compile("condition", condition)?,
        recovery: spec.recovery.as_deref().map(|sql| compile("recovery", sql)).transpose()?,
    })
}

/// Planning takes a part of the stack for each operation.
pub(super) fn refuse_chains(sql: &str) -> Result<(), Complaint> {
    match chain_of_operations(sql) {
        Some(_) => Err(Complaint::new("too many operations in one expression", "shorten it")),
        None => Ok(()),
    }
}

/// What a rule over other rules can see: a group is one of theirs, a window one of their shortest.
fn composed(
    all: &[String],
    any: &[String],
    none: &[String],
    earlier: &[Rule],
) -> Result<Watched, (&'static str, Complaint)> {
    let mut operands: Vec<&Rule> = Vec::new();
    for (key, names) in [("all", all), ("any", any), ("none", none)] {
        for name in names {
            let Some(rule) = earlier.iter().find(|rule| rule.name() == name) else {
                let message = format!("there is no usable rule `{name}` before this one");
                let remedy = match nearest(name, earlier.iter().map(Rule::name)) {
                    Some(close) => format!("did you mean `{close}`?"),
                    None => "name rules that stand above it in the file".to_owned(),
                };
                return Err((key, Complaint::new(message, remedy)));
            };
            if rule.is_composite() {
                let message = format!("`{name}` is itself made of rules");
                return Err((key, Complaint::new(message, "name the rules that it is made of")));
            }
            operands.push(rule);
        }
    }
    if operands.len() > MOST_OPERANDS {
        let message = format!("the rule is made of {} rules", operands.len());
        return Err(("all", Complaint::new(message, format!("name at most {MOST_OPERANDS}"))));
    }
    if all.is_empty() && any.is_empty() {
        let complaint = Complaint::new(
            "the rule names no rule that has to fire",
            "name one in `all` or `any`; `none` only holds it back",
        );
        return Err(("all", complaint));
    }
    let mut names: Vec<&str> = operands[0].tags.iter().map(|(_, name)| name.as_str()).collect();
    names.sort_unstable();
    for rule in &operands[1..] {
        let mut others: Vec<&str> = rule.tags.iter().map(|(_, name)| name.as_str()).collect();
        others.sort_unstable();
        if others != names {
            let message = format!(
                "`{}` has groups by {} and `{}` by {}, which cannot be compared",
                operands[0].name(),
                listed(names.into_iter()),
                rule.name(),
                listed(others.into_iter())
            );
            return Err((
                "all",
                Complaint::new(message, "name rules over rollups with the same group columns"),
            ));
        }
    }
    let shortest = operands.iter().min_by_key(|rule| rule.windows.end_after(0));
    let windows = shortest.expect("there is at least one").windows;
    let fields = names.iter().map(|name| arrow::datatypes::Field::new(*name, DataType::Utf8, true));
    let time = arrow::datatypes::Field::new(
        "window_start",
        DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, None),
        false,
    );
    let schema =
        Arc::new(arrow::datatypes::Schema::new(std::iter::once(time).chain(fields).collect::<Vec<_>>()));
    let shape = Shape { time: 0, tags: (1..=names.len()).collect(), fields: Vec::new() };
    Ok(Watched { schema, shape, windows, lateness: 0, growing: Vec::new() })
}

fn hash(spec: &RuleSpec) -> String {
    let RuleSpec {
        watches, recovery, for_, keep_firing_for, m_of_n, missing_data, forget_after, early, ..
    } = spec;
    let decides = (watches, recovery, for_, keep_firing_for, m_of_n, missing_data, forget_after, early);
    format!("{:016x}", XxHash3_64::oneshot(format!("{decides:?}").as_bytes()))
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
