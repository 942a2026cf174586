//! Rules over other rules: whether these fire for the same group.
//!
//! Such a rule is evaluated at the end of each of its windows, the shortest of the rules that it
//! names, on what these have emitted until then. It does not depend on how far event time goes at
//! once.

use super::group::{Group, Step};
use super::judge::RuleState;
use super::rule::{Rule, RuleSource};
use super::tags::group_key;
use super::verdict::Verdict;
use super::wording::{NO_DATA_LABEL, Wording};
use alerts::{Status, Transition};

/// One of the rules that it names has begun or ceased to fire for a group.
struct OperandChange {
    at: i64,
    tags: Vec<String>,
    bit: u64,
    fires: bool,
}

impl RuleState {
    /// Takes in the transitions of the other rules, and evaluates the windows up to `watermark`.
    pub(super) fn compose(
        &mut self,
        emitted: &[Transition],
        watermark: Option<i64>,
        transitions: &mut Vec<Transition>,
    ) {
        let Some(until) = watermark.map(|now| self.rule.windows.ended_by(now)) else { return };
        let mut changes = self.operand_changes(emitted);
        changes.sort_by_key(|change| change.at);
        let mut changes = changes.into_iter().peekable();
        loop {
            // Where nothing fires there is nothing to evaluate until something does.
            let next = match (self.groups.is_empty(), changes.peek()) {
                (true, None) => break,
                (true, Some(change)) => self.window_of(change.at.max(self.newest)),
                (false, _) => self.rule.windows.end_after(self.newest),
            };
            if next > until {
                break;
            }
            while let Some(change) = changes.next_if(|change| change.at <= next) {
                self.note(change);
            }
            self.evaluate(next, transitions);
            self.newest = next;
        }
        // What ended after the last window counts for the next.
        changes.for_each(|change| self.note(change));
        self.newest = self.newest.max(until);
    }

    fn note(&mut self, change: OperandChange) {
        let OperandChange { tags, bit, fires, .. } = change;
        let rule = &self.rule;
        let group = self.groups.entry(group_key(&tags)).or_insert_with(|| Group::new(tags, rule));
        group.firing = if fires { group.firing | bit } else { group.firing & !bit };
    }

    /// End of the first window that ends at `time` or later.
    fn window_of(&self, time: i64) -> i64 {
        let windows = &self.rule.windows;
        match windows.ended_by(time) {
            end if end == time => end,
            end => windows.end_after(end),
        }
    }

    fn evaluate(&mut self, end: i64, transitions: &mut Vec<Transition>) {
        let rule = &self.rule;
        let wording = Wording { rule, rows: None };
        let mut step = Step::new(rule, end);
        let mut keys: Vec<_> = self.groups.keys().cloned().collect();
        keys.sort_unstable();
        for key in keys {
            let Some(group) = self.groups.get_mut(&key) else { continue };
            let verdict = Verdict::of(Some(holds(rule, group.firing)));
            group.judge(verdict, end, &mut step);
            for change in step.emitted.drain(..) {
                transitions.push(wording.transition(&group.tags, change, None, i64::MIN));
            }
            if group.firing == 0 && group.history.is_idle() {
                self.groups.remove(&key);
            }
        }
    }

    fn operand_changes(&self, emitted: &[Transition]) -> Vec<OperandChange> {
        let mut changes = Vec::new();
        for transition in emitted {
            // That data are missing is another alert than the rule's own.
            let of_absence = transition.labels.contains_key(NO_DATA_LABEL);
            let fires = match transition.status {
                Status::Firing => true,
                Status::Resolved => false,
                Status::Pending | Status::Inactive => continue,
            };
            let bits = operands(&self.rule).enumerate().filter(|(_, name)| *name == transition.rule);
            let bit = bits.fold(0, |bit, (number, _)| bit | 1 << number);
            if bit == 0 || of_absence {
                continue;
            }
            let tag = |(_, name): &(usize, String)| transition.labels.get(name).cloned().unwrap_or_default();
            let tags = self.rule.tags.iter().map(tag).collect();
            changes.push(OperandChange { at: transition.window_end, tags, bit, fires });
        }
        changes
    }
}

/// Rules that it names, in the order of their bits.
pub(super) fn operands(rule: &Rule) -> impl Iterator<Item = &str> {
    let names = match &rule.source {
        RuleSource::Rules { all, any, none } => [all.as_slice(), any, none],
        _ => [&[][..], &[], &[]],
    };
    names.into_iter().flatten().map(String::as_str)
}

fn holds(rule: &Rule, firing: u64) -> bool {
    let RuleSource::Rules { all, any, none } = &rule.source else { return false };
    let mask = |from: usize, count: usize| (0..count).fold(0_u64, |mask, bit| mask | 1 << (from + bit));
    let all_of = mask(0, all.len());
    let any_of = mask(all.len(), any.len());
    let none_of = mask(all.len() + any.len(), none.len());
    firing & all_of == all_of && (any.is_empty() || firing & any_of != 0) && firing & none_of == 0
}

/// Most rules that one can name: each has a bit.
pub(super) const MOST_OPERANDS: usize = 64;
