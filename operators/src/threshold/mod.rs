//! The threshold operator: alerts from the rows of closed windows.
//!
//! It is a fold over the windows of a rollup, in the order in which they close, and has no clock: the same
//! rows give the same transitions, ids included, on every replay. A rule has one state per group:
//!
//! - The condition is true: the alert is pending, and fires in the first window whose end is `for` or more
//!   behind the end of the first true one. A false condition ends a pending alert unheard.
//! - A firing alert is resolved when the recovery condition is true and the condition is not.
//! - A null condition, and a group without a row, say nothing: the state is kept. So a pending alert
//!   outlives windows without data, and a firing one is not resolved by silence.
//! - A group's window is evaluated once; the same or an older one, such as a correction, is ignored.
//!
//! Memory is one state per rule and group that is pending or firing. A group that is neither has none, and
//! is kept from being evaluated twice by the rule's own newest window: rows come in the order of windows, so
//! whatever is older than that was seen. States that ended in the newest window itself stay until it is
//! passed.

mod condition;
mod rule;
mod state;
mod template;
mod transition;

#[cfg(test)]
mod tests;

pub use rule::{Rule, RuleError, RuleSpec};
pub use transition::{Cause, StageTimes, Status, Transition};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, TimeUnit, TimestampNanosecondType};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde::{Deserialize, Serialize};
use state::{Change, Phase, State};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use thiserror::Error;

/// All rules, and their states, over the groups of one partition.
#[derive(Debug, Default)]
pub struct Threshold {
    rules: Vec<RuleState>,
    failures: Vec<Failure>,
}

/// Rows that a rule could not be evaluated on. They were taken as null.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    pub rule: String,
    pub message: String,
}

/// A snapshot that is not one of [`Threshold::snapshot`].
#[derive(Debug, Error)]
pub enum SnapshotError {
    #[error("the snapshot of the alert states is damaged")]
    Damaged(#[from] serde_json::Error),
    #[error("the snapshot of the alert states was written by another version, found=`{0}`")]
    Version(u32),
}

#[derive(Debug)]
struct RuleState {
    rule: Rule,
    /// The end of the newest window evaluated in any group.
    newest: i64,
    /// By the group's tag values, each with its length before it.
    groups: HashMap<Vec<u8>, Group>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Group {
    /// Values of the rule's tags. Null and empty are the same.
    tags: Vec<String>,
    #[serde(flatten)]
    state: State,
}

impl Threshold {
    pub fn new(rules: Vec<Rule>) -> Self {
        let rules = rules.into_iter().map(RuleState::new).collect();
        Self { rules, failures: Vec::new() }
    }

    /// Evaluates the rules of a tier of `rollup` on rows of windows that have just closed, the oldest window first,
    /// and returns what changed, in the order of rules and rows. `window_ends` has one entry for each row.
    ///
    /// A rule that cannot be evaluated stops no other; see [`Threshold::take_failures`].
    pub fn evaluate(
        &mut self,
        rollup: &str,
        tier: &str,
        rows: &RecordBatch,
        window_ends: &[i64],
    ) -> Vec<Transition> {
        let mut transitions = Vec::new();
        for state in &mut self.rules {
            if state.rule.spec.rollup != rollup || state.rule.spec.tier != tier {
                continue;
            }
            if let Err(message) = state.evaluate(rows, window_ends, &mut transitions) {
                self.failures.push(Failure { rule: state.rule.spec.name.clone(), message });
            }
        }
        transitions
    }

    /// What went wrong since the last call: at most one entry per rule and evaluated batch.
    pub fn take_failures(&mut self) -> Vec<Failure> {
        std::mem::take(&mut self.failures)
    }

    /// The number of pending and firing alerts.
    pub fn active(&self) -> (usize, usize) {
        let (mut pending, mut firing) = (0, 0);
        for group in self.rules.iter().flat_map(|rule| rule.groups.values()) {
            match group.state.phase {
                Phase::Inactive => {}
                Phase::Pending { .. } => pending += 1,
                Phase::Firing { .. } => firing += 1,
            }
        }
        (pending, firing)
    }

    /// All states, as JSON: equal states give equal bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        let rules = self.rules.iter().map(|state| {
            let mut groups: Vec<Group> = state.groups.values().cloned().collect();
            groups.sort_unstable_by(|left, right| left.tags.cmp(&right.tags));
            let tags = state.rule.tags.iter().map(|(_, name)| name.clone()).collect();
            let saved = RuleSnapshot { tags, newest: state.newest, groups };
            (state.rule.spec.name.clone(), saved)
        });
        let snapshot = Snapshot { version: Snapshot::VERSION, rules: rules.collect() };
        serde_json::to_vec(&snapshot).expect("maps with string keys, strings and integers are all JSON")
    }

    /// Takes over the states of a snapshot, by the names of the rules. Rules that are new, or whose groups
    /// are made of other tags than before, start without any; states of rules that are gone are dropped.
    pub fn restore(&mut self, snapshot: &[u8]) -> Result<(), SnapshotError> {
        let mut saved: Snapshot = serde_json::from_slice(snapshot)?;
        if saved.version != Snapshot::VERSION {
            return Err(SnapshotError::Version(saved.version));
        }
        for state in &mut self.rules {
            state.newest = i64::MIN;
            state.groups.clear();
            let Some(rule) = saved.rules.remove(&state.rule.spec.name) else {
                continue;
            };
            if !rule.tags.iter().eq(state.rule.tags.iter().map(|(_, name)| name)) {
                continue;
            }
            state.newest = rule.newest;
            state.groups = rule.groups.into_iter().map(|group| (group_key(&group.tags), group)).collect();
        }
        Ok(())
    }
}

#[derive(Deserialize, Serialize)]
struct Snapshot {
    version: u32,
    rules: BTreeMap<String, RuleSnapshot>,
}

impl Snapshot {
    const VERSION: u32 = 1;
}

#[derive(Deserialize, Serialize)]
struct RuleSnapshot {
    tags: Vec<String>,
    newest: i64,
    groups: Vec<Group>,
}

impl RuleState {
    fn new(rule: Rule) -> Self {
        Self { rule, newest: i64::MIN, groups: HashMap::new() }
    }

    /// The error is for people; what could be evaluated has been.
    fn evaluate(
        &mut self,
        rows: &RecordBatch,
        window_ends: &[i64],
        transitions: &mut Vec<Transition>,
    ) -> Result<(), String> {
        if window_ends.len() != rows.num_rows() {
            return Err(format!("{} rows came with {} window ends", rows.num_rows(), window_ends.len()));
        }
        let starts = self.window_starts(rows)?;
        let mut tags = Tags::new(rows, &self.rule)?;
        let (condition, mut failure) = self.rule.condition.evaluate(rows);
        let recovery = self.rule.recovery.as_ref().map(|recovery| recovery.evaluate(rows));
        let recovery = recovery.map(|(truth, error)| {
            failure = failure.take().or(error);
            truth
        });

        for (row, &end) in window_ends.iter().enumerate() {
            let is_true = truth(&condition, row);
            let recovered = match &recovery {
                Some(recovery) => truth(recovery, row),
                None => is_true.map(|is_true| !is_true),
            };
            if let Some((group, change)) = self.step(&mut tags, row, end, is_true, recovered) {
                let values = self.values(rows, row);
                let start = starts.as_primitive::<TimestampNanosecondType>().value(row);
                transitions.push(self.transition(&group, change, values, start, end));
            }
        }
        let newest = self.newest;
        self.groups.retain(|_, group| group.state.phase != Phase::Inactive || group.state.last >= newest);
        failure.map_or(Ok(()), Err)
    }

    /// Moves the state of a row's group on, and returns the group's tags with what changed.
    fn step(
        &mut self,
        tags: &mut Tags<'_>,
        row: usize,
        end: i64,
        condition: Option<bool>,
        recovery: Option<bool>,
    ) -> Option<(Vec<String>, Change)> {
        let behind = end < self.newest;
        self.newest = self.newest.max(end);
        // Most rows are of groups without a state that stay without: no need to know which.
        let is_true = condition == Some(true);
        if !is_true && self.groups.is_empty() {
            return None;
        }
        let key = tags.key(row);
        if let Some(group) = self.groups.get_mut(key) {
            let change = group.state.step(condition, recovery, end, self.rule.hold)?;
            return Some((group.tags.clone(), change));
        }
        if !is_true || behind {
            return None;
        }
        let mut state = State::new();
        let change = state.step(condition, recovery, end, self.rule.hold);
        let values = tags.values.clone();
        self.groups.insert(tags.key.clone(), Group { tags: values.clone(), state });
        change.map(|change| (values, change))
    }

    fn transition(
        &self,
        tags: &[String],
        change: Change,
        values: BTreeMap<String, f64>,
        window_start: i64,
        window_end: i64,
    ) -> Transition {
        let spec = &self.rule.spec;
        let (status, starts_at, ends_at) = match change {
            Change::Fired { since } => (Status::Firing, since, None),
            Change::Resolved { since } => (Status::Resolved, since, Some(window_end)),
        };
        let names = self.rule.tags.iter().map(|(_, name)| name.as_str());
        let group = || names.clone().zip(tags.iter().map(String::as_str));
        let mut labels = spec.labels.clone();
        labels
            .extend(group().filter(|(_, tag)| !tag.is_empty()).map(|(name, tag)| (name.into(), tag.into())));
        let mut transition = Transition {
            id: transition::transition_id(&spec.name, group(), window_end, status, 0),
            incident: transition::incident_id(&spec.name, group(), starts_at),
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
            window_end,
            receivers: spec.receivers.clone(),
            cause: Cause::Condition,
            provisional: false,
            revision: 0,
            rule_hash: String::new(),
            owner: None,
            runbook: None,
            times: StageTimes::default(),
        };
        self.rule.templates.render(&mut transition);
        transition
    }

    fn window_starts(&self, rows: &RecordBatch) -> Result<ArrayRef, String> {
        let column = rows.columns().get(self.rule.time).ok_or("the rows lack the window start")?;
        let nanoseconds = DataType::Timestamp(TimeUnit::Nanosecond, None);
        cast(column, &nanoseconds).map_err(|error| error.to_string())
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

/// The groups that the rows of a batch belong to.
struct Tags<'a> {
    columns: Vec<(ArrayFormatter<'a>, &'a ArrayRef)>,
    values: Vec<String>,
    key: Vec<u8>,
}

impl<'a> Tags<'a> {
    fn new(rows: &'a RecordBatch, rule: &Rule) -> Result<Self, String> {
        const OPTIONS: FormatOptions<'static> = FormatOptions::new();
        let mut columns = Vec::new();
        for (column, name) in &rule.tags {
            let column =
                rows.columns().get(*column).ok_or_else(|| format!("the rows lack the tag `{name}`"))?;
            let formatter =
                ArrayFormatter::try_new(column.as_ref(), &OPTIONS).map_err(|error| error.to_string())?;
            columns.push((formatter, column));
        }
        let values = vec![String::new(); columns.len()];
        Ok(Self { columns, values, key: Vec::new() })
    }

    /// The key of a row's group. Its tags are in `values` until the next call.
    fn key(&mut self, row: usize) -> &[u8] {
        self.key.clear();
        for ((formatter, column), value) in self.columns.iter().zip(&mut self.values) {
            value.clear();
            if column.is_valid(row) {
                let _ = write!(value, "{}", formatter.value(row));
            }
            push_key(&mut self.key, value);
        }
        &self.key
    }
}

fn group_key(tags: &[String]) -> Vec<u8> {
    let mut key = Vec::new();
    for tag in tags {
        push_key(&mut key, tag);
    }
    key
}

fn push_key(key: &mut Vec<u8>, tag: &str) {
    key.extend_from_slice(&(tag.len() as u64).to_le_bytes());
    key.extend_from_slice(tag.as_bytes());
}

fn truth(array: &BooleanArray, row: usize) -> Option<bool> {
    array.is_valid(row).then(|| array.value(row))
}
