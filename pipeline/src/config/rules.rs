//! `[[rule]]` of `config/alerts.toml`.

use std::collections::BTreeMap;
use std::time::Duration;

use operators::threshold::{MissingData, RuleSpec};
use serde::Deserialize;
use toml::Spanned;

use super::error::ConfigError;
use super::located::Located;
use super::settings::Setting;
use super::settings::{duration, text};
use super::source::{Source, suggest};
use super::values::HumanDuration;

/// One rule: what is compiled, and where its texts stand.
#[derive(Debug, Clone)]
pub struct RuleConfig {
    /// All but the texts below, which have their places; receivers are known and named once.
    pub spec: RuleSpec,
    pub watches: WatchesConfig,
    /// The tier of the rollups, `1h`; `None`: their finest.
    pub tier: Option<Located>,
    /// SQL that ends a firing alert; `None`: as soon as the condition is no longer true.
    pub recovery: Option<Located>,
    /// A minijinja template of one line.
    pub summary: Located,
    /// A minijinja template.
    pub description: Located,
}

/// What a rule looks at.
#[derive(Debug, Clone)]
pub enum WatchesConfig {
    /// SQL over the columns of one row of a rollup; the alert is on while it is true.
    Rows { rollup: Located, condition: Located },
    /// The same over the rows of a SELECT.
    Query { query: Located, condition: Located },
    /// Groups of a rollup that get no row for so long.
    DeadMan { rollup: Located, after: Duration },
    /// Other rules.
    Rules { all: Vec<Located>, any: Vec<Located>, none: Vec<Located> },
}

impl RuleConfig {
    /// The text of a key, for an error of a later check; that of what the rule watches when that
    /// key has none in the file.
    pub fn located(&self, key: &str) -> &Located {
        match key {
            "summary" => return &self.summary,
            "description" => return &self.description,
            "recovery" if let Some(recovery) = &self.recovery => return recovery,
            _ => {}
        }
        match (&self.watches, key) {
            (WatchesConfig::Rows { rollup, .. }, "rollup" | "labels") => rollup,
            (WatchesConfig::Rows { condition, .. } | WatchesConfig::Query { condition, .. }, "condition") => {
                condition
            }
            (WatchesConfig::Rows { condition, .. }, _) => condition,
            (WatchesConfig::Query { query, .. }, _) => query,
            (WatchesConfig::DeadMan { rollup, .. }, _) => rollup,
            (WatchesConfig::Rules { all, any, none }, key) => {
                let named = match key {
                    "any" => any,
                    "none" => none,
                    _ => all,
                };
                let first = named.iter().chain(all).chain(any).chain(none).next();
                first.unwrap_or(&self.summary)
            }
        }
    }

    /// The rollup that it names by itself.
    pub fn rollup(&self) -> Option<&Located> {
        match &self.watches {
            WatchesConfig::Rows { rollup, .. } | WatchesConfig::DeadMan { rollup, .. } => Some(rollup),
            WatchesConfig::Query { .. } | WatchesConfig::Rules { .. } => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRule {
    pub(super) name: Spanned<String>,
    rollup: Setting<String>,
    query: Setting<String>,
    tier: Setting<String>,
    condition: Setting<String>,
    dead_man: Setting<HumanDuration>,
    #[serde(default)]
    all: Vec<Spanned<String>>,
    #[serde(default)]
    any: Vec<Spanned<String>>,
    #[serde(default)]
    none: Vec<Spanned<String>>,
    recovery: Setting<String>,
    #[serde(rename = "for")]
    hold_for: Setting<HumanDuration>,
    keep_firing_for: Setting<HumanDuration>,
    #[serde(default)]
    early: bool,
    windows: Setting<String>,
    missing_data: Setting<String>,
    forget_after: Setting<HumanDuration>,
    severity: Setting<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    summary: Setting<String>,
    description: Setting<String>,
    #[serde(default)]
    receivers: Vec<Spanned<String>>,
    owner: Option<String>,
    runbook: Option<String>,
}

const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// Checks one `[[rule]]`; `known` are the names of receivers. SQL and templates are compiled later.
pub(super) fn check_rule(
    source: &Source<'_>,
    mut raw: RawRule,
    known: &[String],
) -> Result<RuleConfig, ConfigError> {
    let receivers = check_receivers(source, std::mem::take(&mut raw.receivers), known)?;
    let of_name = Located::new(source, raw.name.clone());
    let watches = check_watches(source, &of_name, &mut raw)?;
    let located = |text: Spanned<String>| Located::new(source, text);
    let period = |key: &'static str, given: Setting<HumanDuration>| {
        duration(source, key, given, Duration::ZERO, Duration::ZERO..=LONGEST)
    };
    // A template that is left out stands where the rule names what it watches.
    let default_text = |given: Setting<String>, text: &str| match given {
        Some(given) => located(given),
        None => Located::default_at(&of_name, text),
    };
    let forget_after = match raw.forget_after {
        Some(given) => {
            Some(duration(source, "forget_after", Some(given), LONGEST, Duration::from_secs(1)..=LONGEST)?)
        }
        None => None,
    };
    let summary = default_text(raw.summary, raw.name.get_ref());
    let description = default_text(raw.description, "");
    let spec = RuleSpec {
        name: raw.name.into_inner(),
        for_: period("for", raw.hold_for)?,
        early: raw.early,
        keep_firing_for: period("keep_firing_for", raw.keep_firing_for)?,
        m_of_n: raw.windows.map(|windows| m_of_n(source, &windows)).transpose()?,
        missing_data: check_missing_data(source, raw.missing_data)?,
        forget_after,
        severity: text(source, "severity", raw.severity, "warning".to_owned())?,
        labels: raw.labels,
        receivers,
        owner: raw.owner,
        runbook: raw.runbook,
        ..RuleSpec::default()
    };
    let (tier, recovery) = (raw.tier.map(located), raw.recovery.map(located));
    Ok(RuleConfig { spec, watches, tier, recovery, summary, description })
}

/// What the rule looks at, taken out of it: other rules, a query, silence, or rows. Keys without a
/// use are refused.
fn check_watches(
    source: &Source<'_>,
    of_name: &Located,
    raw: &mut RawRule,
) -> Result<WatchesConfig, ConfigError> {
    const CONDITION: &str = "write a condition over the columns, like condition = \"avg > 90\"";
    const ROLLUP: &str = "name a rollup, like rollup = \"cpu_by_host\"; or write `query`, or `all` and `any` with names of rules";
    let name = raw.name.get_ref();
    let needed = |given: Setting<String>, key: &str, remedy: &str| match given {
        Some(text) if !text.get_ref().trim().is_empty() => Ok(Located::new(source, text)),
        Some(text) => Err(source.error(&text.span(), format!("`{key}` is empty")).remedy(remedy)),
        None => Err(of_name.error(format!("rule `{name}` has no `{key}`"), remedy)),
    };
    let unused = |given: &Setting<String>, key: &str, of: &str| match given {
        Some(text) => {
            let problem = format!("a rule with `{of}` has no use for `{key}`");
            Err(source.error(&text.span(), problem).remedy("remove it, or make two rules"))
        }
        None => Ok(()),
    };
    if !(raw.all.is_empty() && raw.any.is_empty() && raw.none.is_empty()) {
        for (given, key) in [
            (&raw.rollup, "rollup"),
            (&raw.query, "query"),
            (&raw.condition, "condition"),
            (&raw.recovery, "recovery"),
        ] {
            unused(given, key, "all, any or none")?;
        }
        let listed = |texts: &mut Vec<Spanned<String>>| {
            texts.drain(..).map(|text| Located::new(source, text)).collect::<Vec<_>>()
        };
        let (all, any) = (listed(&mut raw.all), listed(&mut raw.any));
        return Ok(WatchesConfig::Rules { all, any, none: listed(&mut raw.none) });
    }
    if raw.query.is_some() {
        unused(&raw.rollup, "rollup", "query")?;
        return Ok(WatchesConfig::Query {
            query: needed(raw.query.take(), "query", "write a SELECT over a rollup")?,
            condition: needed(raw.condition.take(), "condition", CONDITION)?,
        });
    }
    if let Some(after) = raw.dead_man.take() {
        unused(&raw.condition, "condition", "dead_man")?;
        unused(&raw.recovery, "recovery", "dead_man")?;
        let rollup = needed(raw.rollup.take(), "rollup", ROLLUP)?;
        let least = Duration::from_secs(1);
        let after = duration(source, "dead_man", Some(after), least, least..=LONGEST)?;
        return Ok(WatchesConfig::DeadMan { rollup, after });
    }
    Ok(WatchesConfig::Rows {
        rollup: needed(raw.rollup.take(), "rollup", ROLLUP)?,
        condition: needed(raw.condition.take(), "condition", CONDITION)?,
    })
}

/// `3 of 5`.
fn m_of_n(source: &Source<'_>, text: &Spanned<String>) -> Result<(u32, u32), ConfigError> {
    let numbers = text
        .get_ref()
        .split_once(" of ")
        .and_then(|(m, n)| Some((m.trim().parse().ok()?, n.trim().parse().ok()?)));
    numbers.ok_or_else(|| {
        let error = source.error(&text.span(), format!("`{}` is not a number of windows", text.get_ref()));
        error.remedy("write windows = \"3 of 5\": true in three of the last five windows")
    })
}

fn check_missing_data(source: &Source<'_>, given: Setting<String>) -> Result<MissingData, ConfigError> {
    let Some(given) = given else { return Ok(MissingData::default()) };
    match given.get_ref().as_str() {
        "keep" => Ok(MissingData::Keep),
        "ok" => Ok(MissingData::Ok),
        "alert" => Ok(MissingData::Alert),
        "no_data" => Ok(MissingData::NoData),
        other => Err(source
            .error(&given.span(), format!("unknown value `{other}` of `missing_data`"))
            .remedy(suggest(other, &["keep", "ok", "alert", "no_data"]))),
    }
}

/// The names that rules or routes give, each known and once.
pub(super) fn check_receivers(
    source: &Source<'_>,
    given: Vec<Spanned<String>>,
    known: &[String],
) -> Result<Vec<String>, ConfigError> {
    let mut receivers: Vec<String> = Vec::new();
    for receiver in given {
        let name = receiver.get_ref();
        if !known.contains(name) {
            let names: Vec<&str> = known.iter().map(String::as_str).collect();
            let error = source.error(&receiver.span(), format!("unknown receiver `{name}`"));
            return Err(match names.is_empty() {
                true => error.remedy("add a [[receiver]] with this name"),
                false => error.remedy(suggest(name, &names)),
            });
        }
        if !receivers.contains(name) {
            receivers.push(receiver.into_inner());
        }
    }
    Ok(receivers)
}
