//! Files of `tidemark test`: series, commands of people, and which alerts and notifications that
//! must lead to.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use alerts::Status;
use alerts::dispatch::{Reason, Silence};
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use toml::Spanned;

use super::alerts::{AlertsConfig, check_name};
use super::environment::Environment;
use super::error::ConfigError;
use super::located::Located;
use super::notation::{self, Wrong};
use super::rules::check_receivers;
use super::settings::Setting;
use super::settings::duration;
use super::silences::silence_matchers;
use super::source::{Source, suggest};
use super::values::HumanDuration;
use crate::time::nanoseconds;
use crate::time::parse_rfc3339;

/// Where the clock of a test begins by default.
const START: &str = "2026-01-01T00:00:00Z";
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// A checked file. All times in it are nanoseconds since the epoch.
#[derive(Debug, Clone)]
pub struct RuleTests {
    pub alerts: AlertsConfig,
    /// The directory of the rollups.
    pub sql: PathBuf,
    pub tests: Vec<RuleTest>,
}

#[derive(Debug, Clone)]
pub struct RuleTest {
    pub name: String,
    pub start: i64,
    /// Of the last value of any series, those left out counted.
    pub last: i64,
    pub points: Vec<TestPoint>,
    /// Values that are left out, as wall time and event time: event time goes on all the same.
    pub gaps: Vec<(i64, i64)>,
    /// Silences and acknowledgements with their times, in the order of the file.
    pub acts: Vec<(i64, Act)>,
    pub expected: Vec<ExpectedAlerts>,
    pub notified: Vec<ExpectedNotification>,
    /// Receivers that must be notified nothing.
    pub quiet: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct TestPoint {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// Event time.
    pub time: i64,
    pub value: f64,
    /// Wall time at which it is there.
    pub arrives: i64,
}

#[derive(Debug, Clone)]
pub enum Act {
    Silence(Silence),
    Acknowledge { alert: NamedAlert, by: String },
}

/// An alert as a test names it. Labels that the rule itself adds may be left out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedAlert {
    pub rule: String,
    pub labels: BTreeMap<String, String>,
}

/// All alerts there are at a moment.
#[derive(Debug, Clone)]
pub struct ExpectedAlerts {
    pub at: i64,
    pub firing: Vec<NamedAlert>,
    pub pending: Vec<NamedAlert>,
}

/// What is left out may be anything.
#[derive(Debug, Clone)]
pub struct ExpectedNotification {
    pub receiver: String,
    pub at: Option<i64>,
    pub status: Option<Status>,
    pub reason: Option<Reason>,
    pub alerts: Option<Vec<NamedAlert>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTests {
    rules: Setting<PathBuf>,
    sql: Setting<PathBuf>,
    #[serde(default)]
    test: Vec<RawTest>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTest {
    name: Spanned<String>,
    start: Setting<String>,
    interval: Spanned<HumanDuration>,
    #[serde(default)]
    series: Vec<RawSeries>,
    #[serde(default)]
    silence: Vec<RawSilence>,
    #[serde(default)]
    ack: Vec<RawAcknowledge>,
    #[serde(default)]
    expect: Vec<RawExpect>,
    #[serde(default)]
    notification: Vec<RawNotification>,
    #[serde(default)]
    quiet: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSeries {
    name: Spanned<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    values: Spanned<String>,
    delay: Setting<HumanDuration>,
    #[serde(default)]
    late: OneOrMore<RawLate>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLate {
    at: Spanned<u64>,
    by: Spanned<HumanDuration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSilence {
    at: Setting<HumanDuration>,
    #[serde(rename = "for")]
    lasts: Spanned<HumanDuration>,
    matchers: Spanned<Vec<Spanned<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAcknowledge {
    at: Spanned<HumanDuration>,
    rule: Spanned<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    by: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExpect {
    at: Spanned<HumanDuration>,
    #[serde(default)]
    firing: Vec<RawAlert>,
    #[serde(default)]
    pending: Vec<RawAlert>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAlert {
    rule: Spanned<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNotification {
    receiver: Spanned<String>,
    at: Setting<HumanDuration>,
    status: Setting<String>,
    reason: Setting<String>,
    alerts: Option<Vec<Spanned<String>>>,
}

impl RuleTests {
    /// Reads and checks the file at `path`, and the rules that it names. `rules` and `sql` are for
    /// files that name none.
    ///
    /// # Errors
    /// The first thing that is wrong in either file, with its place and what to write instead.
    pub fn load(
        path: &Path,
        environment: &Environment,
        rules: Option<&Path>,
        sql: &Path,
    ) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::file(path, format!("cannot read the tests: {error}")))?;
        Self::parse(text, path, environment, rules, sql)
    }

    pub(super) fn parse(
        text: String,
        path: &Path,
        environment: &Environment,
        rules: Option<&Path>,
        sql: &Path,
    ) -> Result<Self, ConfigError> {
        let source = Source::new(path, text, environment);
        let raw: RawTests = source.read()?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let beside = |named: Setting<PathBuf>| named.map(|named| folder.join(named.into_inner()));
        let Some(rules) = beside(raw.rules).or(rules.map(Path::to_owned)) else {
            return Err(ConfigError::file(path, "there are no rules to test").remedy(
                "write rules = \"…\", relative to this file, or name them in [alerts] of the configuration",
            ));
        };
        let alerts = AlertsConfig::load(&rules, environment)?;
        if raw.test.is_empty() {
            return Err(ConfigError::file(path, "there is no test in it").remedy("write a [[test]]"));
        }
        let checks = Checks {
            source: &source,
            rules: alerts.rules.iter().map(|rule| rule.spec.name.as_str()).collect(),
            receivers: alerts.receivers.iter().map(|receiver| receiver.name.clone()).collect(),
        };
        let (mut tests, mut names) = (Vec::new(), Vec::new());
        for test in raw.test {
            check_name(&source, "test", &test.name, &names)?;
            names.push(test.name.get_ref().clone());
            tests.push(checks.test(test)?);
        }
        Ok(Self { sql: beside(raw.sql).unwrap_or_else(|| sql.to_owned()), alerts, tests })
    }
}

/// What the values of a file are checked against.
struct Checks<'a> {
    source: &'a Source<'a>,
    rules: Vec<&'a str>,
    receivers: Vec<String>,
}

impl Checks<'_> {
    fn test(&self, raw: RawTest) -> Result<RuleTest, ConfigError> {
        let start = self.start(raw.start)?;
        let least = Duration::from_millis(1);
        let interval =
            nanoseconds(duration(self.source, "interval", Some(raw.interval), least, least..=LONGEST)?);
        if raw.expect.is_empty() && raw.notification.is_empty() && raw.quiet.is_empty() {
            let problem = format!("test `{}` expects nothing, so it cannot fail", raw.name.get_ref());
            let error = self.source.error(&raw.name.span(), problem);
            return Err(error.remedy("add [[test.expect]], [[test.notification]] or quiet = [\"…\"]"));
        }
        let (mut points, mut gaps, mut last) = (Vec::new(), Vec::new(), start);
        for series in raw.series {
            last = last.max(self.series(series, start, interval, &mut points, &mut gaps)?);
        }
        let mut acts = Vec::new();
        for (number, silence) in raw.silence.into_iter().enumerate() {
            let at = self.offset("at", silence.at, start)?.unwrap_or(start);
            let lasts =
                nanoseconds(duration(self.source, "for", Some(silence.lasts), least, least..=LONGEST)?);
            let silence = Silence {
                id: format!("silence-{}", number + 1),
                matchers: silence_matchers(self.source, silence.matchers)?,
                starts_at: at,
                ends_at: at.saturating_add(lasts),
                created_by: "test".to_owned(),
                comment: String::new(),
                created_at: at,
            };
            acts.push((at, Act::Silence(silence)));
        }
        for acknowledge in raw.ack {
            let at = self.at(acknowledge.at, start)?;
            let alert = self.alert(RawAlert { rule: acknowledge.rule, labels: acknowledge.labels })?;
            let by = acknowledge.by.unwrap_or_else(|| "test".to_owned());
            acts.push((at, Act::Acknowledge { alert, by }));
        }
        acts.sort_by_key(|(at, _)| *at);
        let mut expected = Vec::new();
        for expect in raw.expect {
            let alerts = |given: Vec<RawAlert>| {
                given.into_iter().map(|alert| self.alert(alert)).collect::<Result<Vec<_>, _>>()
            };
            expected.push(ExpectedAlerts {
                at: self.at(expect.at, start)?,
                firing: alerts(expect.firing)?,
                pending: alerts(expect.pending)?,
            });
        }
        expected.sort_by_key(|expect| expect.at);
        let notifications = raw.notification.into_iter();
        Ok(RuleTest {
            name: raw.name.into_inner(),
            start,
            last,
            points,
            gaps,
            acts,
            expected,
            notified: notifications
                .map(|notified| self.notification(notified, start))
                .collect::<Result<_, _>>()?,
            quiet: check_receivers(self.source, raw.quiet, &self.receivers)?,
        })
    }

    fn start(&self, given: Setting<String>) -> Result<i64, ConfigError> {
        let text = given.as_ref().map_or(START, |given| given.get_ref());
        match (parse_rfc3339(text), given) {
            (Some(time), _) => Ok(time.0),
            (None, given) => {
                let error = self.source.error(&given.map_or(0..0, |given| given.span()), "not a time");
                Err(error.remedy(format!("write \"{START}\"")))
            }
        }
    }

    /// Adds the series' points and gaps, and gives the time of its last value, also if that is left
    /// out.
    fn series(
        &self,
        raw: RawSeries,
        start: i64,
        interval: i64,
        points: &mut Vec<TestPoint>,
        gaps: &mut Vec<(i64, i64)>,
    ) -> Result<i64, ConfigError> {
        if raw.name.get_ref().is_empty() {
            let error = self.source.error(&raw.name.span(), "the series has an empty name");
            return Err(error.remedy("name its metric"));
        }
        let delay = self.offset("delay", raw.delay, 0)?.unwrap_or(0);
        let values = self.noted(&raw.values, notation::values)?;
        let mut late = BTreeMap::new();
        for RawLate { at, by } in raw.late.0 {
            let position = usize::try_from(*at.get_ref()).unwrap_or(usize::MAX);
            if values.get(position).copied().flatten().is_none() {
                let problem = format!("the series has no value at {position}");
                let error = self.source.error(&at.span(), problem);
                return Err(error.remedy("count its values, and those left out, from 0"));
            }
            late.insert(position, self.at(by, 0)?);
        }
        let time_of = |position: usize| {
            let passed = i64::try_from(position).unwrap_or(i64::MAX).saturating_mul(interval);
            start.saturating_add(passed)
        };
        for (position, value) in values.iter().enumerate() {
            let time = time_of(position);
            let Some(value) = *value else {
                gaps.push((time.saturating_add(delay), time));
                continue;
            };
            let delay = late.get(&position).copied().unwrap_or(delay);
            points.push(TestPoint {
                name: raw.name.get_ref().clone(),
                labels: raw.labels.clone(),
                time,
                value,
                arrives: time.saturating_add(delay),
            });
        }
        Ok(time_of(values.len().saturating_sub(1)))
    }

    fn notification(&self, raw: RawNotification, start: i64) -> Result<ExpectedNotification, ConfigError> {
        let receivers = check_receivers(self.source, vec![raw.receiver], &self.receivers)?;
        let statuses = [Status::Firing, Status::Resolved].map(|status| (status.as_str(), status));
        let reasons =
            [Reason::Changed, Reason::Repeated, Reason::Escalated].map(|reason| (reason.as_str(), reason));
        let alerts = raw.alerts.map(|alerts| {
            let alert = |text: Spanned<String>| {
                let (rule, labels) = self.noted(&text, notation::alert)?;
                self.alert(RawAlert { rule: Spanned::new(text.span(), rule), labels })
            };
            alerts.into_iter().map(alert).collect()
        });
        Ok(ExpectedNotification {
            receiver: receivers.concat(),
            at: self.offset("at", raw.at, start)?,
            status: self.one_of("status", raw.status, &statuses)?,
            reason: self.one_of("reason", raw.reason, &reasons)?,
            alerts: alerts.transpose()?,
        })
    }

    fn one_of<T: Copy>(
        &self,
        key: &str,
        given: Setting<String>,
        known: &[(&str, T)],
    ) -> Result<Option<T>, ConfigError> {
        let Some(given) = given else { return Ok(None) };
        if let Some((_, value)) = known.iter().find(|(name, _)| name == given.get_ref()) {
            return Ok(Some(*value));
        }
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        let error = self.source.error(&given.span(), format!("unknown {key} `{}`", given.get_ref()));
        Err(error.remedy(suggest(given.get_ref(), &names)))
    }

    fn alert(&self, raw: RawAlert) -> Result<NamedAlert, ConfigError> {
        if !self.rules.contains(&raw.rule.get_ref().as_str()) {
            let problem = format!("unknown rule `{}`", raw.rule.get_ref());
            let remedy = match self.rules.is_empty() {
                true => "the file of the rules has none".to_owned(),
                false => suggest(raw.rule.get_ref(), &self.rules),
            };
            return Err(self.source.error(&raw.rule.span(), problem).remedy(remedy));
        }
        Ok(NamedAlert { rule: raw.rule.into_inner(), labels: raw.labels })
    }

    fn at(&self, given: Spanned<HumanDuration>, start: i64) -> Result<i64, ConfigError> {
        Ok(self.offset("at", Some(given), start)?.unwrap_or(start))
    }

    fn offset(
        &self,
        key: &str,
        given: Setting<HumanDuration>,
        start: i64,
    ) -> Result<Option<i64>, ConfigError> {
        let Some(given) = given else { return Ok(None) };
        let offset = duration(self.source, key, Some(given), Duration::ZERO, Duration::ZERO..=LONGEST)?;
        Ok(Some(start.saturating_add(nanoseconds(offset))))
    }

    /// A text in a notation of its own, whose mistakes are pointed at.
    fn noted<T>(
        &self,
        text: &Spanned<String>,
        read: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Result<T, ConfigError> {
        read(text.get_ref()).map_err(|Wrong { column, problem, remedy }| {
            Located::new(self.source, text.clone()).error_in(1, column, problem, remedy)
        })
    }
}

/// A table, or a list of them.
struct OneOrMore<T>(Vec<T>);

impl<T> Default for OneOrMore<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMore<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TablesVisitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for TablesVisitor<T> {
            type Value = OneOrMore<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table like { at = 12, by = \"5m\" }, or a list of them")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OneOrMore<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|one| OneOrMore(vec![one]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<OneOrMore<T>, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(items)).map(OneOrMore)
            }
        }
        deserializer.deserialize_any(TablesVisitor(std::marker::PhantomData))
    }
}

#[cfg(test)]
#[path = "rule_tests_tests.rs"]
mod tests;
