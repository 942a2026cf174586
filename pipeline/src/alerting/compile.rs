//! The rules of a file, compiled against what they watch.

use std::path::Path;

use operators::sql::{Catalog, Rollup, Tier};
use operators::threshold::{Rule, RuleError, RuleSpec, Watched, Watches};

use crate::catalog::{rollup_names, suggest_rollup};
use crate::config::{AlertsConfig, ConfigError, Located, RuleConfig, WatchesConfig};

/// Compiles every rule against what it watches, in the order of the file; a rule that is wrong is
/// left out, and its error names the place in the rules' file.
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
            Err(mistakes) => left_out.push((config.spec.name.as_str(), mistakes)),
        }
    }
    (rules, left_out)
}

/// The rule, or every mistake in it: a text with a mistake is replaced by one without, to look at
/// the others.
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
        summary: config.summary.text.clone(),
        description: config.description.text.clone(),
        ..config.spec.clone()
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

/// The error at the text of the rule that it is about and, if the message tells it, at the place in
/// that text.
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
