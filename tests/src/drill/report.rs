//! The closing table.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::verdict::Verdict;

/// What the rounds of each drill came to.
#[derive(Debug, Default)]
pub struct Report {
    rows: BTreeMap<String, Row>,
}

#[derive(Debug, Default)]
struct Row {
    rounds: usize,
    /// Rounds that did not come to their end.
    failed: usize,
    points: usize,
    faults: usize,
    differences: usize,
    unaccounted: usize,
    doubled: usize,
    took: Duration,
    note: String,
}

impl Report {
    pub fn add(&mut self, verdict: &Verdict) {
        let row = self.rows.entry(verdict.drill.to_owned()).or_default();
        row.rounds += 1;
        row.points += verdict.points;
        row.faults += verdict.faults;
        row.differences += verdict.accounts.differences;
        row.unaccounted += verdict.accounts.unaccounted;
        row.doubled += verdict.accounts.doubled;
        row.took += verdict.took;
        // Notes like "slowest end 1.2 s" of the rounds: the greatest one stands for all.
        row.note = std::mem::take(&mut row.note).max(verdict.notes.join(", "));
    }

    /// A round that did not come to its end.
    pub fn add_failure(&mut self, drill: &str, took: Duration) {
        let row = self.rows.entry(drill.to_owned()).or_default();
        row.rounds += 1;
        row.failed += 1;
        row.took += took;
    }

    /// Whether everything came to its end and adds up.
    pub fn is_clean(&self) -> bool {
        let sum = |row: &Row| row.failed + row.differences + row.unaccounted + row.doubled;
        self.rows.values().map(sum).sum::<usize>() == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:12} {:>6} {:>10} {:>8} {:>11} {:>11} {:>7} {:>9} {:>8}",
            "drill",
            "rounds",
            "points",
            "faults",
            "differences",
            "unaccounted",
            "doubled",
            "unfinished",
            "time"
        )?;
        for (drill, row) in &self.rows {
            writeln!(
                f,
                "{drill:12} {:>6} {:>10} {:>8} {:>11} {:>11} {:>7} {:>9} {:>6} s  {}",
                row.rounds,
                row.points,
                row.faults,
                row.differences,
                row.unaccounted,
                row.doubled,
                row.failed,
                row.took.as_secs(),
                row.note
            )?;
        }
        let sum = |of: fn(&Row) -> usize| self.rows.values().map(of).sum::<usize>();
        write!(
            f,
            "{} rounds, {} points, {} faults: {} differences, {} unaccounted, {} doubled, {} unfinished",
            sum(|row| row.rounds),
            sum(|row| row.points),
            sum(|row| row.faults),
            sum(|row| row.differences),
            sum(|row| row.unaccounted),
            sum(|row| row.doubled),
            sum(|row| row.failed),
        )
    }
}
