//! The threshold operator: alerts from the rows of closed windows.
//!
//! It is a fold over the windows of rollups, in the order in which they close, and has no clock:
//! the same rows and the same event time give the same transitions, ids included, on every replay,
//! however much of them comes at once. A rule has one state per group:
//!
//! - The condition is true: the alert is pending, and fires in the first window whose end is `for`
//!   or more after the end of the first true one. A false condition ends a pending alert unheard.
//!   With "m of n", the condition is true when it is in `m` of the last `n` windows.
//! - A firing alert is resolved when the recovery condition is true and the condition is not, for
//!   `keep_firing_for`.
//! - A null condition has no effect: the state is kept. How a window without a row of the group
//!   counts is the rule's choice, see [`MissingData`]. While event time stands still no window
//!   closes, and nothing changes. A window that the stream cannot give whole has no effect,
//!   whatever the choice, see [`Threshold::leave_out`].
//! - A group's window is evaluated once. When late points change a row of a window that is not
//!   final, the state becomes what the right rows would have made of it, and what had been emitted
//!   otherwise is corrected, see [`history`].
//!
//! - A rule may fire early, in a window that is still open, if its condition stays true once it is.
//!   That is provisional, and confirmed or withdrawn when the window closes.
//!
//! Memory, see [`Threshold::bytes`], is one state per rule and group that is pending or firing, or
//! has had a true condition in a window that is not final; where missing data alert, and with
//! functions that look back, one per group until it is forgotten.
//!
//! - `rule`: rules as they are written, and ready to be evaluated; `compile`: from one to the
//!   other; `complaint`: mistakes
//! - `condition`, `query`, `functions`, `template`: the parts of rules; `labels`: which identify
//!   their alerts
//! - `judge`: a rule over rows; `composite`: a rule over rules
//! - `verdict`, `runs`, `state`, `history`, `group`: the verdict on a window, and what follows from
//!   it
//! - `transition`, `wording`: what is emitted; `snapshot`: what is kept; `reconcile`: what was
//!   emitted and is not held

mod compile;
mod complaint;
mod composite;
mod condition;
mod functions;
mod group;
mod history;
mod judge;
mod labels;
mod query;
mod reconcile;
mod rule;
mod runs;
mod snapshot;
mod state;
mod tags;
mod template;
mod verdict;
mod wording;

#[cfg(test)]
mod kinds_tests;
#[cfg(test)]
mod names_tests;
#[cfg(test)]
mod reconcile_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod without_rows_tests;

pub use complaint::RuleError;
pub use judge::{UnknownWindows, WindowRows};
pub use reconcile::Announced;
pub use rule::{Rule, RuleSpec, Watched, Watches};
pub use snapshot::CapturedAlerts;
pub use verdict::MissingData;
pub use wording::NO_DATA_LABEL;

use alerts::{StageTimes, Transition};
use judge::RuleState;
use snapshot::RuleSnapshot;
use state::Phase;
use std::collections::BTreeMap;
use thiserror::Error;

/// All rules, and their states, over the groups of one partition.
///
/// ```
/// use std::sync::Arc;
///
/// use alerts::{StageTimes, Status};
/// use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringViewArray, TimestampNanosecondArray};
/// use operators::sql::compile;
/// use operators::threshold::{Rule, RuleSpec, Threshold, Watched, Watches, WindowRows};
///
/// let sql = "CREATE MATERIALIZED VIEW load AS
///     SELECT tumble(time, INTERVAL '1 minute') AS start, labels['host'] AS host, avg(value) AS avg
///     FROM points GROUP BY 1, 2";
/// let catalog = compile(&[("load.sql".to_owned(), sql.to_owned())]);
/// let (rollup, tier) = (&catalog.rollups[0], &catalog.rollups[0].tiers()[0]);
/// let known = |name: &str| (name == "load").then(|| (Watched::of(rollup, tier), tier.name.clone()));
/// let (name, condition) = ("busy".to_owned(), "avg > 90".to_owned());
/// let watches = Watches::Rows { rollup: "load".into(), tier: tier.name.clone(), condition };
/// let rule = Rule::compile(RuleSpec { name, watches, ..RuleSpec::default() }, &known, &[])?;
///
/// let minute = 60_000_000_000;
/// let mut threshold = Threshold::new(vec![rule]);
/// let mut judge = |end: i64, avg: f64| {
///     let rows = RecordBatch::try_from_iter([
///         ("start", Arc::new(TimestampNanosecondArray::from(vec![end - minute])) as ArrayRef),
///         ("host", Arc::new(StringViewArray::from(vec!["a"]))),
///         ("avg", Arc::new(Float64Array::from(vec![avg]))),
///     ])
///     .unwrap();
///     let rows = WindowRows {
///         rollup: "load",
///         tier: &tier.name,
///         rows: &rows,
///         window_ends: &[end],
///         corrected: false,
///         withdrawn: None,
///     };
///     threshold.apply(&[rows], Some(end), StageTimes::default())
/// };
/// let fired = judge(100 * minute, 95.0);
/// assert_eq!((fired[0].status, fired[0].labels["host"].as_str()), (Status::Firing, "a"));
/// assert!(judge(101 * minute, 97.0).is_empty(), "nothing has changed");
/// let resolved = judge(102 * minute, 10.0);
/// assert_eq!((resolved[0].status, &resolved[0].incident), (Status::Resolved, &fired[0].incident));
/// # Ok::<(), operators::threshold::RuleError>(())
/// ```
#[derive(Debug, Default)]
pub struct Threshold {
    rules: Vec<RuleState>,
    /// States of rules that cannot be used now.
    set_aside: BTreeMap<String, RuleSnapshot>,
    /// The transitions to emit for rules that are gone.
    ended: Vec<Transition>,
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

impl Threshold {
    pub fn new(rules: Vec<Rule>) -> Self {
        let rules = rules.into_iter().map(RuleState::new).collect();
        Self { rules, ..Self::default() }
    }

    /// Rules that there are and that cannot be used, for a mistake in them: their states are
    /// neither evaluated nor lost.
    #[must_use]
    pub fn set_aside(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.set_aside = names.into_iter().map(|name| (name, RuleSnapshot::empty())).collect();
        self
    }

    /// Evaluates the rules on what one message led to: rows of windows that have just closed or
    /// have been corrected, and event time after it. Returns what changed, in the order of event
    /// time.
    ///
    /// A rule that cannot be evaluated stops no other; see [`Threshold::take_failures`].
    pub fn apply(
        &mut self,
        rows: &[WindowRows<'_>],
        watermark: Option<i64>,
        times: StageTimes,
    ) -> Vec<Transition> {
        let mut transitions = std::mem::take(&mut self.ended);
        for state in self.rules.iter_mut().filter(|state| !state.rule.is_composite()) {
            if let Err(message) = state.take(rows, watermark, &mut transitions) {
                self.failures.push(Failure { rule: state.rule.spec.name.clone(), message });
            }
        }
        let in_order = |transition: &Transition| {
            (transition.window_end, transition.rule.clone(), transition.labels.clone())
        };
        transitions.sort_by_cached_key(in_order);
        let mut composed = Vec::new();
        for state in self.rules.iter_mut().filter(|state| state.rule.is_composite()) {
            state.compose(&transitions, watermark, &mut composed);
        }
        if !composed.is_empty() {
            transitions.append(&mut composed);
            transitions.sort_by_cached_key(in_order);
        }
        for transition in &mut transitions {
            transition.times = times;
        }
        transitions
    }

    /// Sets which windows the stream cannot give whole, from the next message on: in these no row
    /// is missing, and rules keep their states.
    pub fn leave_out(&mut self, unknown: &[UnknownWindows]) {
        self.rules.iter_mut().for_each(|state| state.leave_out(unknown));
    }

    /// Evaluates the rules that may fire early on windows that are still open; to be followed by
    /// [`Threshold::apply`] of the same message.
    pub fn look(&mut self, open: &[WindowRows<'_>], times: StageTimes) -> Vec<Transition> {
        let mut transitions = Vec::new();
        for state in &mut self.rules {
            if let Err(message) = state.look(open, &mut transitions) {
                self.failures.push(Failure { rule: state.rule.spec.name.clone(), message });
            }
        }
        transitions.sort_by_cached_key(|transition| {
            (transition.window_end, transition.rule.clone(), transition.labels.clone())
        });
        transitions.iter_mut().for_each(|transition| transition.times = times);
        transitions
    }

    /// Whether some rule wants to see the open windows of a tier of a rollup.
    pub fn watches_open(&self, rollup: &str, tier: &str) -> bool {
        self.rules.iter().any(|state| state.rule.watches_open() == Some((rollup, tier)))
    }

    /// What went wrong since the last call: at most one entry per rule and evaluated batch.
    pub fn take_failures(&mut self) -> Vec<Failure> {
        std::mem::take(&mut self.failures)
    }

    /// The number of pending and firing alerts.
    pub fn active(&self) -> (usize, usize) {
        let (mut pending, mut firing) = (0, 0);
        for group in self.rules.iter().flat_map(|rule| rule.groups.values()) {
            match group.history.state.phase {
                Phase::Inactive => {}
                Phase::Pending { .. } => pending += 1,
                Phase::Firing { .. } => firing += 1,
            }
        }
        (pending, firing)
    }
}
