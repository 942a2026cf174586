//! Rollups in batch and in the stream, over the folders in `cases`: `rollup.sql` (or several `.sql`
//! files), `points.jsonl`, and `expected.csv`.
//!
//! The batch results must be the expected ones, and those of the stream must be the same for every
//! interleaving. Approximate fields have exact limits in `bounds.sql`, a SELECT with `<field>_low`
//! and `<field>_high`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use libtest_mimic::{Failed, Trial};

use crate::case::Case;
use crate::table::Table;
use crate::{batch, golden, stream};

const SEEDS: u64 = 12;

pub(crate) fn trials() -> Vec<Trial> {
    let trial = |folder: &std::path::PathBuf| {
        let folder = folder.clone();
        Trial::test(format!("rollup::{}", golden::name_of(&folder)), move || check(&folder))
    };
    golden::folders("cases").iter().map(trial).collect()
}

fn check(folder: &Path) -> Result<(), Failed> {
    let mut case = Case::read(folder)?;
    let batch = batch_tables(&mut case)?;
    golden::check(&folder.join("expected.csv"), &rendered(&batch), |expected| {
        let differences: String = differences(&parsed(expected, &batch), &batch, None);
        fail_if(&differences, "batch, against expected.csv")
    })?;
    let bounds = match fs::read_to_string(folder.join("bounds.sql")) {
        Ok(sql) => {
            let keys = batch.values().next().ok_or("no rollup")?.keys;
            Some(Table::of_batch(&batch::run(&sql, &case.stored())?, keys))
        }
        Err(_) => None,
    };
    fail_if(&differences(&batch, &batch, bounds.as_ref()), "batch, against its bounds")?;
    for seed in 0..SEEDS {
        let streamed = stream::run(&mut case, seed);
        let differences = differences(&batch, &streamed, bounds.as_ref());
        fail_if(&differences, &format!("stream with seed {seed}, against batch"))?;
    }
    Ok(())
}

/// The results of every tier of every rollup in batch.
pub(crate) fn batch_tables(case: &mut Case) -> Result<BTreeMap<String, Table>, Failed> {
    let stored = case.stored();
    let mut tables = BTreeMap::new();
    for rollup in &case.catalog.rollups {
        for tier in rollup.tiers() {
            let mut table = Table::new(rollup);
            table.write(rollup, &batch::run(&tier.batch_sql, &stored)?);
            tables.insert(tier.table.clone(), table);
        }
    }
    Ok(tables)
}

/// What `found` has otherwise than `expected`, by rollup.
pub(crate) fn differences(
    expected: &BTreeMap<String, Table>,
    found: &BTreeMap<String, Table>,
    bounds: Option<&Table>,
) -> String {
    let mut text = String::new();
    for (name, table) in expected {
        let differences = table.differences(&found[name], bounds);
        if !differences.is_empty() {
            let _ = write!(text, "{name}\n{differences}");
        }
    }
    text
}

fn fail_if(differences: &str, what: &str) -> Result<(), Failed> {
    match differences.is_empty() {
        true => Ok(()),
        false => Err(format!("{what}: {differences}").into()),
    }
}

/// Tables as in `expected.csv`: each after a line `# <rollup>`.
fn rendered(tables: &BTreeMap<String, Table>) -> String {
    tables.iter().map(|(name, table)| format!("# {name}\n{}", table.to_csv())).collect()
}

/// The reverse; `like` tells how many columns are the identity.
fn parsed(text: &str, like: &BTreeMap<String, Table>) -> BTreeMap<String, Table> {
    let mut tables = BTreeMap::new();
    for (name, table) in like {
        let start = text.find(&format!("# {name}\n"));
        let block = start.map(|start| text[start..].split_once('\n').unwrap().1).unwrap_or_default();
        let end = block.find("\n# ").map_or(block.len(), |end| end + 1);
        tables.insert(name.clone(), Table::from_csv(&block[..end], table.keys));
    }
    tables
}
