//! `tidemark check`: everything that is wrong with a configuration, its SQL files and its alert rules, found without
//! any server.
//!
//! `run` builds on the same two functions, [`load_catalog`] and [`compile_rules`]: a bad file or rule is reported and
//! left out, and the others run.

pub mod state;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use operators::sql::{self, Catalog, Rollup, SqlError, Tier};
use operators::threshold::{Rule, RuleError, RuleSpec, Watched, Watches};

use crate::config::{
    AlertsConfig, Config, ConfigError, Environment, Located, RuleConfig, TierConfig, WatchesConfig, suggest,
};
use crate::kafka;

/// What `check` found. It displays as one paragraph a problem, `file:line:column: what is wrong` and `help: what to
/// write instead`, and a summary in one line.
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

/// The directory of the rollups cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}: cannot read the directory of the rollups: {source}\n  help: `sql` in [rollup] names it, relative to the working directory",
    path.display()
)]
pub struct SqlDirError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Checks the configuration at `config` with the overrides of `environment`, the SQL files and the alert rules that it
/// names. Goes on after a problem: the report has all of them, save that of a TOML file with an unknown key or a
/// wrong type only the first is found.
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

/// Plans the rollups of every `.sql` file in `sql_dir`, in the order of their names. Files that cannot be read or are
/// refused are in `errors` of the catalog.
///
/// # Errors
/// When the directory itself cannot be read.
pub fn load_catalog(sql_dir: &Path) -> Result<Catalog, SqlDirError> {
    let unreadable = |source| SqlDirError { path: sql_dir.to_owned(), source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(sql_dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        // Hidden files are those of editors, archives and systems, such as `._cpu.sql`.
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !is_hidden && path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("sql")) {
            paths.push(path);
        }
    }
    paths.sort();
    let (mut files, mut errors) = (Vec::new(), Vec::new());
    for path in paths {
        let file = path.display().to_string();
        match fs::read_to_string(&path) {
            Ok(text) => files.push((file, text)),
            Err(error) => errors.push(SqlError {
                file,
                line: 0,
                column: 0,
                message: format!("cannot read the file: {error}"),
                remedy: "it must be text in UTF-8 that this user may read".to_owned(),
            }),
        }
    }
    let mut catalog = sql::compile(&files);
    catalog.errors.append(&mut errors);
    catalog.errors.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(catalog)
}

/// The names of all tiers beyond the finest of their rollup.
pub(crate) fn coarser_tiers(catalog: &Catalog) -> BTreeSet<String> {
    let coarser = catalog.rollups.iter().flat_map(|rollup| &rollup.tiers()[1..]);
    coarser.map(|tier| tier.name.clone()).collect()
}

/// Tiers that the configuration has a bucket for, but no rollup.
pub fn unused_tiers(config: &Config, catalog: &Catalog) -> Vec<ConfigError> {
    let Some(influx) = &config.influx else { return Vec::new() };
    let used = coarser_tiers(catalog);
    let names: Vec<&str> = used.iter().map(String::as_str).collect();
    let remedy = |name: &str| match names.is_empty() {
        true => "list it in WITH (tiers = …) of a SQL file, or remove the section".to_owned(),
        false => format!("{}; or remove the section", suggest(name, &names)),
    };
    let unused = influx.tiers.iter().filter(|(name, _)| !used.contains(*name));
    let error = |(name, tier): (&String, &TierConfig)| {
        tier.error(format!("no rollup has the tier `{name}` beyond its finest"), remedy(name))
    };
    unused.map(error).collect()
}

/// Compiles every rule against what it watches, in the order of the file; a rule that is wrong is left out, and its error
/// names the place in the rules' file.
pub fn compile_rules(alerts: &AlertsConfig, catalog: &Catalog) -> (Vec<Rule>, Vec<ConfigError>) {
    let (rules, left_out) = compile_each(alerts, catalog);
    (rules, left_out.into_iter().flat_map(|(_, mistakes)| mistakes).collect())
}

/// The rules that can be used, and the names of the others with every mistake in them.
pub(crate) fn compile_each<'a>(
    alerts: &'a AlertsConfig,
    catalog: &Catalog,
) -> (Vec<Rule>, Vec<(&'a str, Vec<ConfigError>)>) {
    let (mut rules, mut left_out) = (Vec::new(), Vec::new());
    for config in &alerts.rules {
        match compile_rule(config, catalog, &rules) {
            Ok(rule) => rules.push(rule),
            Err(mistakes) => left_out.push((config.name.as_str(), mistakes)),
        }
    }
    (rules, left_out)
}

/// The rule, or every mistake in it: a text with a mistake is replaced by one without, to look at the others.
fn compile_rule(config: &RuleConfig, catalog: &Catalog, earlier: &[Rule]) -> Result<Rule, Vec<ConfigError>> {
    let rollup_of = |name: &str| catalog.rollups.iter().find(|rollup| rollup.name == name);
    if let Some(name) = config.rollup() {
        let rollup = rollup_of(&name.text).ok_or_else(|| vec![unknown_rollup(name, catalog)])?;
        tier_of(config, rollup).map_err(|error| vec![error])?;
    }
    let seen = |name: &str| {
        let rollup = rollup_of(name)?;
        let tier = tier_of(config, rollup).ok()?;
        Some((Watched::of(rollup, tier), tier.name.clone()))
    };
    let mut spec = spec_of(config, &|name| seen(name).map(|(_, tier)| tier).unwrap_or_default());
    let mut mistakes = Vec::new();
    loop {
        let error = match Rule::compile(spec.clone(), &seen, earlier) {
            Ok(rule) if mistakes.is_empty() => return Ok(rule),
            Ok(_) => return Err(mistakes),
            Err(error) => error,
        };
        let key = error.key;
        mistakes.push(place(config, error));
        match (key, &mut spec.watches) {
            ("condition", Watches::Rows { condition, .. } | Watches::Query { condition, .. })
                if condition != "true" =>
            {
                *condition = "true".to_owned();
            }
            ("recovery", _) if spec.recovery.is_some() => spec.recovery = None,
            ("summary", _) if !spec.summary.is_empty() => spec.summary.clear(),
            ("description", _) if !spec.description.is_empty() => spec.description.clear(),
            _ => return Err(mistakes),
        }
    }
}

/// The tier that a rule names, or the finest.
fn tier_of<'r>(config: &RuleConfig, rollup: &'r Rollup) -> Result<&'r Tier, ConfigError> {
    let Some(name) = &config.tier else { return Ok(rollup.finest()) };
    if let Some(tier) = rollup.tiers().iter().find(|tier| tier.name == name.text) {
        return Ok(tier);
    }
    let names: Vec<&str> = rollup.tiers().iter().map(|tier| tier.name.as_str()).collect();
    let remedy =
        format!("its tiers: {}; more are added by WITH (tiers = …) in its SQL file", names.join(", "));
    Err(name.error(format!("the rollup `{}` has no tier `{name}`", rollup.name), remedy))
}

fn spec_of(config: &RuleConfig, tier_of: &dyn Fn(&str) -> String) -> RuleSpec {
    let names = |rules: &[Located]| rules.iter().map(|rule| rule.text.clone()).collect();
    RuleSpec {
        name: config.name.clone(),
        watches: match &config.watches {
            WatchesConfig::Rows { rollup, condition } => Watches::Rows {
                rollup: rollup.text.clone(),
                tier: tier_of(&rollup.text),
                condition: condition.text.clone(),
            },
            WatchesConfig::Query { query, condition } => {
                Watches::Query { sql: query.text.clone(), condition: condition.text.clone() }
            }
            WatchesConfig::DeadMan { rollup, after } => {
                Watches::DeadMan { rollup: rollup.text.clone(), tier: tier_of(&rollup.text), after: *after }
            }
            WatchesConfig::Rules { all, any, none } => {
                Watches::Rules { all: names(all), any: names(any), none: names(none) }
            }
        },
        recovery: config.recovery.as_ref().map(|recovery| recovery.text.clone()),
        for_: config.hold_for,
        early: config.early,
        keep_firing_for: config.keep_firing_for,
        m_of_n: config.m_of_n,
        missing_data: config.missing_data,
        forget_after: config.forget_after,
        severity: config.severity.clone(),
        labels: config.labels.clone(),
        summary: config.summary.text.clone(),
        description: config.description.text.clone(),
        receivers: config.receivers.clone(),
        owner: config.owner.clone(),
        runbook: config.runbook.clone(),
    }
}

fn unknown_rollup(name: &Located, catalog: &Catalog) -> ConfigError {
    let refused = catalog.errors.iter().find(|error| {
        Path::new(&error.file).file_stem().is_some_and(|stem| stem.to_string_lossy() == name.text)
    });
    if let Some(error) = refused {
        let problem = format!("the rollup `{name}` cannot be used");
        return name.error(problem, format!("correct {} first", error.file));
    }
    let names = rollup_names(&catalog.rollups);
    name.error(format!("unknown rollup `{name}`"), suggest_rollup(&name.text, &names))
}

/// The nearest of the rollups, or all of them.
pub(crate) fn suggest_rollup(given: &str, names: &[&str]) -> String {
    match names {
        [] => "there are no rollups: write one as a .sql file in the directory that `sql` in [rollup] names"
            .to_owned(),
        names => suggest(given, names),
    }
}

pub(crate) fn rollup_names(rollups: &[Arc<Rollup>]) -> Vec<&str> {
    rollups.iter().map(|rollup| rollup.name.as_str()).collect()
}

/// The error at the text of the rule that it is about and, if the message tells it, at the place in that text.
fn place(config: &RuleConfig, error: RuleError) -> ConfigError {
    let text = config.located(error.key);
    let of_rule = |message: &str| format!("`{}` of rule `{}`: {message}", error.key, error.rule);
    if let Some((message, line, column)) = parser_place(&error.message) {
        let message = message.replace("Expected: ", "expected ").replace("found: ", "found ");
        return text.error_in(line, column, of_rule(&message), error.remedy);
    }
    let quoted = error.message.split('`').nth(1).unwrap_or_default();
    text.error_at(quoted, of_rule(&error.message), error.remedy.clone())
}

/// A message of the SQL parser without the place at its end, and that place.
fn parser_place(message: &str) -> Option<(&str, usize, usize)> {
    let (message, place) = message.rsplit_once(" at Line: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    Some((message, line.parse().ok()?, column.parse().ok()?))
}
