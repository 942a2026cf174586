//! `tidemark test`: what rules make of points that are made up, against what a test expects.
//!
//! - `run`: a test's points through the rollups' operators, and the alerts and notifications that
//!   come of them
//! - `verdict`: these against what is expected
//! - `report`: for people
//!
//! The files are read in `config::rule_tests`; rules and routes run in
//! [`crate::commands::simulate`].

mod report;
mod run;
mod verdict;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;

use crate::catalog::load_catalog;
use crate::config::{Config, ConfigError, Environment, RuleTests};

#[derive(Debug, Args)]
pub struct TestArgs {
    /// Files of tests
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// What came of all files.
#[derive(Debug)]
pub struct Tested {
    files: Vec<(PathBuf, Vec<Verdict>)>,
}

/// What came of one test.
#[derive(Debug)]
struct Verdict {
    name: String,
    /// What is not as expected, one or more lines each; none when the test has passed.
    failures: Vec<String>,
}

impl Tested {
    /// Whether a test has not passed.
    pub fn has_failed(&self) -> bool {
        self.files.iter().flat_map(|(_, verdicts)| verdicts).any(|verdict| !verdict.failures.is_empty())
    }
}

/// Runs all tests of all files, unless one of them has a mistake.
///
/// # Errors
/// Every mistake in the files of tests, and in the rules and rollups that they name.
pub fn run(config: &Config, environment: &Environment, args: &TestArgs) -> Result<Tested> {
    let (mut files, mut problems) = (Vec::new(), Vec::new());
    for path in &args.files {
        match test(config, environment, path) {
            Ok(verdicts) => files.push((path.clone(), verdicts)),
            Err(found) => problems.extend(found),
        }
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(Tested { files })
}

fn test(config: &Config, environment: &Environment, path: &Path) -> Result<Vec<Verdict>, Vec<String>> {
    let rules = config.alerts.rules.as_deref();
    let tests = RuleTests::load(path, environment, rules, &config.rollup.sql)
        .map_err(|problem| vec![problem.to_string()])?;
    let catalog = load_catalog(&tests.sql).map_err(|problem| vec![problem.to_string()])?;
    if !catalog.errors.is_empty() {
        return Err(catalog.errors.iter().map(ToString::to_string).collect());
    }
    let options = config.ingest.watermark();
    let notified = |problems: Vec<ConfigError>| problems.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut verdicts = Vec::new();
    for test in &tests.tests {
        let ran = run::run(test, &tests.alerts, &catalog, options).map_err(notified)?;
        verdicts.push(Verdict {
            name: test.name.clone(),
            failures: verdict::failures(test, &tests.alerts, &ran),
        });
    }
    Ok(verdicts)
}
