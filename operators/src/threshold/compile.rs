//! From a rule as it is written to one that is ready to be evaluated.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use twox_hash::XxHash3_64;

use super::complaint::{AtKey, Complaint, RuleError, listed, nearest};
use super::composite::MOST_OPERANDS;
use super::condition::Condition;
use super::labels::check_labels;
use super::query::Query;
use super::rule::{Conditions, Rule, RuleSource, RuleSpec, Watched, Watches, nanoseconds};
use super::state::{MOST_WINDOWS, Patience};
use super::template::Templates;
use crate::sql::{Shape, chain_of_operations, rule_session};

/// Gives the rows of a rollup that a rule can see, and the name of their tier.
type Rollups<'r> = &'r dyn Fn(&str) -> Option<(Watched, String)>;

impl Rule {
    /// Compiles a rule. `rollups` gives what it can see of a rollup, and of which tier; `earlier`
    /// are the rules before it, which it may be composed of.
    ///
    /// # Errors
    /// The first mistake, with its key and the remedy.
    pub fn compile(spec: RuleSpec, rollups: Rollups<'_>, earlier: &[Self]) -> Result<Self, RuleError> {
        let name = spec.name.clone();
        compiled(spec, rollups, earlier).map_err(|(key, complaint)| complaint.of_rule(&name, key))
    }
}

fn compiled(spec: RuleSpec, rollups: Rollups<'_>, earlier: &[Rule]) -> Result<Rule, AtKey> {
    if spec.name.trim().is_empty() {
        return Err(Complaint::new("the rule has no name", "give it one that is its own").at("name"));
    }
    let mut patience = patience(&spec)?;
    let (source, watched) = source_of(&spec, rollups, earlier)?;
    if spec.early {
        check_early(&source, &watched, &patience).map_err(|complaint| complaint.at("early"))?;
    }
    if let Watches::DeadMan { after, .. } = &spec.watches {
        // The first window that is missing ends its own length after the last row's.
        patience.hold = nanoseconds(*after).unwrap_or(i64::MAX).saturating_sub(watched.windows.size()).max(0);
    }
    let time = watched.schema.fields().get(watched.shape.time).map(|field| field.data_type());
    if !matches!(time, Some(DataType::Timestamp(_, _))) {
        let complaint = Complaint::new("the rollup has no window start", "group it by `tumble(time, …)`");
        return Err(complaint.at("rollup"));
    }
    check_labels(&spec, &watched).map_err(|complaint| complaint.at("labels"))?;
    let owned = |(column, name): (usize, &str)| (column, name.to_owned());
    let tags: Vec<_> = watched.tags().map(owned).collect();
    let fields: Vec<_> = watched.numbers().map(owned).collect();
    let labels: Vec<&str> =
        tags.iter().map(|(_, name)| name).chain(spec.labels.keys()).map(String::as_str).collect();
    let numbers: Vec<&str> = fields.iter().map(|(_, name)| name.as_str()).collect();
    let templates = Templates::compile(&spec, &labels, &numbers)?;
    Ok(Rule {
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

/// Where the rule's verdicts come from, and the rows that it sees there.
fn source_of(
    spec: &RuleSpec,
    rollups: Rollups<'_>,
    earlier: &[Rule],
) -> Result<(RuleSource, Watched), AtKey> {
    let known = |name: &str| {
        let unknown =
            || Complaint::new(format!("unknown rollup `{name}`"), "name a file of the sql directory");
        rollups(name).ok_or_else(unknown)
    };
    match &spec.watches {
        Watches::Rows { rollup, tier, condition } => {
            let (watched, _) = known(rollup).map_err(|complaint| complaint.at("rollup"))?;
            let conditions = Some(conditions(spec, condition, &watched)?);
            Ok((RuleSource::Rows { rollup: rollup.clone(), tier: tier.clone(), conditions }, watched))
        }
        Watches::DeadMan { rollup, tier, after: _ } => {
            let (watched, _) = known(rollup).map_err(|complaint| complaint.at("rollup"))?;
            let (rollup, tier) = (rollup.clone(), tier.clone());
            Ok((RuleSource::Rows { rollup, tier, conditions: None }, watched))
        }
        Watches::Query { sql, condition } => {
            let seen = |name: &str| known(name).map(|(watched, _)| watched);
            let (query, watched) = Query::compile(sql, &seen).map_err(|complaint| complaint.at("query"))?;
            let tiers = query.sources.iter().map(|source| known(source).map(|(_, tier)| tier));
            let tiers = tiers.collect::<Result<_, _>>().map_err(|complaint| complaint.at("query"))?;
            let conditions = conditions(spec, condition, &watched)?;
            Ok((RuleSource::Query { query, tiers, conditions }, watched))
        }
        Watches::Rules { all, any, none } => {
            let watched = composed(all, any, none, earlier)?;
            Ok((RuleSource::Rules { all: all.clone(), any: any.clone(), none: none.clone() }, watched))
        }
    }
}

/// Whether the rule may fire before a window closes.
fn check_early(source: &RuleSource, watched: &Watched, patience: &Patience) -> Result<(), Complaint> {
    let RuleSource::Rows { conditions: Some(conditions), .. } = source else {
        return Err(Complaint::new(
            "only a rule over a rollup's rows can fire early",
            "remove `early`, or write the condition over a rollup",
        ));
    };
    conditions.condition.only_grows(&watched.growing)?;
    if patience.hold > 0 || patience.m_of_n.is_some() {
        let message = "a rule that waits for several windows cannot fire before one of them closes";
        return Err(Complaint::new(message, "remove `early`, or `for` and `windows`"));
    }
    Ok(())
}

fn patience(spec: &RuleSpec) -> Result<Patience, AtKey> {
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

fn conditions(spec: &RuleSpec, condition: &str, watched: &Watched) -> Result<Conditions, AtKey> {
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
fn composed(all: &[String], any: &[String], none: &[String], earlier: &[Rule]) -> Result<Watched, AtKey> {
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
