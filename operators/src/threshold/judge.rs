//! One rule over the rows of closed windows.

use super::functions::Memory;
use super::group::{Group, Step, remembers_all, texts_bytes};
use super::history::History;
use super::query::Query;
use super::rule::{Conditions, Rule, RuleSource};
use super::tags::Tags;
use super::verdict::Verdict;
use super::wording::Wording;
use alerts::Transition;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::{cast, concat_batches, filter_record_batch, sort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, TimeUnit, TimestampNanosecondType};
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

/// Rows of a tier of a rollup, the oldest window first.
#[derive(Clone, Copy, Debug)]
pub struct WindowRows<'a> {
    pub rollup: &'a str,
    pub tier: &'a str,
    pub rows: &'a RecordBatch,
    /// One for each row, nanoseconds.
    pub window_ends: &'a [i64],
    /// The windows had closed before, and late points have changed these rows.
    pub corrected: bool,
    /// Rows that were there and, unless `rows` has them, are no more: as
    /// [`crate::fold::Results::withdrawn`].
    pub withdrawn: Option<&'a RecordBatch>,
}

/// Windows of a tier of a rollup that the stream cannot give whole, so that no row of theirs is
/// given: by their ends, from the first to the last.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnknownWindows {
    pub rollup: String,
    pub tier: String,
    pub first: i64,
    pub last: i64,
}

/// First and last end of the windows that a rule cannot judge.
#[derive(Debug, Default)]
pub(super) struct Unknown(Vec<(i64, i64)>);

impl Unknown {
    pub(super) fn has(&self, end: i64) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&end))
    }
}

/// A rule and its states.
#[derive(Debug)]
pub(super) struct RuleState {
    pub(super) rule: Rule,
    /// The end of the newest window evaluated in any group.
    pub(super) newest: i64,
    /// By the group's tag values, each with its length before it.
    pub(super) groups: HashMap<Vec<u8>, Group>,
    /// What functions remember, by group.
    pub(super) memories: HashMap<Vec<u8>, Remembered>,
    unknown: Unknown,
}

/// What the functions of a query remember of a group of its rollup.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Remembered {
    pub(super) tags: Vec<String>,
    pub(super) values: Vec<Memory>,
    pub(super) seen: i64,
}

impl Remembered {
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + texts_bytes(&self.tags) + size_of_val(self.values.as_slice())
    }
}

impl RuleState {
    pub(super) fn new(rule: Rule) -> Self {
        Self {
            rule,
            newest: i64::MIN,
            groups: HashMap::new(),
            memories: HashMap::new(),
            unknown: Unknown::default(),
        }
    }

    /// Replaces the windows that cannot be judged by those of `all` that the rule looks at.
    pub(super) fn leave_out(&mut self, all: &[UnknownWindows]) {
        let looks_at = |windows: &&UnknownWindows| match &self.rule.source {
            RuleSource::Rows { rollup, tier, .. } => windows.rollup == *rollup && windows.tier == *tier,
            RuleSource::Query { query, tiers, .. } => query
                .sources
                .iter()
                .zip(tiers)
                .any(|(rollup, tier)| windows.rollup == *rollup && windows.tier == *tier),
            RuleSource::Rules { .. } => false,
        };
        let found = all.iter().filter(looks_at).map(|windows| (windows.first, windows.last));
        self.unknown = Unknown(found.collect());
    }

    /// Judges what one message led to. `watermark`: event time after it. The error is for people;
    /// what could be evaluated has been.
    pub(super) fn take(
        &mut self,
        given: &[WindowRows<'_>],
        watermark: Option<i64>,
        transitions: &mut Vec<Transition>,
    ) -> Result<(), String> {
        let final_until = watermark.map_or(i64::MIN, |now| now.saturating_sub(self.rule.lateness));
        let mut failure = self.withdraw(given, final_until, transitions).err();
        for corrected in [true, false] {
            let rows = self.rows_of(given, corrected);
            for (rows, ends) in rows.unwrap_or_else(|error| {
                failure.get_or_insert(error);
                Vec::new()
            }) {
                let judged = self.judge(&rows, &ends, corrected, final_until, transitions);
                failure = failure.take().or(judged.err());
            }
        }
        if let Some(now) = watermark {
            self.advance(now, final_until, transitions);
        }
        failure.map_or(Ok(()), Err)
    }

    /// Judges windows that are still open, if the rule may fire before they close.
    pub(super) fn look(
        &mut self,
        given: &[WindowRows<'_>],
        transitions: &mut Vec<Transition>,
    ) -> Result<(), String> {
        let Some((rollup, tier)) = self.rule.watches_open() else { return Ok(()) };
        let mut failure = None;
        for rows in given.iter().filter(|rows| rows.rollup == rollup && rows.tier == tier) {
            let starts = starts(rows.rows, self.rule.time)?;
            let starts = starts.as_primitive::<TimestampNanosecondType>();
            let mut tags = Tags::new(rows.rows, &self.rule.tags)?;
            let verdicts = Verdicts::new(&self.rule, rows.rows);
            let wording = Wording { rule: &self.rule, rows: Some(rows.rows) };
            let mut emitted = Vec::new();
            for (row, &end) in rows.window_ends.iter().enumerate() {
                if verdicts.of(row).condition() != Some(true) || end <= self.newest {
                    continue;
                }
                let key = tags.key(row).to_vec();
                let rule = &self.rule;
                let group = self.groups.entry(key).or_insert_with(|| Group::new(tags.values.clone(), rule));
                group.fire_early(end, &mut emitted);
                for change in emitted.drain(..) {
                    transitions.push(wording.transition(&group.tags, change, Some(row), starts.value(row)));
                }
            }
            failure = failure.or(verdicts.failure);
        }
        failure.map_or(Ok(()), Err)
    }

    /// The rows that the rule judges, each batch with the ends of its windows.
    fn rows_of(
        &mut self,
        given: &[WindowRows<'_>],
        corrected: bool,
    ) -> Result<Vec<(RecordBatch, Vec<i64>)>, String> {
        let of = |rollup: &str, tier: &str| {
            let (rollup, tier) = (rollup.to_owned(), tier.to_owned());
            given
                .iter()
                .filter(move |rows| rows.corrected == corrected && rows.rollup == rollup && rows.tier == tier)
        };
        match &self.rule.source {
            RuleSource::Rules { .. } => Ok(Vec::new()),
            RuleSource::Rows { rollup, tier, .. } => {
                let rows = of(rollup, tier).map(|rows| (rows.rows.clone(), rows.window_ends.to_vec()));
                Ok(rows.collect())
            }
            RuleSource::Query { query, tiers, .. } => {
                if corrected && self.rule.lateness == 0 {
                    return Ok(Vec::new());
                }
                let mut sources = Vec::new();
                for ((source, tier), schema) in query.sources.iter().zip(tiers).zip(query.schemas()) {
                    let (mut parts, mut ends) = (Vec::new(), Vec::new());
                    for given in of(source, tier) {
                        // Of two rollups, one may have rows of a window that the other cannot give.
                        let known = |end: &i64| !self.unknown.has(*end);
                        let kept: BooleanArray =
                            given.window_ends.iter().map(|end| Some(known(end))).collect();
                        let rows =
                            filter_record_batch(given.rows, &kept).map_err(|error| error.to_string())?;
                        ends.extend(given.window_ends.iter().copied().filter(known));
                        parts.push(rows);
                    }
                    // A source without a row is empty: an outer join has rows of the other.
                    let schema = parts.first().map_or(schema, RecordBatch::schema);
                    let all = concat_batches(&schema, &parts).map_err(|error| error.to_string())?;
                    sources.push((all, ends));
                }
                if sources.iter().all(|(rows, _)| rows.num_rows() == 0) {
                    return Ok(Vec::new());
                }
                if !query.calls.is_empty() {
                    for (rows, ends) in &mut sources {
                        *rows = remember(query, &mut self.memories, rows, ends)?;
                    }
                }
                let selected = query.run(sources.into_iter().map(|(rows, _)| rows).collect())?;
                if selected.num_rows() == 0 {
                    return Ok(Vec::new());
                }
                let by_time = sort_to_indices(selected.column(self.rule.time), None, None);
                let sorted = by_time.and_then(|order| take_record_batch(&selected, &order));
                let sorted = sorted.map_err(|error| error.to_string())?;
                let starts = starts(&sorted, self.rule.time)?;
                let starts = starts.as_primitive::<TimestampNanosecondType>();
                let ends = starts.values().iter().map(|start| self.rule.windows.end(*start)).collect();
                Ok(vec![(sorted, ends)])
            }
        }
    }

    /// Windows that have no row of a group any more. Of rules that are queries the row stays as it
    /// was.
    fn withdraw(
        &mut self,
        given: &[WindowRows<'_>],
        final_until: i64,
        transitions: &mut Vec<Transition>,
    ) -> Result<(), String> {
        let RuleSource::Rows { rollup, tier, .. } = &self.rule.source else { return Ok(()) };
        let rule = &self.rule;
        let wording = Wording { rule, rows: None };
        let mut step = Step::new(rule, final_until);
        for given in given.iter().filter(|given| given.rollup == *rollup && given.tier == *tier) {
            let Some(withdrawn) = given.withdrawn.filter(|_| !self.groups.is_empty()) else { continue };
            let mut tags = Tags::new(given.rows, &rule.tags)?;
            let left: HashSet<(Vec<u8>, i64)> = given
                .window_ends
                .iter()
                .enumerate()
                .map(|(row, end)| (tags.key(row).to_vec(), *end))
                .collect();
            let starts = starts(withdrawn, rule.time)?;
            let mut tags = Tags::new(withdrawn, &rule.tags)?;
            for (row, start) in starts.as_primitive::<TimestampNanosecondType>().values().iter().enumerate() {
                let (key, end) = (tags.key(row).to_vec(), rule.windows.end(*start));
                let group = self.groups.get_mut(&key).filter(|_| end > final_until);
                let Some(group) = group.filter(|_| !left.contains(&(key, end))) else { continue };
                group.correct(Verdict::MISSING, end, &mut step);
                for change in step.emitted.drain(..) {
                    transitions.push(wording.transition(&group.tags, change, None, i64::MIN));
                }
            }
        }
        Ok(())
    }

    fn judge(
        &mut self,
        rows: &RecordBatch,
        window_ends: &[i64],
        corrected: bool,
        final_until: i64,
        transitions: &mut Vec<Transition>,
    ) -> Result<(), String> {
        if window_ends.len() != rows.num_rows() {
            return Err(format!("{} rows came with {} window ends", rows.num_rows(), window_ends.len()));
        }
        let starts = starts(rows, self.rule.time)?;
        let starts = starts.as_primitive::<TimestampNanosecondType>();
        let mut tags = Tags::new(rows, &self.rule.tags)?;
        let verdicts = Verdicts::new(&self.rule, rows);
        let wording = Wording { rule: &self.rule, rows: Some(rows) };
        let mut step = Step::new(&self.rule, final_until);
        // A query may leave out a tag by which its rows differ.
        let is_query = matches!(self.rule.source, RuleSource::Query { .. });
        let mut judged: HashSet<(Vec<u8>, i64)> = HashSet::new();
        let mut repeated = None;
        for (row, &end) in window_ends.iter().enumerate() {
            if is_query && !judged.insert((tags.key(row).to_vec(), end)) {
                let message = "several rows of one window are one alert, of which the first is judged: select the tags by which they differ";
                repeated = Some(message.to_owned());
                continue;
            }
            let verdict = verdicts.of(row);
            // Most rows are of groups without a state that stay without: no need to know which.
            let is_true = verdict.condition() == Some(true);
            if corrected && end <= final_until {
                continue;
            }
            let behind = !corrected && end < self.newest;
            if !corrected {
                self.newest = self.newest.max(end);
            }
            if !is_true && self.groups.is_empty() && !remembers_all(&self.rule) {
                continue;
            }
            let key = tags.key(row);
            let known = self.groups.contains_key(key);
            if !known && (behind || !is_true && (corrected || !remembers_all(&self.rule))) {
                continue;
            }
            let rule = &self.rule;
            let group =
                self.groups.entry(key.to_vec()).or_insert_with(|| Group::new(tags.values.clone(), rule));
            if corrected && !known {
                group.history = History::all_false(end, self.newest);
            }
            if corrected {
                group.correct(verdict, end, &mut step);
            } else {
                if known && !group.pass(end - 1, &self.unknown, &mut step) {
                    *group = Group::new(group.tags.clone(), rule);
                }
                group.judge(verdict, end, &mut step);
            }
            for change in step.emitted.drain(..) {
                // Windows without a row, before this one, have no values.
                let of_row = change.end == end;
                transitions.push(wording.transition(
                    &group.tags,
                    change,
                    of_row.then_some(row),
                    starts.value(row),
                ));
            }
        }
        verdicts.failure.or(repeated).map_or(Ok(()), Err)
    }

    /// Event time has come to `watermark`: windows have closed, with a row of a group or without.
    fn advance(&mut self, watermark: i64, final_until: i64, transitions: &mut Vec<Transition>) {
        let until = self.rule.windows.ended_by(watermark);
        if until > self.newest {
            self.newest = until;
        }
        let (rule, newest) = (&self.rule, self.newest);
        if rule.is_composite() || self.groups.is_empty() && self.memories.is_empty() {
            return;
        }
        let wording = Wording { rule, rows: None };
        let mut step = Step::new(rule, final_until);
        let mut forgotten = Vec::new();
        for (key, group) in &mut self.groups {
            let remembered = group.pass(until, &self.unknown, &mut step);
            group.withdraw_early(until, &mut step.emitted);
            group.settle(final_until, rule);
            for change in step.emitted.drain(..) {
                transitions.push(wording.transition(&group.tags, change, None, i64::MIN));
            }
            if !remembered || group.is_idle(rule, newest) {
                forgotten.push(key.clone());
            }
        }
        for key in forgotten {
            self.groups.remove(&key);
        }
        let forget_after = if rule.spec.forget_after.is_some() { rule.forget_after() } else { MEMORY };
        self.memories.retain(|_, remembered| newest.saturating_sub(remembered.seen) < forget_after);
    }

    /// What the states weigh, by content: the same after a restart.
    pub(super) fn bytes(&self) -> usize {
        let groups = self.groups.values().map(Group::bytes).sum::<usize>();
        groups + self.memories.values().map(Remembered::bytes).sum::<usize>()
    }
}

/// What functions remember of a group without rows is forgotten after a day, unless the rule sets
/// it.
const MEMORY: i64 = 86_400 * 1_000_000_000;

/// Adds the columns of the query's functions.
fn remember(
    query: &Query,
    memories: &mut HashMap<Vec<u8>, Remembered>,
    rows: &RecordBatch,
    ends: &[i64],
) -> Result<RecordBatch, String> {
    let mut tags = Tags::new(rows, &query.tags)?;
    let mut keys = Vec::with_capacity(rows.num_rows());
    for (row, end) in ends.iter().enumerate() {
        let key = tags.key(row).to_vec();
        let remembered = memories.entry(key.clone()).or_insert_with(|| Remembered {
            tags: tags.values.clone(),
            values: vec![Memory::default(); query.calls.len()],
            seen: *end,
        });
        remembered.values.resize(query.calls.len(), Memory::default());
        remembered.seen = remembered.seen.max(*end);
        keys.push(key);
    }
    query.extend(rows, |number, row, value| {
        let remembered = memories.get_mut(&keys[row])?;
        remembered.values[number].next(query.calls[number].function, value, ends[row])
    })
}

/// The rule's verdict on each row.
struct Verdicts<'a> {
    conditions: Option<&'a Conditions>,
    condition: BooleanArray,
    recovery: Option<BooleanArray>,
    failure: Option<String>,
}

impl<'a> Verdicts<'a> {
    fn new(rule: &'a Rule, rows: &RecordBatch) -> Self {
        let conditions = match &rule.source {
            RuleSource::Rows { conditions, .. } => conditions.as_ref(),
            RuleSource::Query { conditions, .. } => Some(conditions),
            RuleSource::Rules { .. } => None,
        };
        let Some(given) = conditions else {
            let condition = BooleanArray::from(Vec::<bool>::new());
            return Self { conditions, condition, recovery: None, failure: None };
        };
        let (condition, mut failure) = given.condition.evaluate(rows);
        let recovery = given.recovery.as_ref().map(|recovery| recovery.evaluate(rows));
        let recovery = recovery.map(|(truth, error)| {
            failure = failure.take().or(error);
            truth
        });
        Self { conditions, condition, recovery, failure }
    }

    fn of(&self, row: usize) -> Verdict {
        if self.conditions.is_none() {
            // A dead man's rule: there is a row.
            return Verdict::of(Some(false));
        }
        let condition = truth(&self.condition, row);
        match &self.recovery {
            Some(recovery) => Verdict::with_recovery(condition, truth(recovery, row)),
            None => Verdict::of(condition),
        }
    }
}

fn truth(array: &BooleanArray, row: usize) -> Option<bool> {
    array.is_valid(row).then(|| array.value(row))
}

fn starts(rows: &RecordBatch, time: usize) -> Result<ArrayRef, String> {
    let column = rows.columns().get(time).ok_or("the rows lack the window start")?;
    let nanoseconds = DataType::Timestamp(TimeUnit::Nanosecond, None);
    cast(column, &nanoseconds).map_err(|error| error.to_string())
}
