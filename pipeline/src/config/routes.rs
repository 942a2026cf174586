//! `[[route]]`, `[[inhibit]]` and `[[mute]]` of `config/alerts.toml`: who is notified of which
//! alerts, and when.

use std::time::Duration;

use alerts::dispatch::{Escalation, GroupBy, Inhibition, Matcher, Mute, Range, Route, TimeRange, Window};
use serde::Deserialize;
use toml::Spanned;

use super::error::ConfigError;
use super::rules::check_receivers;
use super::settings::Setting;
use super::settings::duration;
use super::source::{Source, suggest};
use super::values::{HumanDuration, TextList};
use crate::time::nanoseconds;

/// How long the first alert of a group waits for others, where a route groups.
const GROUP_WAIT: Duration = Duration::from_secs(10);
const GROUP_INTERVAL: Duration = Duration::from_secs(300);
/// How often what still fires is notified again.
pub(super) const REPEAT: Duration = Duration::from_secs(4 * 3_600);
pub(super) const LONGEST: Duration = Duration::from_secs(30 * 86_400);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRoute {
    pub(super) name: Setting<String>,
    #[serde(default)]
    matchers: Vec<Spanned<String>>,
    #[serde(default)]
    receivers: Vec<Spanned<String>>,
    group_by: Option<TextList>,
    group_wait: Setting<HumanDuration>,
    group_interval: Setting<HumanDuration>,
    repeat_interval: Setting<HumanDuration>,
    #[serde(default)]
    mute: Vec<Spanned<String>>,
    #[serde(default)]
    escalate: Vec<RawEscalation>,
    #[serde(default, rename = "continue")]
    goes_on: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEscalation {
    after: Spanned<HumanDuration>,
    receivers: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawInhibition {
    source: Vec<Spanned<String>>,
    target: Vec<Spanned<String>>,
    #[serde(default)]
    equal: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMute {
    pub(super) name: Spanned<String>,
    time_zone: Setting<String>,
    windows: Spanned<Vec<RawWindow>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWindow {
    #[serde(default)]
    times: Vec<Spanned<String>>,
    #[serde(default)]
    weekdays: Vec<Spanned<String>>,
    #[serde(default)]
    days_of_month: Vec<Spanned<String>>,
    #[serde(default)]
    months: Vec<Spanned<String>>,
}

/// What a route is called that has no name: what it matches.
pub(super) fn route_name(raw: &RawRoute) -> String {
    match (&raw.name, raw.matchers.as_slice()) {
        (Some(name), _) => name.get_ref().clone(),
        (None, []) => "all".to_owned(),
        (None, matchers) => {
            matchers.iter().map(|matcher| matcher.get_ref().as_str()).collect::<Vec<_>>().join(",")
        }
    }
}

/// Checks one `[[route]]`; `receivers` and `mutes` are the names there are.
pub(super) fn check_route(
    source: &Source<'_>,
    raw: Spanned<RawRoute>,
    receivers: &[String],
    mutes: &[String],
) -> Result<Route, ConfigError> {
    let place = raw.span();
    let raw = raw.into_inner();
    let name = route_name(&raw);
    let period = |key: &'static str, given: Setting<HumanDuration>, default: Duration| {
        duration(source, key, given, default, Duration::ZERO..=LONGEST).map(nanoseconds)
    };
    let group_by = match raw.group_by {
        None => GroupBy::None,
        Some(TextList(labels)) if labels.is_empty() => GroupBy::All,
        Some(TextList(labels)) => GroupBy::Labels(labels),
    };
    let mut escalations = Vec::new();
    for step in raw.escalate {
        let least = Duration::from_secs(1);
        let after = duration(source, "after", Some(step.after), least, least..=LONGEST)?;
        let receivers = check_receivers(source, step.receivers, receivers)?;
        escalations.push(Escalation { after: nanoseconds(after), receivers });
    }
    let mut muted = Vec::new();
    for name in raw.mute {
        if !mutes.contains(name.get_ref()) {
            let names: Vec<&str> = mutes.iter().map(String::as_str).collect();
            let error = source.error(&name.span(), format!("unknown mute `{}`", name.get_ref()));
            return Err(match names.is_empty() {
                true => error.remedy("add a [[mute]] with this name"),
                false => error.remedy(suggest(name.get_ref(), &names)),
            });
        }
        muted.push(name.into_inner());
    }
    let route = Route {
        matchers: matchers(source, raw.matchers)?,
        receivers: check_receivers(source, raw.receivers, receivers)?,
        group_by,
        group_wait: period("group_wait", raw.group_wait, GROUP_WAIT)?,
        group_interval: period("group_interval", raw.group_interval, GROUP_INTERVAL)?,
        repeat_interval: period("repeat_interval", raw.repeat_interval, REPEAT)?,
        mutes: muted,
        escalations,
        goes_on: raw.goes_on,
        name,
    };
    if route.receivers.is_empty() && !route.escalations.is_empty() {
        let error = source.error(&place, format!("route `{}` escalates what it tells nobody", route.name));
        return Err(error.remedy("add receivers = [\"…\"]"));
    }
    Ok(route)
}

pub(super) fn check_inhibition(source: &Source<'_>, raw: RawInhibition) -> Result<Inhibition, ConfigError> {
    Ok(Inhibition {
        source: matchers(source, raw.source)?,
        target: matchers(source, raw.target)?,
        equal: raw.equal,
    })
}

pub(super) fn check_mute(source: &Source<'_>, raw: RawMute) -> Result<Mute, ConfigError> {
    let zone = match raw.time_zone {
        None => chrono_tz::UTC,
        Some(zone) => zone.get_ref().parse().map_err(|_| {
            let error = source.error(&zone.span(), format!("unknown time zone `{}`", zone.get_ref()));
            error.remedy("write an IANA name such as \"Europe/Berlin\"")
        })?,
    };
    if raw.windows.get_ref().is_empty() {
        let error =
            source.error(&raw.windows.span(), format!("mute `{}` has no windows", raw.name.get_ref()));
        return Err(error.remedy("write windows = [{ times = [\"22:00-06:00\"] }]"));
    }
    let mut windows = Vec::new();
    for window in raw.windows.into_inner() {
        windows.push(Window {
            times: parsed(source, window.times, TimeRange::parse)?,
            weekdays: parsed(source, window.weekdays, Range::parse_weekdays)?,
            days_of_month: parsed(source, window.days_of_month, Range::parse_days_of_month)?,
            months: parsed(source, window.months, Range::parse_months)?,
        });
    }
    Ok(Mute { name: raw.name.into_inner(), zone, windows })
}

pub(super) fn matchers(
    source: &Source<'_>,
    texts: Vec<Spanned<String>>,
) -> Result<Vec<Matcher>, ConfigError> {
    parsed(source, texts, Matcher::parse)
}

/// Each text as `parse` reads it; what is wrong comes as one text, the remedy after a semicolon.
fn parsed<T>(
    source: &Source<'_>,
    texts: Vec<Spanned<String>>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, ConfigError> {
    let one = |text: Spanned<String>| {
        parse(text.get_ref()).map_err(|wrong| match wrong.split_once("; ") {
            Some((problem, remedy)) => source.error(&text.span(), problem).remedy(remedy),
            None => source.error(&text.span(), wrong),
        })
    };
    texts.into_iter().map(one).collect()
}
