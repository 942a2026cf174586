//! Histories of alerts, and what is notified of them.

mod property;
mod scenarios;
mod state;

use super::*;
use crate::{Cause, StageTimes, Status};

const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;

fn labels(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(' ').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A transition with id `incident/status@at`, at a second.
fn transition(rule: &str, tags: &str, incident: &str, status: Status, at: i64) -> Transition {
    let severity = if rule == "down" { "page" } else { "warn" };
    Transition {
        id: format!("{incident}/{status}@{at}"),
        rule: rule.into(),
        status,
        severity: severity.into(),
        labels: labels(tags),
        summary: String::new(),
        description: String::new(),
        values: BTreeMap::from([("avg".into(), 90.5)]),
        starts_at: at * SECOND,
        ends_at: (status == Status::Resolved).then_some(at * SECOND),
        window_start: (at - 60) * SECOND,
        window_end: at * SECOND,
        receivers: Vec::new(),
        incident: incident.into(),
        cause: Cause::Condition,
        provisional: false,
        revision: 0,
        rule_hash: String::new(),
        owner: None,
        runbook: None,
        times: StageTimes::default(),
        partition: None,
    }
}

fn matchers(text: &str) -> Vec<Matcher> {
    text.split_whitespace().map(|matcher| Matcher::parse(matcher).unwrap()).collect()
}

fn receivers(names: &[&str]) -> BTreeMap<String, ReceiverPolicy> {
    // One that does not take resolved alerts is named `pager…`.
    names
        .iter()
        .map(|name| ((*name).to_owned(), ReceiverPolicy { send_resolved: !name.starts_with("pager") }))
        .collect()
}

fn route(name: &str, matching: &str, to: &[&str], group_by: GroupBy) -> Route {
    Route {
        name: name.into(),
        matchers: matchers(matching),
        receivers: to.iter().map(|name| (*name).to_owned()).collect(),
        group_by,
        group_wait: 30 * SECOND,
        group_interval: 5 * MINUTE,
        repeat_interval: 60 * MINUTE,
        ..Route::default()
    }
}

fn silence(id: &str, matching: &str, from: i64, to: i64) -> Command {
    Command::Silence(Silence {
        id: id.into(),
        matchers: matchers(matching),
        starts_at: from * SECOND,
        ends_at: to * SECOND,
        created_by: "ann".into(),
        comment: String::new(),
        created_at: 0,
    })
}

fn acknowledge(incident: &str) -> Command {
    let (incident, by, comment) = (incident.into(), "ann".into(), String::new());
    Command::Acknowledge(Acknowledge { incident, by, comment, at: 0 })
}

/// A dispatch as `receiver reason incident:status[ids]`.
fn shown(dispatch: &Dispatch) -> String {
    let alerts = dispatch.alerts.iter().map(|alert| {
        let transition = &alert.transition;
        format!("{}:{}[{}]", transition.incident, transition.status, alert.transitions.join(" "))
    });
    let alerts = alerts.collect::<Vec<_>>().join(", ");
    format!("{} {} {alerts}", dispatch.receiver, dispatch.reason.as_str())
}

/// The parts of effects that are not already notified by the inputs, with the second at which they
/// come.
fn shown_effects(effects: &[Effect], now: i64) -> Vec<String> {
    let lines = effects.iter().filter_map(|effect| match effect {
        Effect::Send(dispatch) => Some(format!("send {}", shown(dispatch))),
        Effect::Replaced { by, .. } => Some(format!("replace {}", shown(by))),
        Effect::Log(entry) => {
            let is_noise = matches!(
                entry.what,
                What::Received
                    | What::Dispatched
                    | What::Escalated
                    | What::Delivered
                    | What::Attempted
                    | What::Replaced
            );
            let receiver = entry.receiver.as_deref().unwrap_or("-");
            let by = entry.by.as_deref().map(|by| format!(" by {by}")).unwrap_or_default();
            let subject = entry.transition.as_deref().unwrap_or("dispatch");
            (!is_noise).then(|| format!("{:?} {receiver} {subject}{by}", entry.what))
        }
    });
    lines.map(|line| format!("{now}: {line}")).collect()
}

/// A dispatcher in a simulated time, with receivers that take what they are sent unless they are
/// away.
struct Simulation {
    dispatcher: Dispatcher,
    now: i64,
    /// Dispatches under way at receivers that are away.
    stuck: Vec<String>,
    is_away: bool,
    lines: Vec<String>,
}

impl Simulation {
    fn new(policy: Policy) -> Self {
        Self {
            dispatcher: Dispatcher::new(policy),
            now: 0,
            stuck: Vec::new(),
            is_away: false,
            lines: Vec::new(),
        }
    }

    fn collect(&mut self) {
        loop {
            let effects = self.dispatcher.take_effects();
            if effects.is_empty() {
                return;
            }
            self.lines.extend(shown_effects(&effects, self.now));
            for effect in effects {
                match effect {
                    Effect::Send(dispatch) if self.is_away => self.stuck.push(dispatch.id),
                    Effect::Send(dispatch) => self.dispatcher.sent(&dispatch.id, self.now * SECOND),
                    Effect::Replaced { old, by } => {
                        self.stuck.retain(|id| *id != old);
                        self.stuck.push(by.id);
                    }
                    Effect::Log(_) => {}
                }
            }
        }
    }

    /// Lets time pass, with a stop at every timer.
    fn until(&mut self, second: i64) {
        while let Some(due) = self.dispatcher.next_due().filter(|due| *due <= second * SECOND) {
            self.now = self.now.max(due / SECOND);
            self.dispatcher.advance(due);
            self.collect();
        }
        self.now = second;
        self.dispatcher.advance(second * SECOND);
        self.collect();
    }

    fn fire(&mut self, rule: &str, tags: &str, incident: &str) {
        self.change(&transition(rule, tags, incident, Status::Firing, self.now));
    }

    fn resolve(&mut self, rule: &str, tags: &str, incident: &str) {
        self.change(&transition(rule, tags, incident, Status::Resolved, self.now));
    }

    fn change(&mut self, transition: &Transition) {
        self.dispatcher.transition(transition, self.now * SECOND);
        self.collect();
    }

    fn command(&mut self, key: &str, command: Option<&Command>) {
        self.dispatcher.command(key, command, self.now * SECOND);
        self.collect();
    }

    fn fail(&mut self, doubtful: bool) {
        for id in self.stuck.clone() {
            self.dispatcher.failed(&id, "refused", doubtful, self.now * SECOND);
            self.collect();
        }
    }

    /// The receiver is back.
    fn back(&mut self) {
        self.is_away = false;
        for id in std::mem::take(&mut self.stuck) {
            self.dispatcher.sent(&id, self.now * SECOND);
            self.collect();
        }
    }

    #[track_caller]
    fn check(&mut self, expected: &[&str]) {
        let lines = std::mem::take(&mut self.lines);
        assert_eq!(lines, expected, "at {}", self.now);
    }
}
