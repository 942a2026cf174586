//! `tidemark alerts`: what fires, who was notified, and why not; silences and acknowledgements.
//!
//! The topics have it all, so it works wherever Kafka is reached, whichever processes run.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use alerts::dispatch::Command;
use anyhow::Result;
use clap::{Args, Subcommand};
use serde::Serialize;
use sinks::plain_json;

use super::commands::{self, Wanted};
use super::evidence::{Evidence, Rules, read_commands};
use super::ledger::{self, Question};
use super::times::with_times;
use super::{show, why};
use crate::catalog::load_catalog;
use crate::clock::Clock;
use crate::config::{AlertsConfig, Config, Environment};
use crate::time::Time;

#[derive(Debug, Subcommand)]
pub enum AlertsCommand {
    /// Alerts that are pending or fire, and how each receiver stands
    List {
        #[arg(long)]
        rule: Option<String>,
        /// Only those in this state
        #[arg(long, value_parser = ["pending", "firing"])]
        state: Option<String>,
        #[arg(long)]
        json: bool,
    },
    /// Everything about an incident: transitions, receivers, attempts
    Show {
        /// Of an incident, a transition or a notification; the beginning is enough
        id: String,
        #[arg(long)]
        json: bool,
    },
    /// Why was somebody notified of an alert, or why not?
    Why {
        rule: String,
        /// Some labels of the alert, `host=a`
        #[arg(value_name = "LABEL=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
        #[arg(long)]
        json: bool,
    },
    /// Tell nobody of alerts that match, for a while
    Silence(SilenceArgs),
    /// Silences, active, to come and over
    Silences {
        #[arg(long)]
        json: bool,
    },
    /// End a silence
    Unsilence {
        /// The beginning is enough
        id: String,
    },
    /// Take an incident on: it is neither repeated nor escalated any more
    Ack {
        /// Of an alert that fires; the beginning is enough
        incident: String,
        #[arg(long, default_value = "")]
        comment: String,
        #[arg(long, env = "USER", default_value = "unknown")]
        by: String,
    },
    /// Take an acknowledgement back
    Unack {
        /// The beginning is enough
        incident: String,
    },
    /// The ledger: what became of every transition and notification
    Log {
        #[arg(long)]
        rule: Option<String>,
        /// Entries from this time on, 2026-01-01T12:00:00Z
        #[arg(long, value_name = "TIME", value_parser = time)]
        since: Option<Time>,
        /// Go on with what comes, until interrupted
        #[arg(long)]
        follow: bool,
        /// An object a line
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub struct SilenceArgs {
    /// All must hold: `host="a"`, `region=~"eu-.*"`, `alertname!="x"`
    #[arg(required = true)]
    matchers: Vec<String>,
    /// How long it lasts
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    length: Duration,
    /// When it begins [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    starts: Option<Time>,
    #[arg(long)]
    comment: String,
    #[arg(long, env = "USER", default_value = "unknown")]
    by: String,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.trim_matches('"').to_owned())),
        _ => Err("write a label and its value, like host=a".to_owned()),
    }
}

fn time(text: &str) -> Result<Time, String> {
    crate::time::parse_rfc3339(text).ok_or_else(|| "not a time such as 2026-01-01T12:00:00Z".to_owned())
}

/// Carries out a command, and hands over what is to be printed. Blocks; following the ledger has no
/// end.
///
/// # Errors
/// For people: what cannot be found or reached, and what to do. And those of `print`.
pub fn run(
    config: &Path,
    environment: &Environment,
    command: AlertsCommand,
    print: &dyn Fn(String) -> Result<()>,
) -> Result<()> {
    let config = Config::load(config, environment)?;
    let now = Clock::system().now_ns();
    let gather = |question: &Question| gather(&config, environment, question, now);
    match command {
        AlertsCommand::List { rule, state, json } => {
            let evidence = gather(&Question::Now)?;
            let listed = show::list(&evidence, rule.as_deref(), state.as_deref());
            print(if json { as_json(&listed)? } else { show::list_text(&evidence, &listed) })
        }
        AlertsCommand::Show { id, json } => {
            let evidence = gather(&Question::Id(id.clone()))?;
            let shown = show::show(&evidence, &id).map_err(anyhow::Error::msg)?;
            print(if json { as_json(&shown)? } else { show::show_text(&shown) })
        }
        AlertsCommand::Why { rule, labels, json } => {
            let labels: BTreeMap<String, String> = labels.into_iter().collect();
            let evidence = gather(&Question::Alerts { rule: rule.clone(), labels: labels.clone() })?;
            let answer = why::why(&evidence, &rule, &labels).map_err(anyhow::Error::msg)?;
            print(if json { as_json(&answer)? } else { answer.to_string() })
        }
        AlertsCommand::Silence(args) => {
            let SilenceArgs { matchers, length, starts, comment, by } = args;
            let wanted = Wanted { matchers, length, starts_at: starts.map(|time| time.0), by, comment };
            let silence = commands::silence(&wanted, now).map_err(anyhow::Error::msg)?;
            let (id, starts_at, ends_at) = (silence.id.clone(), silence.starts_at, Time(silence.ends_at));
            commands::check_number(&read_commands(&config)?).map_err(anyhow::Error::msg)?;
            commands::send(&config, &commands::silence_key(&id), Some(&Command::Silence(silence)))?;
            let from = if starts_at > now { format!("from {} ", Time(starts_at)) } else { String::new() };
            print(format!("silence {id} holds {from}until {ends_at}"))
        }
        AlertsCommand::Silences { json } => {
            let commands = read_commands(&config)?;
            let silences = show::silences(&commands, now);
            print(if json { as_json(&silences)? } else { show::silences_text(&silences) })
        }
        AlertsCommand::Unsilence { id } => {
            let id = commands::silence_id(&read_commands(&config)?, &id).map_err(anyhow::Error::msg)?;
            commands::send(&config, &commands::silence_key(&id), None)?;
            print(format!("silence {id} is over"))
        }
        AlertsCommand::Ack { incident, comment, by } => {
            commands::check_person(&by, &comment).map_err(anyhow::Error::msg)?;
            let incident =
                commands::incident(&gather(&Question::Now)?, &incident).map_err(anyhow::Error::msg)?;
            let key = commands::acknowledge_key(&incident);
            let acknowledge = commands::acknowledge(incident.clone(), by, comment, now);
            commands::send(&config, &key, Some(&Command::Acknowledge(acknowledge)))?;
            print(format!("incident {incident} is acknowledged: it is neither repeated nor escalated"))
        }
        AlertsCommand::Unack { incident } => {
            let commands = read_commands(&config)?;
            let incident = commands::acknowledged(&commands, &incident).map_err(anyhow::Error::msg)?;
            commands::send(&config, &commands::acknowledge_key(&incident), None)?;
            print(format!("incident {incident} is not acknowledged any more"))
        }
        AlertsCommand::Log { rule, since, follow, json } => {
            let mut outcome = Ok(());
            ledger::follow(&config, since.map(|since| since.0), follow, |entry| {
                if rule.as_ref().is_some_and(|rule| entry.rule != *rule) {
                    return ControlFlow::Continue(());
                }
                let line = if json { as_line(&entry) } else { Ok(show::entry_text(&entry)) };
                outcome = line.and_then(print);
                if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            outcome
        }
    }
}

fn gather(config: &Config, environment: &Environment, question: &Question, now: i64) -> Result<Evidence> {
    let (alerts, problems) = match &config.alerts.rules {
        Some(path) => AlertsConfig::load_all(path, environment),
        None => (AlertsConfig::default(), Vec::new()),
    };
    let mut problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let mut catalog = None;
    // Only why asks whether rules can be used.
    if matches!(question, Question::Alerts { .. }) {
        match load_catalog(&config.rollup.sql) {
            Ok(loaded) => catalog = Some(loaded),
            Err(error) => problems.push(error.to_string()),
        }
    }
    let rules = Rules::of(&alerts, catalog.as_ref(), problems);
    Ok(Evidence::gather(config, &alerts, rules, question, now)?)
}

fn as_json(value: &impl Serialize) -> Result<String> {
    Ok(plain_json(&serde_json::to_string_pretty(&with_times(serde_json::to_value(value)?))?).into_owned())
}

fn as_line(value: &impl Serialize) -> Result<String> {
    Ok(plain_json(&serde_json::to_string(&with_times(serde_json::to_value(value)?))?).into_owned())
}
