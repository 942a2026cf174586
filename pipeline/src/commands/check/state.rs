//! `tidemark check --against-state`: what becomes of the stored states when `rollup` is started
//! with the SQL files as they are now. Reads the newest snapshot of each partition, and needs no
//! server.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use operators::fold::Fold;
use operators::rebuild::{Change, Rebuild, Retyped};
use operators::sql::{Catalog, Rollup};

use crate::config::Config;
use crate::error::Result;
use crate::storage::Snapshots;
use crate::time::shown;

/// What becomes of each rollup, over all partitions. Displays as a table for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateReport {
    /// Partitions with a snapshot.
    partitions: usize,
    /// Other versions of the format.
    other_versions: Vec<String>,
    rollups: BTreeMap<String, Verdict>,
    archive: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Verdict {
    what: &'static str,
    because: Vec<String>,
    /// What stores with rows of before make of columns that are of another kind now.
    retyped: BTreeSet<String>,
    /// Open windows that are dropped.
    windows: usize,
    new_tiers: BTreeSet<String>,
    /// By tier, the finest first.
    rebuilt: BTreeMap<(usize, String), Rebuilt>,
}

/// The windows that are rebuilt, from the oldest to the newest of all partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rebuilt {
    from: i64,
    to: i64,
    /// Event time at which all of them are final.
    due: i64,
}

/// Compares the newest snapshots with the plans of `catalog`. Changes nothing.
///
/// # Errors
/// When the storage or a snapshot cannot be read.
pub async fn compare(config: &Config, catalog: &Catalog) -> Result<StateReport> {
    let mut report = StateReport { archive: config.archive.enabled, ..StateReport::default() };
    let find = |name: &str| catalog.rollups.iter().find(|rollup| rollup.name == name);
    for bytes in Snapshots::open(config.storage.url.as_str())?.newest().await? {
        let restored = Fold::restore(&catalog.rollups, config.ingest.watermark(), &bytes)?;
        report.partitions += 1;
        report.other_versions.extend(restored.other_version);
        for (name, change) in &restored.changes {
            report.rollups.entry(name.clone()).or_default().add(change, find(name).map(AsRef::as_ref));
        }
        for (name, columns) in &restored.retyped {
            report.rollups.entry(name.clone()).or_default().retyped.extend(columns.iter().map(refusal));
        }
        for rebuild in restored.fold.rebuilds() {
            report.rollups.entry(rebuild.rollup.name.clone()).or_default().add_rebuild(&rebuild);
        }
    }
    report.other_versions.sort();
    report.other_versions.dedup();
    Ok(report)
}

const STARTS_OVER: &str = "starts over";

impl Verdict {
    fn add(&mut self, change: &Change, rollup: Option<&Rollup>) {
        let (what, because) = match change {
            Change::Kept { lateness_before, other_results, new_tiers } => {
                self.new_tiers.extend(new_tiers.iter().cloned());
                let now = rollup.map_or(0, |rollup| rollup.allowed_lateness);
                let lateness = lateness_before
                    .map(|before| format!("allowed_lateness {}, was {}", duration(now), duration(before)));
                let results = other_results.then(|| "other columns or HAVING from now on".to_owned());
                ("kept", lateness.into_iter().chain(results).collect())
            }
            Change::StartsOver { .. } => (STARTS_OVER, vec!["its states are of another query".to_owned()]),
            Change::New => (STARTS_OVER, vec!["there is no state of it".to_owned()]),
            Change::Removed { windows } => {
                self.windows += windows;
                ("removed", Vec::new())
            }
        };
        // Partitions may have been written by processes with different files: the worst counts.
        if self.what != STARTS_OVER {
            self.what = what;
        }
        for reason in because {
            if !self.because.contains(&reason) {
                self.because.push(reason);
            }
        }
    }

    fn add_rebuild(&mut self, rebuild: &Rebuild) {
        let (from, to, due) = (rebuild.gap.from, rebuild.gap.to, rebuild.due());
        let all = self.rebuilt.entry((rebuild.tier, rebuild.tier().name.clone())).or_insert(Rebuilt {
            from,
            to,
            due,
        });
        *all = Rebuilt { from: all.from.min(from), to: all.to.max(to), due: all.due.max(due) };
    }

    fn details(&self, archive: bool) -> Vec<String> {
        let mut details = self.because.clone();
        details.extend(self.retyped.iter().cloned());
        if self.what == "removed" {
            details.push(format!("open windows dropped: {}", self.windows));
        }
        for ((_, tier), Rebuilt { from, to, due }) in &self.rebuilt {
            let (from, to) = (shown(*from), shown(*to));
            let begins = match self.what == STARTS_OVER || self.new_tiers.contains(tier) {
                true => format!("{tier} begins at {to}; "),
                false => format!("{tier}: "),
            };
            details.push(match archive {
                true => format!(
                    "{begins}windows from {from} to {to} are rebuilt from raw points, at event time {}",
                    shown(*due)
                ),
                false => {
                    format!("{begins}windows from {from} to {to} are not rebuilt, as the archive is off")
                }
            });
        }
        details
    }
}

impl fmt::Display for StateReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.partitions == 0 {
            return f.write_str("no state is stored: every rollup begins with the oldest message");
        }
        write!(f, "state of {} partitions", self.partitions)?;
        if !self.other_versions.is_empty() {
            let versions = self.other_versions.join(", ");
            write!(f, ", of format version {versions}: only their watermarks can be read")?;
        }
        let width = self.rollups.keys().map(String::len).max().unwrap_or_default();
        for (name, verdict) in &self.rollups {
            let details = verdict.details(self.archive);
            let line = format!("{name:width$}  {:11}  ", verdict.what);
            let more = format!("\n{:1$}", "", line.len());
            write!(f, "\n{}", format!("{line}{}", details.join(&more)).trim_end())?;
        }
        Ok(())
    }
}

fn refusal(retyped: &Retyped) -> String {
    let Retyped { column, before, now } = retyped;
    let what = if before == "tag" || *now == "tag" {
        "queries of InfluxDB find two columns of one name"
    } else {
        "InfluxDB refuses the new rows where it has rows of before"
    };
    format!(
        "`{column}` was {}, and is {}: {what}; give the column another name",
        with_article(before),
        with_article(now)
    )
}

fn with_article(kind: &str) -> String {
    let article = if kind.starts_with(['i', 'u']) { "an" } else { "a" };
    format!("{article} {kind}")
}

fn duration(nanoseconds: i64) -> String {
    humantime::format_duration(Duration::from_nanos(nanoseconds.unsigned_abs())).to_string()
}
