//! `tidemark alerts`: what fires, who was told, and why not; silences and acknowledgements.
//!
//! The topics have it all, so it works wherever Kafka is reached, whichever processes run.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use operators::dispatch::Command;
use serde::Serialize;

use super::commands::{self, Wanted};
use super::evidence::{Evidence, read_commands};
use super::{show, why};
use crate::clock::Clock;
use crate::config::{AlertsConfig, Config, Environment};
use crate::why::Time;

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
    /// Why was somebody told of an alert, or why not?
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
    Unsilence { id: String },
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
    Unack { incident: String },
    /// The ledger: what became of every transition and notification
    Log {
        #[arg(long)]
        rule: Option<String>,
        /// Entries from this time on, 2026-01-01T12:00:00Z
        #[arg(long, value_name = "TIME", value_parser = time)]
        since: Option<Time>,
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
    crate::why::parse_time(text).ok_or_else(|| "not a time such as 2026-01-01T12:00:00Z".to_owned())
}

/// Carries out a command and returns what is to be printed. Blocks.
///
/// # Errors
/// For people: what cannot be found or reached, and what to do.
pub fn run(config: &Path, environment: &Environment, command: AlertsCommand) -> Result<String> {
    let config = Config::load(config, environment)?;
    let now = Clock::system().now_ns();
    let gather = || -> Result<Evidence> {
        let alerts = match &config.alerts.rules {
            Some(path) => AlertsConfig::load_all(path, environment).0,
            None => AlertsConfig::default(),
        };
        Ok(Evidence::gather(&config, &alerts, now)?)
    };
    match command {
        AlertsCommand::List { rule, state, json } => {
            let evidence = gather()?;
            let listed = show::list(&evidence, rule.as_deref(), state.as_deref());
            if json { as_json(&listed) } else { Ok(show::list_text(&evidence, &listed)) }
        }
        AlertsCommand::Show { id, json } => {
            let evidence = gather()?;
            let incidents = show::show(&evidence, &id).map_err(anyhow::Error::msg)?;
            if json { as_json(&incidents) } else { Ok(show::show_text(&incidents)) }
        }
        AlertsCommand::Why { rule, labels, json } => {
            let labels: BTreeMap<String, String> = labels.into_iter().collect();
            let answer = why::why(&gather()?, &rule, &labels).map_err(anyhow::Error::msg)?;
            if json { as_json(&answer) } else { Ok(answer.to_string()) }
        }
        AlertsCommand::Silence(args) => {
            let SilenceArgs { matchers, length, starts, comment, by } = args;
            let wanted = Wanted { matchers, length, starts_at: starts.map(|time| time.0), by, comment };
            let silence = commands::silence(&wanted, now).map_err(anyhow::Error::msg)?;
            let (id, ends_at) = (silence.id.clone(), Time(silence.ends_at));
            commands::send(&config, &commands::silence_key(&id), Some(&Command::Silence(silence)))?;
            Ok(format!("silence {id} holds until {ends_at}"))
        }
        AlertsCommand::Silences { json } => {
            let commands = read_commands(&config)?;
            if json { as_json(&commands) } else { Ok(show::silences_text(&commands, now)) }
        }
        AlertsCommand::Unsilence { id } => {
            let key = commands::silence_key(&id);
            if !read_commands(&config)?.contains_key(&key) {
                bail!("there is no silence `{id}`: `tidemark alerts silences` shows them");
            }
            commands::send(&config, &key, None)?;
            Ok(format!("silence {id} is over"))
        }
        AlertsCommand::Ack { incident, comment, by } => {
            let incident = commands::incident(&gather()?, &incident).map_err(anyhow::Error::msg)?;
            let key = commands::acknowledge_key(&incident);
            let acknowledge = commands::acknowledge(incident.clone(), by, comment, now);
            commands::send(&config, &key, Some(&Command::Acknowledge(acknowledge)))?;
            Ok(format!("incident {incident} is acknowledged: it is neither repeated nor escalated"))
        }
        AlertsCommand::Unack { incident } => {
            let key = commands::acknowledge_key(&incident);
            if !read_commands(&config)?.contains_key(&key) {
                bail!("incident `{incident}` is not acknowledged");
            }
            commands::send(&config, &key, None)?;
            Ok(format!("incident {incident} is not acknowledged any more"))
        }
        AlertsCommand::Log { rule, since, json } => {
            let evidence = gather()?;
            let wanted = evidence.ledger.iter().filter(|entry| {
                rule.as_ref().is_none_or(|rule| entry.rule == *rule)
                    && since.is_none_or(|since| entry.at >= since.0)
            });
            let lines: Result<Vec<String>> = wanted
                .map(
                    |entry| {
                        if json { Ok(serde_json::to_string(entry)?) } else { Ok(show::entry_text(entry)) }
                    },
                )
                .collect();
            Ok(lines?.join("\n"))
        }
    }
}

fn as_json(value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(value)?)
}
