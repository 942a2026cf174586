//! Staged situations and the answers to them.

use std::time::Duration;

use operators::dispatch::{
    Acknowledge, Command, Dispatcher, Effect, GroupBy, Inhibition, Matcher, Policy, ReceiverPolicy, Route,
    Silence,
};
use operators::threshold::{Cause, StageTimes};

use super::*;
use crate::alerting::evidence::KnownRule;
use crate::alerting::progress::Progress;

const MINUTE: i64 = 60_000_000_000;

fn transition(rule: &str, host: &str, status: Status, minute: i64) -> Transition {
    Transition {
        id: format!("{rule}-{host}-{status}-{minute}"),
        rule: rule.to_owned(),
        status,
        severity: "warning".to_owned(),
        labels: [("host".to_owned(), host.to_owned())].into(),
        summary: String::new(),
        description: String::new(),
        values: [("avg".to_owned(), 95.5)].into(),
        starts_at: MINUTE,
        ends_at: (status == Status::Resolved).then_some(minute * MINUTE),
        window_start: (minute - 1) * MINUTE,
        window_end: minute * MINUTE,
        receivers: vec!["oncall".to_owned()],
        incident: format!("incident-{rule}-{host}"),
        cause: Cause::Condition,
        provisional: false,
        revision: 0,
        rule_hash: "hash".to_owned(),
        owner: None,
        runbook: None,
        times: StageTimes::default(),
    }
}

/// A system at work, whose topics are what it said.
struct Stage {
    evidence: Evidence,
}

impl Stage {
    fn new() -> Self {
        let matcher = |text: &str| vec![Matcher::parse(text).expect("a matcher")];
        let receiver = || ReceiverPolicy { send_resolved: true };
        let policy = Policy {
            routes: vec![Route {
                name: "late".to_owned(),
                matchers: matcher("alertname=\"grouped\""),
                receivers: vec!["team".to_owned()],
                group_by: GroupBy::All,
                group_wait: 10 * MINUTE,
                ..Route::default()
            }],
            inhibitions: vec![Inhibition {
                source: matcher("alertname=\"host_down\""),
                target: matcher("alertname=\"cpu_high\""),
                equal: vec!["host".to_owned()],
            }],
            receivers: [("oncall".to_owned(), receiver()), ("team".to_owned(), receiver())].into(),
            ..Policy::default()
        };
        let rule = |name: &str| KnownRule { name: name.to_owned(), hold_for: Duration::from_secs(300) };
        let evidence = Evidence {
            now: 10 * MINUTE,
            rules: ["cpu_high", "host_down", "grouped"].map(rule).to_vec(),
            behind_after: 5 * MINUTE,
            dispatcher: Dispatcher::new(policy),
            ..Evidence::default()
        };
        Self { evidence }
    }

    fn say(&mut self, transition: &Transition) -> Vec<String> {
        let now = transition.window_end;
        match transition.status {
            Status::Firing | Status::Pending => self.evidence.active.push(transition.clone()),
            _ => self.evidence.active.retain(|state| state.incident != transition.incident),
        }
        self.evidence.transitions.push(transition.clone());
        self.evidence.dispatcher.transition(transition, now);
        self.note()
    }

    fn command(&mut self, key: &str, command: Command) {
        self.evidence.dispatcher.command(key, Some(&command), MINUTE);
        self.evidence.commands.insert(key.to_owned(), command);
        self.note();
    }

    /// Keeps the ledger, and returns what is to be sent.
    fn note(&mut self) -> Vec<String> {
        let mut sent = Vec::new();
        for effect in self.evidence.dispatcher.take_effects() {
            match effect {
                Effect::Log(entry) => self.evidence.ledger.push(entry),
                Effect::Send(dispatch) | Effect::Replaced { by: dispatch, .. } => sent.push(dispatch.id),
            }
        }
        sent
    }

    fn ask(&self, rule: &str, labels: &[(&str, &str)]) -> String {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        match why(&self.evidence, rule, &labels) {
            Ok(answer) => answer.to_string(),
            Err(problem) => format!("error: {problem}"),
        }
    }
}

/// The first line is the answer.
fn check(stage: &Stage, rule: &str, expected: &str) {
    let text = stage.ask(rule, &[("host", "a")]);
    assert_eq!(text.lines().next().unwrap_or_default(), expected, "{text}");
}

#[test]
fn sent() {
    let mut stage = Stage::new();
    let sent = stage.say(&transition("cpu_high", "a", Status::Firing, 6));
    stage.evidence.dispatcher.sent(&sent[0], 7 * MINUTE);
    stage.note();
    let expected = "firing since 1970-01-01T00:01:00Z: `oncall` was told at 1970-01-01T00:07:00Z";
    check(&stage, "cpu_high", expected);
    // With everything that it rests on.
    let text = stage.ask("cpu_high", &[]);
    assert_eq!(
        text,
        format!(
            "{expected}\n  \
             {{host=\"a\"}} firing by the window from 1970-01-01T00:05:00Z to 1970-01-01T00:06:00Z with avg=95.5 (condition)\n  \
             1970-01-01T00:06:00Z received\n  \
             1970-01-01T00:06:00Z dispatched oncall\n  \
             1970-01-01T00:07:00Z delivered oncall"
        )
    );
}

#[test]
fn silenced() {
    let mut stage = Stage::new();
    let silence = Silence {
        id: "s1".to_owned(),
        matchers: vec![Matcher::parse("host=\"a\"").expect("a matcher")],
        starts_at: 0,
        ends_at: 60 * MINUTE,
        created_by: "ada".to_owned(),
        comment: "new disks".to_owned(),
        created_at: 0,
    };
    stage.command("silence/s1", Command::Silence(silence));
    assert!(stage.say(&transition("cpu_high", "a", Status::Firing, 6)).is_empty());
    let expected = "firing since 1970-01-01T00:01:00Z: `oncall` is not told, for silence s1 of ada, new disks until \
                    1970-01-01T01:00:00Z";
    check(&stage, "cpu_high", expected);
}

#[test]
fn inhibited() {
    let mut stage = Stage::new();
    stage.say(&transition("host_down", "a", Status::Firing, 5));
    assert!(stage.say(&transition("cpu_high", "a", Status::Firing, 6)).is_empty());
    let text = stage.ask("cpu_high", &[("host", "a")]);
    let expected = "firing since 1970-01-01T00:01:00Z: `oncall` is not told while host_down";
    assert!(text.starts_with(expected) && text.contains(" fires"), "{text}");
}

#[test]
fn is_pending() {
    let mut stage = Stage::new();
    stage.say(&transition("cpu_high", "a", Status::Pending, 1));
    let expected = "pending since 1970-01-01T00:01:00Z: it fires when its condition still holds in the window that ends at \
                    1970-01-01T00:06:00Z";
    check(&stage, "cpu_high", expected);
}

#[test]
fn incomplete_data() {
    let mut stage = Stage::new();
    stage.say(&transition("cpu_high", "a", Status::Pending, 1));
    let progress = |moved_at: i64, held_by: Option<&str>| Progress {
        watermark: Time(MINUTE),
        moved_at: Time(moved_at * MINUTE),
        held_by: held_by.map(str::to_owned),
    };
    stage.evidence.progress.insert(0, progress(10, None));
    stage.evidence.progress.insert(1, progress(2, Some("points-3: no ingest process reports it any more")));
    let expected = "data incomplete: event time of partition 1 stands at 1970-01-01T00:01:00Z since 1970-01-01T00:02:00Z, held \
                    by points-3: no ingest process reports it any more; nothing later is judged";
    check(&stage, "cpu_high", expected);
    let second = stage.ask("cpu_high", &[]).lines().nth(1).map(str::to_owned);
    assert!(second.is_some_and(|line| line.starts_with("  as of then: pending since")));
}

#[test]
fn a_receiver_fails() {
    let mut stage = Stage::new();
    let sent = stage.say(&transition("cpu_high", "a", Status::Firing, 6));
    for minute in [7, 8] {
        stage.evidence.dispatcher.failed(&sent[0], "hook is unavailable: status 503", false, minute * MINUTE);
    }
    stage.note();
    let expected = "firing since 1970-01-01T00:01:00Z: `oncall` could not be told yet, 2 attempts failed, the last with: \
                    hook is unavailable: status 503";
    check(&stage, "cpu_high", expected);
}

#[test]
fn other_situations() {
    let mut stage = Stage::new();
    assert_eq!(stage.ask("cpu_hihg", &[]), "error: there is no rule `cpu_hihg`: did you mean `cpu_high`?");
    check(
        &stage,
        "cpu_high",
        "not firing, and it has not been: `cpu_high` was true in no window that was judged",
    );
    // In two groups.
    let sent = stage.say(&transition("cpu_high", "a", Status::Firing, 6));
    stage.evidence.dispatcher.sent(&sent[0], 7 * MINUTE);
    stage.say(&transition("cpu_high", "b", Status::Firing, 6));
    let several =
        "error: several alerts have these labels, add some of:\n  {host=\"a\"} firing\n  {host=\"b\"} firing";
    assert_eq!(stage.ask("cpu_high", &[]), several);
    // Taken on by somebody.
    let acknowledge = Acknowledge {
        incident: "incident-cpu_high-a".to_owned(),
        by: "ada".to_owned(),
        comment: String::new(),
        at: 8 * MINUTE,
    };
    stage.command("ack/incident-cpu_high-a", Command::Acknowledge(acknowledge));
    check(
        &stage,
        "cpu_high",
        "firing since 1970-01-01T00:01:00Z: `oncall` was told, and ada has acknowledged it",
    );
    // Over.
    stage.say(&transition("cpu_high", "a", Status::Resolved, 9));
    let expected =
        "not firing: it was from 1970-01-01T00:01:00Z, and resolved at 1970-01-01T00:09:00Z (condition)";
    check(&stage, "cpu_high", expected);
    // Nobody.
    let nobody = Transition { receivers: Vec::new(), ..transition("host_down", "a", Status::Firing, 6) };
    stage.say(&nobody);
    let expected = "firing since 1970-01-01T00:01:00Z: nobody is to be told: no receiver in the rule, and no route that matches";
    check(&stage, "host_down", expected);
    // With its group.
    let grouped = Transition { receivers: Vec::new(), ..transition("grouped", "a", Status::Firing, 6) };
    stage.say(&grouped);
    check(
        &stage,
        "grouped",
        "firing since 1970-01-01T00:01:00Z: `team` is told at 1970-01-01T00:16:00Z, with its group",
    );
}
