//! What a `rollup` partition does with its log: a deterministic fold.
//!
//! Each message first merges its states, then moves the watermark by its facts, then closes the windows that
//! the watermark passed. A window closes when the watermark reaches its end. Until `allowed_lateness` has
//! also passed, states that arrive for it correct it: the groups they touch are given out again, whole. After
//! that the window is final. Replaying the log from a snapshot gives the same results.
//!
//! A rollup has one or more tiers, each with windows of its own length. Every state is merged into each tier, so each
//! closes, corrects and is final by its own windows: what comes too late for a minute may still correct the day. States
//! are late, and given out as such once, when a window of the finest tier that should hold them was final.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampNanosecondType;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::exchange::{self, Partials, Section};
use crate::overflow::{Bounds, Overflow};
use crate::sql::{Rollup, Tier};
use crate::state::{WindowStates, points_in};
use crate::watermark::{Holder, SourceView, Watermark, WatermarkOptions};

/// The state of one partition of the partials topic.
#[derive(Debug)]
pub struct Fold {
    options: WatermarkOptions,
    watermark: Watermark,
    rollups: Vec<RollupStates>,
    bounds: Bounds,
}

#[derive(Debug)]
struct RollupStates {
    rollup: Arc<Rollup>,
    /// In the order of the rollup's tiers.
    tiers: Vec<WindowStates>,
}

/// What one message led to.
#[derive(Debug, Default)]
pub struct Applied {
    /// Closed and corrected windows, in the order in which they must be written.
    pub results: Vec<Results>,
    /// States that came after a window of the finest tier was final.
    pub late: Vec<Late>,
    /// Points merged, by rollup; each is either here or in `late`.
    pub points: Vec<(String, u64)>,
    /// What was merged into overflow groups, because its own group had no place.
    pub overflows: Vec<Overflow>,
    /// Rollups whose states were left out because another plan made them.
    pub foreign: Vec<String>,
    /// Rollups that failed on this message; the others are complete.
    pub failures: Vec<Error>,
}

/// Rows of one tier of a rollup, oldest window first.
#[derive(Debug)]
pub struct Results {
    pub rollup: Arc<Rollup>,
    /// Which of the rollup's tiers.
    pub tier: usize,
    pub rows: RecordBatch,
    /// End of each row's window, nanoseconds.
    pub window_ends: Vec<i64>,
    pub kind: ResultKind,
    /// Keys, with null fields, of rows to remove before `rows` are written: those that HAVING now refuses, and
    /// those whose new version lacks a field.
    pub withdrawn: Option<RecordBatch>,
}

impl Results {
    pub fn tier(&self) -> &Tier {
        &self.rollup.tiers()[self.tier]
    }
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
    /// What the windows of the finest tier miss.
    pub rows: RecordBatch,
    pub points: u64,
    /// From the end of the first window that misses them to the watermark, nanoseconds.
    pub age: i64,
}

/// The state of a fold at one moment.
#[derive(Debug)]
pub struct Captured {
    header: Header,
    sections: Vec<Section>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    watermark: Watermark,
    /// By rollup, the lengths of its tiers in nanoseconds, with or without states.
    tiers: BTreeMap<String, Vec<i64>>,
    /// What the sections are, in their order.
    sections: Vec<SectionHeader>,
    alerts: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct SectionHeader {
    /// Length of the tier, nanoseconds.
    tier: i64,
    /// Which of the batches a merge has made.
    merged: Vec<bool>,
}

impl Fold {
    pub fn new(rollups: &[Arc<Rollup>], options: WatermarkOptions) -> Self {
        let rollups = rollups.iter().map(RollupStates::new).collect();
        Self { options, watermark: Watermark::default(), rollups, bounds: Bounds::default() }
    }

    /// With bounds on its groups and its state from now on.
    #[must_use]
    pub fn bounded(mut self, bounds: Bounds) -> Self {
        for kept in &mut self.rollups {
            for (states, tier) in kept.tiers.iter_mut().zip(kept.rollup.tiers()) {
                states.bound(tier, &bounds);
            }
        }
        self.bounds = bounds;
        self
    }

    /// What the state weighs by its content; memory is up to three times as much while windows are merged.
    pub fn bytes(&self) -> usize {
        self.rollups.iter().flat_map(|kept| &kept.tiers).map(WindowStates::bytes).sum()
    }

    pub fn watermark(&self) -> Option<i64> {
        self.watermark.value()
    }

    /// The source partition that holds the watermark, and why; none when all are idle.
    pub fn holder(&self) -> Option<Holder> {
        self.watermark.holder(&self.options)
    }

    /// What the watermark is made of.
    pub fn sources(&self) -> Vec<SourceView> {
        self.watermark.sources(&self.options)
    }

    /// Wall time of the newest facts in the log.
    pub fn wall(&self) -> i64 {
        self.watermark.wall()
    }

    /// The windows of each tier that have state and have not closed: start, and rows of its panes.
    pub fn open_windows(&self) -> impl Iterator<Item = (&Tier, BTreeMap<i64, usize>)> {
        let watermark = self.watermark.value();
        self.rollups.iter().flat_map(move |kept| {
            let tiers = kept.rollup.tiers().iter().zip(&kept.tiers);
            tiers.map(move |(tier, states)| (tier, states.open_windows(watermark)))
        })
    }

    /// Rows and panes of state in all tiers, by rollup.
    pub fn sizes(&self) -> impl Iterator<Item = (&str, usize, usize)> {
        self.rollups.iter().map(|kept| {
            let rows = kept.tiers.iter().map(WindowStates::rows).sum();
            let panes = kept.tiers.iter().map(WindowStates::panes).sum();
            (kept.rollup.name.as_str(), rows, panes)
        })
    }

    /// Takes in one message. A rollup that fails does not stop the others.
    pub fn apply(&mut self, message: &Partials) -> Applied {
        let mut applied = Applied::default();
        let before = self.watermark.value();
        for section in &message.states {
            let crowded = self.bytes() >= self.bounds.state_bytes;
            let Some(kept) = self.states_for(section) else {
                applied.foreign.push(section.rollup.clone());
                continue;
            };
            for batch in &section.batches {
                let merged = kept.merge(batch, before, crowded, &mut applied);
                applied.failures.extend(merged.err());
            }
        }
        self.watermark.observe(&message.facts, &self.options);
        let now = self.watermark.value();
        for kept in &mut self.rollups {
            for tier in 0..kept.tiers.len() {
                let given_out = kept.give_out(tier, before, now, &mut applied);
                applied.failures.extend(given_out.err());
            }
        }
        applied
    }

    /// The states that a section belongs to; none when another plan made it.
    fn states_for(&mut self, section: &Section) -> Option<&mut RollupStates> {
        self.rollups
            .iter_mut()
            .find(|kept| kept.rollup.name == section.rollup && kept.rollup.fingerprint == section.fingerprint)
    }

    /// The whole state, to be stored as of the offset after the last applied message. `alerts` is carried
    /// along for the threshold operator.
    pub fn snapshot(&self, alerts: String) -> Result<Vec<u8>> {
        self.capture(alerts).encode()
    }

    /// The same, to be encoded elsewhere while this fold goes on: its batches are shared, not copied.
    pub fn capture(&self, alerts: String) -> Captured {
        let (mut sections, mut headers) = (Vec::new(), Vec::new());
        for kept in &self.rollups {
            for states in &kept.tiers {
                let (batches, merged) = states.snapshot();
                if batches.is_empty() {
                    continue;
                }
                let (rollup, fingerprint) = (kept.rollup.name.clone(), kept.rollup.fingerprint);
                sections.push(Section { rollup, fingerprint, batches });
                headers.push(SectionHeader { tier: states.windows().size(), merged });
            }
        }
        let tiers = self.rollups.iter().map(|kept| (kept.rollup.name.clone(), kept.lengths())).collect();
        let header = Header { watermark: self.watermark.clone(), tiers, sections: headers, alerts };
        Captured { header, sections }
    }

    /// A fold as it was when `bytes` were taken; returns also the alerts' part and the rollups whose state
    /// another plan made, or which have a tier that the snapshot does not know. These start empty, in all tiers.
    pub fn restore(
        rollups: &[Arc<Rollup>],
        options: WatermarkOptions,
        bytes: &[u8],
    ) -> Result<(Self, String, Vec<String>)> {
        let (header, sections): (Header, _) = exchange::decode("fold", bytes, "snapshot")?;
        let mut fold = Self::new(rollups, options);
        let mut foreign = fold.with_new_tiers(&header.tiers);
        for (section, about) in sections.into_iter().zip(header.sections) {
            if foreign.contains(&section.rollup) {
                continue;
            }
            let Some(kept) = fold.states_for(&section) else {
                foreign.push(section.rollup);
                continue;
            };
            // A tier that the rollup has no more is forgotten.
            let tier = kept.tiers.iter_mut().find(|states| states.windows().size() == about.tier);
            let Some(states) = tier else { continue };
            for (position, batch) in section.batches.into_iter().enumerate() {
                states.restore(batch, about.merged.get(position).copied().unwrap_or(false));
            }
        }
        fold.watermark = header.watermark;
        Ok((fold, header.alerts, foreign))
    }

    /// Rollups that have a tier which they had not when the snapshot was taken: its open windows would lack what the
    /// others have already forgotten.
    fn with_new_tiers(&self, before: &BTreeMap<String, Vec<i64>>) -> Vec<String> {
        let has_new = |kept: &&RollupStates| {
            let known = before.get(&kept.rollup.name);
            known.is_some_and(|known| kept.lengths().iter().any(|length| !known.contains(length)))
        };
        self.rollups.iter().filter(has_new).map(|kept| kept.rollup.name.clone()).collect()
    }
}

/// The watermark that a snapshot holds.
pub fn snapshot_watermark(bytes: &[u8]) -> Result<Option<i64>> {
    let (header, _): (Header, _) = exchange::decode("fold", bytes, "snapshot")?;
    Ok(header.watermark.value())
}

impl Captured {
    /// The bytes that [`Fold::restore`] takes.
    ///
    /// # Errors
    /// When Arrow cannot write a batch.
    pub fn encode(self) -> Result<Vec<u8>> {
        exchange::encode_compact("fold", &self.header, self.sections)
    }
}

impl RollupStates {
    fn new(rollup: &Arc<Rollup>) -> Self {
        let tiers = rollup.tiers().iter().map(|tier| WindowStates::new(Arc::clone(rollup), tier));
        Self { rollup: Arc::clone(rollup), tiers: tiers.collect() }
    }

    fn lengths(&self) -> Vec<i64> {
        self.tiers.iter().map(|states| states.windows().size()).collect()
    }

    /// Merges states into every tier.
    fn merge(
        &mut self,
        batch: &RecordBatch,
        watermark: Option<i64>,
        crowded: bool,
        applied: &mut Applied,
    ) -> Result<()> {
        let rollup = &self.rollup;
        let mut points = 0;
        let (finest, coarser) = self.tiers.split_first_mut().expect("a rollup has at least one tier");
        for part in finest.by_pane(batch)? {
            let pane_end = finest.windows().pane().end(part.start);
            let of_part = points_in(rollup, &part.rows);
            let absorbed = finest.absorb(part, watermark, crowded)?;
            applied.overflows.extend(absorbed.overflow);
            if absorbed.missed.is_empty() {
                points += of_part;
                continue;
            }
            applied.late.push(Late {
                rows: rollup.finish(absorbed.missed)?,
                points: of_part,
                // The first window that holds a pane ends with it.
                age: watermark.unwrap_or(pane_end).saturating_sub(pane_end),
                rollup: Arc::clone(rollup),
            });
        }
        applied.points.push((rollup.name.clone(), points));
        for states in coarser {
            for part in states.by_pane(batch)? {
                // What a coarser window misses was also too late for the finest.
                applied.overflows.extend(states.absorb(part, watermark, crowded)?.overflow);
            }
        }
        Ok(())
    }

    /// Corrections come first: they concern older windows than those that close now.
    fn give_out(
        &mut self,
        tier: usize,
        before: Option<i64>,
        now: Option<i64>,
        applied: &mut Applied,
    ) -> Result<()> {
        let corrected = self.tiers[tier].correct()?;
        if let Some(corrected) = corrected {
            let results = self.results(tier, corrected.rows, ResultKind::Corrected, corrected.withdrawn);
            applied.results.extend(results);
        }
        let Some(now) = now.filter(|_| now != before) else { return Ok(()) };
        let closed = self.tiers[tier].close(before, now)?;
        applied.results.extend(self.results(tier, closed, ResultKind::Closed, None));
        self.tiers[tier].purge(now);
        Ok(())
    }

    fn results(
        &self,
        tier: usize,
        rows: RecordBatch,
        kind: ResultKind,
        withdrawn: Option<RecordBatch>,
    ) -> Option<Results> {
        let nothing_withdrawn = withdrawn.as_ref().is_none_or(|rows| rows.num_rows() == 0);
        if rows.num_rows() == 0 && nothing_withdrawn {
            return None;
        }
        let windows = self.tiers[tier].windows();
        let starts = rows.column(self.rollup.shape.time).as_primitive::<TimestampNanosecondType>();
        let window_ends = starts.values().iter().map(|start| windows.end(*start)).collect();
        Some(Results { rollup: Arc::clone(&self.rollup), tier, rows, window_ends, kind, withdrawn })
    }
}

#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
