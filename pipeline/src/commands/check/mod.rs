//! `tidemark check`: everything that is wrong with a configuration, its SQL files and its alert
//! rules, found without any server.
//!
//! `run` builds on the same two functions, [`load_catalog`] and [`compile_rules`]: a bad file or
//! rule is reported and left out, and the others run.

pub mod state;

use std::fmt;
use std::path::Path;

use crate::alerting::compile_rules;
use crate::catalog::{load_catalog, unused_tiers};
use crate::config::{AlertsConfig, Config, ConfigError, Environment};
use crate::kafka;

/// What `check` found. It displays as one paragraph a problem, `file:line:column: what is wrong`
/// and `help: what to write instead`, and a summary in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Empty when all is well.
    pub problems: Vec<String>,
    /// What works otherwise than it is written.
    pub warnings: Vec<String>,
    /// How many of each can be used as they are.
    pub rollups: usize,
    pub rules: usize,
    pub receivers: usize,
}

/// Checks the configuration at `config` with the overrides of `environment`, the SQL files and the
/// alert rules that it names. Goes on after a problem: the report has all of them, save that of a
/// TOML file with an unknown key or a wrong type only the first is found.
pub fn check(config: &Path, environment: &Environment) -> Report {
    let mut report =
        Report { problems: Vec::new(), warnings: Vec::new(), rollups: 0, rules: 0, receivers: 0 };
    let (config, problems) = Config::load_all(config, environment);
    report.add(&problems);
    let Some(config) = config else {
        return report;
    };
    // Settings that are wrong one by one have been named already.
    if problems.is_empty()
        && let Err(error) = kafka::check_properties(&config.kafka)
    {
        report.problems.push(error.to_string());
    }
    report.warnings = environment.warnings();
    report.warnings.extend(crate::memory::warnings(&config));
    let (alerts, problems) = match &config.alerts.rules {
        Some(path) => AlertsConfig::load_all(path, environment),
        None => (AlertsConfig::default(), Vec::new()),
    };
    report.receivers = alerts.receivers.len();
    match load_catalog(&config.rollup.sql) {
        Ok(catalog) => {
            report.rollups = catalog.rollups.len();
            report.problems.extend(catalog.errors.iter().map(ToString::to_string));
            report.add(&problems);
            if catalog.errors.is_empty() {
                report.add(&unused_tiers(&config, &catalog));
            }
            let (rules, problems) = compile_rules(&alerts, &catalog);
            report.rules = rules.len();
            report.add(&problems);
        }
        Err(error) => {
            report.problems.push(error.to_string());
            report.add(&problems);
        }
    }
    report
}

impl Report {
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }

    fn add(&mut self, problems: &[ConfigError]) {
        self.problems.extend(problems.iter().map(|problem| format!("{problem:#}")));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "{problem}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        match self.problems.len() {
            0 => f.write_str("no problems: ")?,
            1 => f.write_str("1 problem; usable as they are: ")?,
            count => write!(f, "{count} problems; usable as they are: ")?,
        }
        let counts = [(self.rollups, "rollup"), (self.rules, "rule"), (self.receivers, "receiver")];
        for (index, (count, what)) in counts.into_iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            let plural = if count == 1 { "" } else { "s" };
            write!(f, "{separator}{count} {what}{plural}")?;
        }
        Ok(())
    }
}
