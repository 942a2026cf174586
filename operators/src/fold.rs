//! What a `rollup` partition does with its log: a deterministic fold.
//!
//! Each message first merges its states, then moves the watermark by its facts, then closes the windows that
//! the watermark passed. A window closes when the watermark reaches its end. Until `allowed_lateness` has
//! also passed, states that arrive for it correct it: the groups they touch are given out again, whole. After
//! that the window is final, and later states are given out as late. Replaying the log from a snapshot gives the
//! same results.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampNanosecondType;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::exchange::{self, Partials, Section};
use crate::sql::Rollup;
use crate::state::{WindowRows, WindowStates, by_window, points_in};
use crate::watermark::{Holder, Watermark, WatermarkOptions};

/// The state of one partition of the partials topic.
#[derive(Debug)]
pub struct Fold {
    options: WatermarkOptions,
    watermark: Watermark,
    rollups: Vec<(Arc<Rollup>, WindowStates)>,
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
    /// Rollups whose states were left out because another plan made them.
    pub foreign: Vec<String>,
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
    merged: BTreeMap<String, Vec<bool>>,
    alerts: String,
}

impl Fold {
    pub fn new(rollups: &[Arc<Rollup>], options: WatermarkOptions) -> Self {
        let rollups = rollups
            .iter()
            .map(|rollup| (Arc::clone(rollup), WindowStates::new(Arc::clone(rollup))))
            .collect();
        Self { options, watermark: Watermark::default(), rollups }
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

    /// Takes in one message. A rollup that fails does not stop the others.
    pub fn apply(&mut self, message: &Partials) -> Applied {
        let mut applied = Applied::default();
        let before = self.watermark.value();
        let mut touched: Vec<Vec<WindowRows>> = vec![Vec::new(); self.rollups.len()];
        for section in &message.states {
            let Some(index) = self.index_of(section) else {
                applied.foreign.push(section.rollup.clone());
                continue;
            };
            for batch in &section.batches {
                let merged = self.merge(index, batch, before, &mut touched[index], &mut applied);
                applied.failures.extend(merged.err());
            }
        }
        self.watermark.observe(&message.facts, &self.options);
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
        let mut points = 0;
        for part in by_window(rollup, batch)? {
            let is_final = watermark.is_some_and(|at| part.end.saturating_add(rollup.allowed_lateness) <= at);
            if is_final {
                applied.late.push(Late {
                    rows: rollup.finish(vec![part.rows.clone()])?,
                    points: points_in(rollup, &part.rows),
                    age: watermark.unwrap_or(part.end).saturating_sub(part.end),
                    rollup: Arc::clone(rollup),
                });
                continue;
            }
            points += points_in(rollup, &part.rows);
            if watermark.is_some_and(|at| part.end <= at) {
                touched.push(part.clone());
            }
            states.absorb(part)?;
        }
        applied.points.push((rollup.name.clone(), points));
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
        let mut merged = BTreeMap::new();
        for (rollup, states) in &self.rollups {
            let (batches, flags) = states.snapshot();
            if batches.is_empty() {
                continue;
            }
            merged.insert(rollup.name.clone(), flags);
            let batches = batches.iter().map(exchange::compact).collect::<Result<_>>()?;
            let (rollup, fingerprint) = (rollup.name.clone(), rollup.fingerprint);
            sections.push(Section { rollup, fingerprint, batches });
        }
        exchange::encode("fold", &Header { watermark: self.watermark.clone(), merged, alerts }, &sections)
    }

    /// A fold as it was when `bytes` were taken; returns also the alerts' part and the rollups whose state
    /// another plan made, which start empty.
    pub fn restore(
        rollups: &[Arc<Rollup>],
        options: WatermarkOptions,
        bytes: &[u8],
    ) -> Result<(Self, String, Vec<String>)> {
        let (header, sections): (Header, _) = exchange::decode("fold", bytes, "snapshot")?;
        let mut fold = Self::new(rollups, options);
        let mut foreign = Vec::new();
        for section in sections {
            let Some(index) = fold.index_of(&section) else {
                foreign.push(section.rollup);
                continue;
            };
            let flags = header.merged.get(&section.rollup).map_or(&[][..], Vec::as_slice);
            for (position, batch) in section.batches.into_iter().enumerate() {
                fold.rollups[index].1.restore(batch, flags.get(position).copied().unwrap_or(false));
            }
        }
        fold.watermark = header.watermark;
        Ok((fold, header.alerts, foreign))
    }
}

/// The watermark that a snapshot holds.
pub fn snapshot_watermark(bytes: &[u8]) -> Result<Option<i64>> {
    let (header, _): (Header, _) = exchange::decode("fold", bytes, "snapshot")?;
    Ok(header.watermark.value())
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
        let (mut restored, alerts, foreign) = Fold::restore(&rollups, OPTIONS, &bytes).unwrap();
        assert_eq!((alerts.as_str(), foreign.len()), ("alerts", 0));
        for next in [message(&rollups, &[("a", 2, 7.0)]), message(&rollups, &[("a", 25, 7.0)])] {
            let (one, two) = (fold.apply(&next), restored.apply(&next));
            for kind in [ResultKind::Closed, ResultKind::Corrected] {
                assert_eq!(rows(&one, kind), rows(&two, kind));
            }
        }
        assert_eq!(fold.watermark(), restored.watermark());
    }
}
