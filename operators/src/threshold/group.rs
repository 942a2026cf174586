//! The groups that a rule remembers, and how windows without a row count for them.

use super::history::History;
use super::judge::Unknown;
use super::rule::Rule;
use super::state::{Change, Phase};
use super::verdict::{MissingData, Verdict};
use alerts::Cause;
use serde::{Deserialize, Serialize};

/// What a rule knows of a group.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Group {
    /// Values of the rule's tags. Null and empty are the same.
    pub(super) tags: Vec<String>,
    #[serde(flatten)]
    pub(super) history: History,
    /// Of the alert about missing data, where the rule has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    absence: Option<Box<History>>,
    /// End of the newest window with a row; 0 in snapshots of releases that did not know it.
    #[serde(default)]
    seen: i64,
    /// How often late points have changed what was emitted.
    #[serde(default)]
    pub(super) revision: u32,
    /// Rules that fire for the group, of those that this one is composed of: a bit for each.
    #[serde(default)]
    pub(super) firing: u64,
    /// End of the open window for which the alert has fired provisionally.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    early: Option<i64>,
}

/// What changed for a group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Emitted {
    pub(super) change: Change,
    pub(super) cause: Cause,
    /// End of the window that made the change.
    pub(super) end: i64,
    /// The alert about missing data, not the rule's own.
    pub(super) is_absence: bool,
    pub(super) revision: u32,
    /// The window is still open.
    pub(super) is_provisional: bool,
}

/// One step in the states of groups: what decides it, and what comes of it.
pub(super) struct Step<'a> {
    pub(super) rule: &'a Rule,
    /// Windows that end at or before this are final.
    pub(super) final_until: i64,
    pub(super) emitted: Vec<Emitted>,
}

impl<'a> Step<'a> {
    pub(super) fn new(rule: &'a Rule, final_until: i64) -> Self {
        Self { rule, final_until, emitted: Vec::new() }
    }
}

impl Group {
    pub(super) fn new(tags: Vec<String>, rule: &Rule) -> Self {
        let absence = (rule.missing() == MissingData::NoData).then(|| Box::new(History::new()));
        Self { tags, history: History::new(), absence, seen: 0, revision: 0, firing: 0, early: None }
    }

    /// What it weighs, by content: the same after a restart.
    pub(super) fn bytes(&self) -> usize {
        let absence = self.absence.as_ref().map_or(0, |absence| size_of::<History>() + absence.bytes());
        size_of::<Self>() + texts_bytes(&self.tags) + self.history.bytes() + absence
    }

    /// Of the alert about missing data.
    pub(super) fn absence(&self) -> Option<&History> {
        self.absence.as_deref()
    }

    /// End of the open window for which the alert has fired provisionally.
    pub(super) fn early(&self) -> Option<i64> {
        self.early
    }

    /// Whether it need not be remembered.
    pub(super) fn is_idle(&self, rule: &Rule, newest: i64) -> bool {
        if remembers_all(rule) || self.firing != 0 || self.early.is_some() {
            return false;
        }
        self.history.is_idle() && self.history.state.last < newest
    }

    /// Takes in the verdict on the group's row in a window, after those on windows without one.
    pub(super) fn judge(&mut self, verdict: Verdict, end: i64, step: &mut Step<'_>) {
        self.seen = self.seen.max(end);
        self.step(verdict, end, step);
    }

    /// The condition is true in a window that is still open, and stays so.
    pub(super) fn fire_early(&mut self, end: i64, emitted: &mut Vec<Emitted>) {
        let fires = matches!(self.history.state.phase, Phase::Firing { .. });
        if fires || self.early.is_some() || end <= self.history.state.last {
            return;
        }
        self.early = Some(end);
        let (change, revision) = (Change::Fired { since: end }, self.revision);
        emitted.push(Emitted {
            change,
            cause: Cause::Condition,
            end,
            is_absence: false,
            revision,
            is_provisional: true,
        });
    }

    /// The windows up to `until` have closed: withdraws what had fired in one of them and was not
    /// confirmed.
    pub(super) fn withdraw_early(&mut self, until: i64, emitted: &mut Vec<Emitted>) {
        let Some(end) = self.early.filter(|end| *end <= until) else { return };
        self.early = None;
        let is_confirmed = matches!(self.history.state.phase, Phase::Firing { since, .. } if since <= end);
        if !is_confirmed {
            let (change, revision) = (Change::Resolved { since: end }, self.revision);
            let cause = Cause::Correction;
            emitted.push(Emitted { change, cause, end, is_absence: false, revision, is_provisional: false });
        }
    }

    /// The windows up to `until` have closed, and the group has no row in those after its newest.
    /// False: it is to be forgotten. Windows that are `unknown` have no effect, and bring that no
    /// nearer.
    pub(super) fn pass(&mut self, until: i64, unknown: &Unknown, step: &mut Step<'_>) -> bool {
        let rule = step.rule;
        if rule.missing() == MissingData::Keep && rule.spec.forget_after.is_none() {
            return true;
        }
        if self.seen == 0 {
            self.seen = self.history.state.last;
        }
        let forget_after = rule.forget_after();
        let mut end = rule.windows.end_after(self.history.state.last);
        while end <= until {
            if unknown.has(end) {
                self.seen = self.seen.max(end);
            }
            if end.saturating_sub(self.seen) >= forget_after {
                self.resolve(Cause::Forgotten, end, &mut step.emitted);
                return false;
            }
            let verdict = if unknown.has(end) { Verdict::UNKNOWN } else { Verdict::MISSING };
            self.step(verdict, end, step);
            if self.history.is_idle() && !remembers_all(rule) {
                break;
            }
            end = rule.windows.end_after(end);
        }
        true
    }

    /// Late points changed the group's row in a window that had closed.
    pub(super) fn correct(&mut self, verdict: Verdict, end: i64, step: &mut Step<'_>) {
        if end > self.history.state.last {
            // It had no row there, and nobody asked.
            return self.judge(verdict, end, step);
        }
        self.seen = self.seen.max(end);
        let rule = step.rule;
        let (patience, windows) = (&rule.patience, &rule.windows);
        let changes = self.history.correct(end, verdict.counted(rule.missing()), patience, windows);
        let of_absence = self
            .absence
            .as_mut()
            .map(|absence| absence.correct(end, verdict.of_absence(), patience, windows));
        for (changes, is_absence) in [(changes, false), (of_absence.unwrap_or_default(), true)] {
            for change in changes {
                self.revision += 1;
                step.emitted.push(Emitted {
                    change,
                    cause: Cause::Correction,
                    end,
                    is_absence,
                    revision: self.revision,
                    is_provisional: false,
                });
            }
        }
    }

    /// Ends what is firing, whatever the verdicts.
    pub(super) fn resolve(&mut self, cause: Cause, end: i64, emitted: &mut Vec<Emitted>) {
        let histories = [(Some(&mut self.history), false), (self.absence.as_deref_mut(), true)];
        for (history, is_absence) in
            histories.into_iter().filter_map(|(history, kind)| Some((history?, kind)))
        {
            let change = match history.state.phase {
                Phase::Inactive => continue,
                Phase::Pending { since } => Change::Ended { since: history.said_since().unwrap_or(since) },
                Phase::Firing { since, .. } => {
                    Change::Resolved { since: history.said_since().unwrap_or(since) }
                }
            };
            history.state.phase = Phase::Inactive;
            emitted.push(Emitted {
                change,
                cause,
                end,
                is_absence,
                revision: self.revision,
                is_provisional: false,
            });
        }
    }

    pub(super) fn settle(&mut self, final_until: i64, rule: &Rule) {
        self.history.settle(final_until, &rule.patience, &rule.windows);
        if let Some(absence) = &mut self.absence {
            absence.settle(final_until, &rule.patience, &rule.windows);
        }
    }

    fn step(&mut self, verdict: Verdict, end: i64, step: &mut Step<'_>) {
        let Step { rule, final_until, emitted } = step;
        let counted = verdict.counted(rule.missing());
        let (patience, windows) = (&rule.patience, &rule.windows);
        let change = self.history.step(end, counted, patience, windows, *final_until);
        let revision = self.revision;
        if let Some(change) = change {
            // A dead man's alert begins with silence and ends with a row: both are about data.
            let of_data = verdict.is_missing() || rule.is_dead_man();
            let cause = if of_data { Cause::NoData } else { Cause::Condition };
            emitted.push(Emitted { change, cause, end, is_absence: false, revision, is_provisional: false });
        }
        if let Some(absence) = &mut self.absence
            && let Some(change) = absence.step(end, verdict.of_absence(), patience, windows, *final_until)
        {
            emitted.push(Emitted {
                change,
                cause: Cause::NoData,
                end,
                is_absence: true,
                revision,
                is_provisional: false,
            });
        }
    }
}

/// What texts weigh, and once more as the key of a map.
pub(super) fn texts_bytes(texts: &[String]) -> usize {
    let of = |text: &String| size_of::<String>() + 2 * text.len() + 2 * size_of::<usize>();
    size_of::<Vec<u8>>() + texts.iter().map(of).sum::<usize>()
}

/// Whether every group that ever had a row is remembered, for its silence means something.
pub(super) fn remembers_all(rule: &Rule) -> bool {
    matches!(rule.missing(), MissingData::Alert | MissingData::NoData)
}
