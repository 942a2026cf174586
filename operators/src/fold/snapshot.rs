//! A fold in a snapshot, and what becomes of it when plans have changed since.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Fold, RollupStates};
use crate::error::Result;
use crate::exchange::{self, Section};
use crate::rebuild::{Change, Plan, Retyped};
use crate::sql::Rollup;
use crate::state::WindowStates;
use crate::watermark::{Watermark, WatermarkOptions};

/// The state of a fold at one moment.
#[derive(Debug)]
pub struct Captured {
    header: Header,
    sections: Vec<Section>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    watermark: Watermark,
    /// By rollup, with or without states.
    #[serde(default)]
    plans: BTreeMap<String, Plan>,
    /// What the sections are, in their order.
    #[serde(default)]
    sections: Vec<SectionHeader>,
    #[serde(default)]
    alerts: String,
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
    /// Columns that are of another kind now, by rollup.
    pub retyped: BTreeMap<String, Vec<Retyped>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SectionHeader {
    /// Length of the tier, nanoseconds.
    tier: i64,
    /// Which of the batches a merge has made.
    merged: Vec<bool>,
}

impl Fold {
    /// The whole state, to be stored as of the offset after the last applied message. `alerts` is
    /// carried along for the threshold operator.
    pub fn snapshot(&self, alerts: String) -> Result<Vec<u8>> {
        self.capture().encode(alerts)
    }

    /// The same, to be encoded elsewhere while this fold goes on: its batches are shared, not
    /// copied.
    pub fn capture(&self) -> Captured {
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
        let plans = self.rollups.iter().map(|kept| (kept.rollup.name.clone(), kept.plan())).collect();
        let watermark = self.watermark.clone();
        let header = Header { watermark, plans, sections: headers, alerts: String::new() };
        Captured { header, sections }
    }

    /// A fold as it was when `bytes` were taken, as far as these rollups have the plans and tiers
    /// of then. What another plan or another version of the format made is left to be rebuilt.
    ///
    /// # Errors
    /// When not even the watermark can be read.
    pub fn restore(rollups: &[Arc<Rollup>], options: WatermarkOptions, bytes: &[u8]) -> Result<Restored> {
        let snapshot = exchange::decode(bytes, "snapshot")?;
        let header: Header = snapshot.header("fold")?;
        let mut fold = Self::new(rollups, options);
        for (section, about) in snapshot.states.iter().flatten().zip(header.sections) {
            let Some(kept) = fold.states_for(section) else { continue };
            // A tier that the rollup has no more is forgotten.
            let tier = kept.tiers.iter_mut().find(|states| states.windows().size() == about.tier);
            let Some(states) = tier else { continue };
            for (position, batch) in section.batches.iter().enumerate() {
                states.restore(batch.clone(), about.merged.get(position).copied().unwrap_or(false));
            }
        }
        fold.watermark = header.watermark;
        let of_plan = |rollup: &Arc<Rollup>| {
            Some((rollup.name.clone(), header.plans.get(&rollup.name)?.retyped(rollup)))
        };
        let retyped = rollups.iter().filter_map(of_plan).filter(|(_, columns)| !columns.is_empty()).collect();
        let changes = fold.compare(&header.plans, snapshot.states.is_some());
        let other_version = snapshot.states.is_none().then_some(snapshot.version);
        Ok(Restored { fold, alerts: header.alerts, other_version, changes, retyped })
    }

    /// What became of each rollup since `plans`; what is missing is left to be rebuilt.
    fn compare(&mut self, plans: &BTreeMap<String, Plan>, are_readable: bool) -> BTreeMap<String, Change> {
        let (watermark, newest) = (self.watermark.value(), self.watermark.newest());
        let mut changes = BTreeMap::new();
        for kept in &mut self.rollups {
            let plan = plans.get(&kept.rollup.name);
            let change = kept.resume(plan, are_readable, watermark, newest);
            changes.insert(kept.rollup.name.clone(), change);
        }
        for (name, plan) in plans {
            changes.entry(name.clone()).or_insert(Change::Removed { windows: plan.windows });
        }
        changes
    }
}

/// The watermark that a snapshot holds, also one of another version of the format.
///
/// # Errors
/// When it cannot be read.
pub fn snapshot_watermark(bytes: &[u8]) -> Result<Option<i64>> {
    let header: Header = exchange::decode(bytes, "snapshot")?.header("fold")?;
    Ok(header.watermark.value())
}

impl Captured {
    /// The bytes that [`Fold::restore`] takes. `alerts`: see [`Fold::snapshot`].
    ///
    /// # Errors
    /// When Arrow cannot write a batch.
    pub fn encode(self, alerts: String) -> Result<Vec<u8>> {
        let header = Header { alerts, ..self.header };
        exchange::encode_compact(&[("fold", exchange::json(&header)?)], self.sections)
    }
}

impl RollupStates {
    fn plan(&self) -> Plan {
        let tiers = self.rollup.tiers().iter().zip(&self.tiers);
        Plan {
            windows: self.tiers.iter().map(WindowStates::panes).sum(),
            tiers: tiers.map(|(tier, states)| (tier.name.clone(), states.gaps().clone())).collect(),
            ..Plan::of(&self.rollup)
        }
    }

    /// Goes on where `plan` was, as far as that is possible.
    fn resume(
        &mut self,
        plan: Option<&Plan>,
        is_readable: bool,
        watermark: Option<i64>,
        newest: Option<i64>,
    ) -> Change {
        let rollup = &self.rollup;
        let same = plan.filter(|plan| is_readable && plan.fingerprint == rollup.fingerprint);
        let mut new_tiers = Vec::new();
        for (tier, states) in rollup.tiers().iter().zip(&mut self.tiers) {
            let known = plan.and_then(|plan| plan.tiers.get(&tier.name));
            *states.gaps_mut() = known.cloned().unwrap_or_default();
            if let (Some(same), Some(_)) = (same, known) {
                let grew = rollup.allowed_lateness > same.allowed_lateness;
                if let Some(at) = watermark.filter(|_| grew) {
                    states.gaps_mut().forget(&tier.windows, same.allowed_lateness, at);
                }
                continue;
            }
            new_tiers.push(tier.name.clone());
            states.gaps_mut().begin_anew();
            if let Some(newest) = newest {
                states.leave_out(watermark, newest);
            }
            if plan.is_some_and(|plan| plan.has_fields_beyond(rollup)) {
                states.gaps_mut().have_other_fields();
            }
        }
        match (plan, same) {
            (_, Some(same)) => Change::Kept {
                lateness_before: Some(same.allowed_lateness)
                    .filter(|before| *before != rollup.allowed_lateness),
                other_results: same.results != rollup.results_fingerprint,
                new_tiers,
            },
            (Some(plan), None) => Change::StartsOver { windows: plan.windows },
            (None, None) => Change::New,
        }
    }
}
