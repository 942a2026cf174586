//! What a `rollup` partition does with its log: a deterministic fold.
//!
//! Each message first merges its states, then moves the watermark by its facts, then closes the windows that
//! the watermark passed. A window closes when the watermark reaches its end. Until `allowed_lateness` has
//! also passed, states that arrive for it correct it: the groups they touch are given out again, whole. After
//! that the window is final, and later states are given out as late. Replaying the log from a snapshot gives the
//! same results. Windows of which states are missing are not given out at all, see [`crate::rebuild`].

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampNanosecondType;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::exchange::{self, Partials, Section};
use crate::rebuild::{Change, Gaps, Plan, Rebuild};
use crate::sql::Rollup;
use crate::state::{WindowRows, WindowStates, by_window, points_in};
use crate::watermark::{Holder, Source, Watermark, WatermarkOptions};

/// The state of one partition of the partials topic.
#[derive(Debug)]
pub struct Fold {
    options: WatermarkOptions,
    watermark: Watermark,
    rollups: Vec<(Arc<Rollup>, WindowStates)>,
    gaps: Gaps,
}

/// What one message led to.
#[derive(Debug, Default)]
pub struct Applied {
    /// Closed and corrected windows, in the order in which they must be written.
    pub results: Vec<Results>,
    /// States that came after their window was final.
    pub late: Vec<Late>,
    /// Points merged, by rollup.
    pub points: Vec<(String, u64)>,
    /// Points in windows that are left to be rebuilt, by rollup.
    pub set_aside: Vec<(String, u64)>,
    /// Windows that have to be rebuilt because this message lacks their states.
    pub rebuilds: Vec<Rebuild>,
    /// Rollups that failed on this message; the others are complete.
    pub failures: Vec<Error>,
}

/// Rows of one rollup, oldest window first.
#[derive(Debug)]
pub struct Results {
    pub rollup: Arc<Rollup>,
    pub rows: RecordBatch,
    /// End of each row's window, nanoseconds.
    pub window_ends: Vec<i64>,
    pub kind: ResultKind,
    /// Keys, with null fields, of rows to remove before `rows` are written: those that HAVING now refuses, and
    /// those whose new version lacks a field.
    pub withdrawn: Option<RecordBatch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultKind {
    /// Windows that have just closed.
    Closed,
    /// Windows that had closed before and have got late points since.
    Corrected,
}

/// What came too late for one rollup: the rollup of the late points alone.
#[derive(Debug)]
pub struct Late {
    pub rollup: Arc<Rollup>,
    pub rows: RecordBatch,
    pub points: u64,
    /// From the end of the window to the watermark, nanoseconds.
    pub age: i64,
}

#[derive(Serialize, Deserialize)]
struct Header {
    watermark: Watermark,
    /// By rollup, which of its batches a merge has made.
    #[serde(default)]
    merged: BTreeMap<String, Vec<bool>>,
    #[serde(default)]
    alerts: String,
    #[serde(default)]
    plans: BTreeMap<String, Plan>,
    #[serde(default)]
    gaps: Gaps,
}

/// A fold as it was when a snapshot was taken.
#[derive(Debug)]
pub struct Restored {
    pub fold: Fold,
    /// The alerts' part; empty when there was none.
    pub alerts: String,
    /// The version of the snapshot's format, when it is another one, of which no state can be read.
    pub other_version: Option<String>,
    /// What became of each rollup, by name.
    pub changes: BTreeMap<String, Change>,
}

impl Fold {
    pub fn new(rollups: &[Arc<Rollup>], options: WatermarkOptions) -> Self {
        let rollups = rollups
            .iter()
            .map(|rollup| (Arc::clone(rollup), WindowStates::new(Arc::clone(rollup))))
            .collect();
        Self { options, watermark: Watermark::default(), rollups, gaps: Gaps::default() }
    }

    pub fn watermark(&self) -> Option<i64> {
        self.watermark.value()
    }

    /// The source partition that holds the watermark, and why; none when all are idle.
    pub fn holder(&self) -> Option<Holder> {
        self.watermark.holder(&self.options)
    }

    /// Rows and windows of state, by rollup.
    pub fn sizes(&self) -> impl Iterator<Item = (&str, usize, usize)> {
        self.rollups.iter().map(|(rollup, states)| (rollup.name.as_str(), states.rows(), states.windows()))
    }

    /// Next offset of every source partition behind the log so far.
    pub fn source_offsets(&self) -> impl Iterator<Item = (&Source, i64)> {
        self.watermark.offsets()
    }

    /// Windows that are left to be rebuilt.
    pub fn rebuilds(&self) -> &[Rebuild] {
        self.gaps.all()
    }

    /// Those of [`Self::rebuilds`] whose windows are final: every point of theirs is behind [`Self::source_offsets`].
    pub fn due_rebuilds(&self) -> impl Iterator<Item = (&Arc<Rollup>, &Rebuild)> {
        let now = self.watermark.value();
        self.rollups
            .iter()
            .flat_map(move |(rollup, _)| self.gaps.due(rollup, now).map(move |due| (rollup, due)))
    }

    /// Windows that were due have been rebuilt, or are given up.
    pub fn rebuilt(&mut self, done: &Rebuild) {
        self.gaps.remove(done);
    }

    /// Something in the log could not be read. `newest` bounds the event times of the points behind it.
    pub fn missed(&mut self, newest: i64) -> Vec<Rebuild> {
        self.leave_out(newest, |_| true)
    }

    /// Leaves the windows with points up to `newest` to be rebuilt, for rollups of which states are missing. Returns
    /// what that adds.
    fn leave_out(&mut self, newest: i64, lacks: impl Fn(&Rollup) -> bool) -> Vec<Rebuild> {
        let watermark = self.watermark.value();
        let mut added = Vec::new();
        for (rollup, states) in self.rollups.iter_mut().filter(|(rollup, _)| lacks(rollup)) {
            let known = self.gaps.all().to_vec();
            let Some(rebuild) = self.gaps.add(rollup, watermark, newest) else { continue };
            states.forget(rebuild.from, rebuild.to);
            if !known.iter().any(|known| known.covers(rebuild)) {
                added.push(rebuild.clone());
            }
        }
        added
    }

    /// Takes in one message. A rollup that fails does not stop the others.
    pub fn apply(&mut self, message: &Partials) -> Applied {
        let mut applied = Applied::default();
        let before = self.watermark.value();
        if let Some(newest) = message.newest() {
            applied.rebuilds = self.leave_out(newest, |rollup| !message.covers(rollup));
        }
        let mut touched: Vec<Vec<WindowRows>> = vec![Vec::new(); self.rollups.len()];
        for section in &message.states {
            let Some(index) = self.index_of(section) else { continue };
            for batch in &section.batches {
                let merged = self.merge(index, batch, before, &mut touched[index], &mut applied);
                applied.failures.extend(merged.err());
            }
        }
        self.watermark.observe(&message.facts, &self.options);
        for (rollup, _) in self.rollups.iter().filter(|(rollup, _)| !message.covers(rollup)) {
            self.gaps.may_be_written(rollup, self.watermark.value());
        }
        for (index, touched) in touched.iter().enumerate() {
            let given_out = self.give_out(index, before, touched, &mut applied);
            applied.failures.extend(given_out.err());
        }
        applied
    }

    fn index_of(&self, section: &Section) -> Option<usize> {
        self.rollups.iter().position(|(rollup, _)| {
            rollup.name == section.rollup && rollup.fingerprint == section.fingerprint
        })
    }

    fn merge(
        &mut self,
        index: usize,
        batch: &RecordBatch,
        watermark: Option<i64>,
        touched: &mut Vec<WindowRows>,
        applied: &mut Applied,
    ) -> Result<()> {
        let (rollup, states) = &mut self.rollups[index];
        let (mut points, mut set_aside) = (0, 0);
        for part in by_window(rollup, batch)? {
            if self.gaps.is_final(rollup, part.start, part.end, watermark) {
                applied.late.push(Late {
                    rows: rollup.finish(vec![part.rows.clone()])?,
                    points: points_in(rollup, &part.rows),
                    age: watermark.unwrap_or(part.end).saturating_sub(part.end),
                    rollup: Arc::clone(rollup),
                });
                continue;
            }
            if self.gaps.hold(rollup, part.start) {
                set_aside += points_in(rollup, &part.rows);
                continue;
            }
            points += points_in(rollup, &part.rows);
            if watermark.is_some_and(|at| part.end <= at) {
                touched.push(part.clone());
            }
            states.absorb(part)?;
        }
        applied.points.push((rollup.name.clone(), points));
        applied.set_aside.push((rollup.name.clone(), set_aside));
        Ok(())
    }

    /// Corrections come first: they concern older windows than those that close now.
    fn give_out(
        &mut self,
        index: usize,
        before: Option<i64>,
        touched: &[WindowRows],
        applied: &mut Applied,
    ) -> Result<()> {
        let (rollup, states) = &mut self.rollups[index];
        if !touched.is_empty() {
            let corrected = states.correct(touched)?;
            applied.results.extend(results(
                rollup,
                corrected.rows,
                ResultKind::Corrected,
                corrected.withdrawn,
            ));
        }
        let Some(now) = self.watermark.value() else { return Ok(()) };
        if before == Some(now) {
            return Ok(());
        }
        let closed = states.close(before, now)?;
        applied.results.extend(results(rollup, closed, ResultKind::Closed, None));
        states.purge(now);
        Ok(())
    }

    /// The whole state, to be stored as of the offset after the last applied message. `alerts` is carried
    /// along for the threshold operator.
    pub fn snapshot(&self, alerts: String) -> Result<Vec<u8>> {
        let mut sections = Vec::new();
        let (mut merged, mut plans) = (BTreeMap::new(), BTreeMap::new());
        for (rollup, states) in &self.rollups {
            plans.insert(rollup.name.clone(), Plan::of(rollup, states.windows()));
            let (batches, flags) = states.snapshot();
            if batches.is_empty() {
                continue;
            }
            merged.insert(rollup.name.clone(), flags);
            let batches = batches.iter().map(exchange::compact).collect::<Result<_>>()?;
            let (rollup, fingerprint) = (rollup.name.clone(), rollup.fingerprint);
            sections.push(Section { rollup, fingerprint, batches });
        }
        let (watermark, gaps) = (self.watermark.clone(), self.gaps.clone());
        let header = Header { watermark, merged, alerts, plans, gaps };
        exchange::encode(&[("fold", exchange::json(&header)?)], &sections)
    }

    /// A fold as it was when `bytes` were taken, as far as these rollups have the plans of then. What another plan or
    /// another version of the format made is left to be rebuilt.
    ///
    /// # Errors
    /// When not even the watermark can be read.
    pub fn restore(rollups: &[Arc<Rollup>], options: WatermarkOptions, bytes: &[u8]) -> Result<Restored> {
        let snapshot = exchange::decode(bytes, "snapshot")?;
        let header: Header = snapshot.header("fold")?;
        let mut fold = Self::new(rollups, options);
        for section in snapshot.states.iter().flatten() {
            let Some(index) = fold.index_of(section) else { continue };
            let flags = header.merged.get(&section.rollup).map_or(&[][..], Vec::as_slice);
            for (position, batch) in section.batches.iter().enumerate() {
                let is_merged = flags.get(position).copied().unwrap_or(false);
                fold.rollups[index].1.restore(batch.clone(), is_merged);
            }
        }
        fold.watermark = header.watermark;
        fold.gaps = header.gaps;
        fold.gaps.keep_only(rollups);
        let plans = if snapshot.states.is_some() { header.plans } else { BTreeMap::new() };
        let changes = fold.compare(&plans);
        let other_version = snapshot.states.is_none().then_some(snapshot.version);
        Ok(Restored { fold, alerts: header.alerts, other_version, changes })
    }

    /// What became of each rollup since `plans`; what is missing is left to be rebuilt.
    fn compare(&mut self, plans: &BTreeMap<String, Plan>) -> BTreeMap<String, Change> {
        let (watermark, newest) = (self.watermark.value(), self.watermark.newest());
        let mut changes = BTreeMap::new();
        for (rollup, _) in &self.rollups {
            let change = self.gaps.compare(rollup, plans.get(&rollup.name), watermark, newest);
            changes.insert(rollup.name.clone(), change);
        }
        for (name, plan) in plans {
            changes.entry(name.clone()).or_insert(Change::Removed { windows: plan.windows() });
        }
        changes
    }
}

fn results(
    rollup: &Arc<Rollup>,
    rows: RecordBatch,
    kind: ResultKind,
    withdrawn: Option<RecordBatch>,
) -> Option<Results> {
    let nothing_withdrawn = withdrawn.as_ref().is_none_or(|rows| rows.num_rows() == 0);
    if rows.num_rows() == 0 && nothing_withdrawn {
        return None;
    }
    let starts = rows.column(rollup.shape.time).as_primitive::<TimestampNanosecondType>();
    let window_ends = starts.values().iter().map(|start| rollup.windows.end(*start)).collect();
    Some(Results { rollup: Arc::clone(rollup), rows, window_ends, kind, withdrawn })
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, StringViewArray, TimestampNanosecondArray};
    use arrow::util::pretty::pretty_format_batches;

    use super::*;
    use crate::partial::{aggregate, points_schema};
    use crate::sql::compile;
    use crate::watermark::{EpochFacts, PartitionFacts};

    const SECOND: i64 = 1_000_000_000;
    const OPTIONS: WatermarkOptions =
        WatermarkOptions { max_out_of_orderness: 0, idle_timeout: 60 * SECOND, owner_timeout: 60 * SECOND };
    const SQL: &str = "CREATE MATERIALIZED VIEW cpu WITH (allowed_lateness = '1 minute') AS
        SELECT tumble(time, INTERVAL '10 seconds') AS w, labels['host'] AS host,
               avg(value) AS avg, max(value) + 1 AS m, count(*) AS n
        FROM points WHERE name = 'cpu' GROUP BY 1, 2 HAVING avg(value) < 100";

    fn rollups() -> Vec<Arc<Rollup>> {
        let catalog = compile(&[("cpu.sql".into(), SQL.into())]);
        assert_eq!(catalog.errors, []);
        catalog.rollups
    }

    /// Points are (host, seconds, value).
    fn message(rollups: &[Arc<Rollup>], points: &[(&str, i64, f64)]) -> Partials {
        let times = points.iter().map(|(_, time, _)| time * SECOND);
        let batch = RecordBatch::try_new(
            points_schema(&["host".to_owned()]),
            vec![
                Arc::new(StringViewArray::from_iter_values(points.iter().map(|_| "cpu"))),
                Arc::new(TimestampNanosecondArray::from_iter_values(times.clone())),
                Arc::new(Float64Array::from_iter_values(points.iter().map(|(.., value)| *value))),
                Arc::new(StringViewArray::from_iter_values(points.iter().map(|(host, ..)| host))),
            ],
        )
        .unwrap();
        let facts = EpochFacts {
            wall: 0,
            topics: BTreeMap::from([("points".into(), 1)]),
            partitions: vec![PartitionFacts {
                topic: "points".into(),
                partition: 0,
                from: 0,
                to: 1,
                high: times.max(),
                at_end: false,
                silent: 0,
            }],
        };
        let message = aggregate(rollups, &[batch], &facts, 1).messages.remove(0);
        Partials::decode(&message.encode().unwrap()).unwrap()
    }

    fn rows(applied: &Applied, kind: ResultKind) -> String {
        let batches: Vec<_> =
            applied.results.iter().filter(|r| r.kind == kind).map(|r| r.rows.clone()).collect();
        pretty_format_batches(&batches).unwrap().to_string()
    }

    #[test]
    fn closes_corrects_and_gives_out_late_rows() {
        let rollups = rollups();
        let mut fold = Fold::new(&rollups, OPTIONS);
        let first = fold.apply(&message(&rollups, &[("a", 1, 1.0), ("a", 2, 3.0), ("b", 3, 5.0)]));
        assert!(first.results.is_empty());

        let closed = fold.apply(&message(&rollups, &[("a", 10, 1.0)]));
        let table = rows(&closed, ResultKind::Closed);
        assert!(
            table.contains("| a    | 2.0 | 4.0 | 2 |") && table.contains("| b    | 5.0 | 6.0 | 1 |"),
            "{table}"
        );

        let corrected = fold.apply(&message(&rollups, &[("a", 5, 8.0)]));
        let table = rows(&corrected, ResultKind::Corrected);
        assert!(table.contains("| a    | 4.0 | 9.0 | 3 |") && !table.contains("| b "), "{table}");

        // HAVING refuses the group now: what was written must go.
        let withdrawn = fold.apply(&message(&rollups, &[("b", 6, 1_000.0)]));
        assert_eq!(withdrawn.results[0].rows.num_rows(), 0);
        let keys = withdrawn.results[0].withdrawn.as_ref().unwrap();
        let table = pretty_format_batches(std::slice::from_ref(keys)).unwrap().to_string();
        assert!(table.contains("| b    |     |   |   |"), "{table}");

        fold.apply(&message(&rollups, &[("a", 70, 1.0)]));
        let late = fold.apply(&message(&rollups, &[("a", 7, 1.0), ("a", 8, 1.0)]));
        assert_eq!((late.late[0].points, late.late[0].age), (2, 60 * SECOND));
        assert!(late.results.is_empty());
    }

    #[test]
    fn a_corrected_row_that_lost_a_field_is_withdrawn_before_it_is_written() {
        let sql = "CREATE MATERIALIZED VIEW calm WITH (allowed_lateness = '1 minute') AS
            SELECT tumble(time, INTERVAL '10 seconds') AS w, labels['host'] AS host,
                   CASE WHEN max(value) < 100 THEN avg(value) END AS calm, count(*) AS n
            FROM points GROUP BY 1, 2";
        let rollups = compile(&[("calm.sql".into(), sql.into())]).rollups;
        let mut fold = Fold::new(&rollups, OPTIONS);
        fold.apply(&message(&rollups, &[("a", 1, 50.0), ("b", 2, 50.0)]));
        fold.apply(&message(&rollups, &[("a", 12, 1.0)]));
        let corrected = fold.apply(&message(&rollups, &[("a", 3, 150.0), ("b", 3, 60.0)]));
        let results = &corrected.results[0];
        assert_eq!(results.rows.num_rows(), 2);
        let withdrawn =
            pretty_format_batches(std::slice::from_ref(results.withdrawn.as_ref().unwrap())).unwrap();
        let withdrawn = withdrawn.to_string();
        assert!(withdrawn.contains("| a ") && !withdrawn.contains("| b "), "{withdrawn}");
    }

    #[test]
    fn a_restored_fold_goes_on_as_the_first_would_have() {
        let rollups = rollups();
        let mut fold = Fold::new(&rollups, OPTIONS);
        fold.apply(&message(&rollups, &[("a", 1, 1.0), ("b", 3, 5.0)]));
        fold.apply(&message(&rollups, &[("a", 12, 1.0)]));
        let bytes = fold.snapshot("alerts".into()).unwrap();
        let Restored { fold: mut restored, alerts, changes, .. } =
            Fold::restore(&rollups, OPTIONS, &bytes).unwrap();
        let kept = Change::Kept { lateness_before: None, other_results: false };
        assert_eq!((alerts.as_str(), changes), ("alerts", BTreeMap::from([("cpu".to_owned(), kept)])));
        for next in [message(&rollups, &[("a", 2, 7.0)]), message(&rollups, &[("a", 25, 7.0)])] {
            let (one, two) = (fold.apply(&next), restored.apply(&next));
            for kind in [ResultKind::Closed, ResultKind::Corrected] {
                assert_eq!(rows(&one, kind), rows(&two, kind));
            }
        }
        assert_eq!(fold.watermark(), restored.watermark());
    }
}
