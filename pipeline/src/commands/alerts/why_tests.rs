//! Staged situations and the answers to them.

use std::time::Duration;

use alerts::dispatch::{
    Acknowledge, Command, Dispatcher, Effect, GroupBy, Inhibition, Matcher, Mute, Policy, ReceiverPolicy,
    Route, Silence, Window,
};
use alerts::{Cause, StageTimes};

use super::*;
use crate::alerting::progress::Progress;
use crate::commands::alerts::evidence::{KnownRule, Rules};

const MINUTE: i64 = 60_000_000_000;

pub(in crate::commands::alerts) fn transition(
    rule: &str,
    host: &str,
    status: Status,
    minute: i64,
) -> Transition {
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
        partition: None,
    }
}

/// A system at work, and the topics that it filled.
pub(in crate::commands::alerts) struct Stage {
    pub(in crate::commands::alerts) evidence: Evidence,
}

impl Stage {
    pub(in crate::commands::alerts) fn new() -> Self {
        let matcher = |text: &str| vec![Matcher::parse(text).expect("a matcher")];
        let receiver = || ReceiverPolicy { send_resolved: true };
        let policy = Policy {
            routes: vec![
                Route {
                    name: "late".to_owned(),
                    matchers: matcher("alertname=\"grouped\""),
                    receivers: vec!["team".to_owned()],
                    group_by: GroupBy::All,
                    group_wait: 10 * MINUTE,
                    ..Route::default()
                },
                Route {
                    name: "never".to_owned(),
                    matchers: matcher("alertname=\"muted\""),
                    receivers: vec!["team".to_owned()],
                    mutes: vec!["always".to_owned()],
                    ..Route::default()
                },
            ],
            inhibitions: vec![Inhibition {
                source: matcher("alertname=\"host_down\""),
                target: matcher("alertname=\"cpu_high\""),
                equal: vec!["host".to_owned()],
            }],
            mutes: vec![Mute {
                name: "always".to_owned(),
                zone: chrono_tz::UTC,
                windows: vec![Window::default()],
            }],
            receivers: [("oncall".to_owned(), receiver()), ("team".to_owned(), receiver())].into(),
            ..Policy::default()
        };
        let rule = |name: &str| KnownRule {
            name: name.to_owned(),
            hold_for: Duration::from_secs(300),
            mistake: None,
        };
        let evidence = Evidence {
            now: 10 * MINUTE,
            rules: Rules {
                rules: ["cpu_high", "host_down", "grouped", "muted"].map(rule).to_vec(),
                problems: Vec::new(),
            },
            behind_after: 5 * MINUTE,
            dispatcher: Dispatcher::new(policy),
            ..Evidence::default()
        };
        Self { evidence }
    }

    pub(in crate::commands::alerts) fn emit(&mut self, transition: &Transition) -> Vec<String> {
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
    pub(in crate::commands::alerts) fn note(&mut self) -> Vec<String> {
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
    let sent = stage.emit(&transition("cpu_high", "a", Status::Firing, 6));
    stage.evidence.dispatcher.sent(&sent[0], 7 * MINUTE);
    stage.note();
    let expected = "firing since 1970-01-01T00:01:00Z: `oncall` was notified at 1970-01-01T00:07:00Z";
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

/// Of all alerts of host a, for an hour.
fn silence() -> Command {
    Command::Silence(Silence {
        id: "s1".to_owned(),
        matchers: vec![Matcher::parse("host=\"a\"").expect("a matcher")],
        starts_at: 0,
        ends_at: 60 * MINUTE,
        created_by: "ada".to_owned(),
        comment: "new disks".to_owned(),
        created_at: 0,
    })
}

#[test]
fn silenced() {
    let mut stage = Stage::new();
    stage.command("silence/s1", silence());
    assert!(stage.emit(&transition("cpu_high", "a", Status::Firing, 6)).is_empty());
    let expected = "firing since 1970-01-01T00:01:00Z: `oncall` is not notified, for silence s1 of ada, new disks until \
                    1970-01-01T01:00:00Z";
    check(&stage, "cpu_high", expected);
}

#[test]
fn silenced_after_it_was_told_and_over_before_it_was() {
    let mut stage = Stage::new();
    let sent = stage.emit(&transition("cpu_high", "a", Status::Firing, 6));
    stage.evidence.dispatcher.sent(&sent[0], 7 * MINUTE);
    stage.command("silence/s1", silence());
    let expected = "firing since 1970-01-01T00:01:00Z: `oncall` was notified at 1970-01-01T00:07:00Z, and is not notified again, for \
                    silence s1 of ada until 1970-01-01T01:00:00Z";
    check(&stage, "cpu_high", expected);

    let mut stage = Stage::new();
    stage.command("silence/s1", silence());
    stage.emit(&transition("cpu_high", "a", Status::Firing, 6));
    stage.emit(&transition("cpu_high", "a", Status::Resolved, 9));
    let expected = "not firing: it was from 1970-01-01T00:01:00Z, and resolved at 1970-01-01T00:09:00Z (condition): `oncall` \
                    was not notified: it was over while it was silenced (s1)";
    check(&stage, "cpu_high", expected);
}

#[test]
fn muted() {
    let mut stage = Stage::new();
    stage.emit(&Transition { receivers: Vec::new(), ..transition("muted", "a", Status::Firing, 6) });
    let text = stage.ask("muted", &[("host", "a")]);
    let expected = "firing since 1970-01-01T00:01:00Z: `team` is not notified, for the mute `always` until ";
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn given_up() {
    for (fallback, instead) in [(None, ""), (Some("mail"), "; `mail` was notified instead")] {
        let mut stage = Stage::new();
        let sent = stage.emit(&transition("cpu_high", "a", Status::Firing, 6));
        stage.evidence.dispatcher.gave_up(&sent[0], "hook refused: gone status=`410`", fallback, 7 * MINUTE);
        stage.note();
        let of = |of: &str| {
            format!(
                "`oncall` could not be notified{of}, it was given up at 1970-01-01T00:07:00Z: hook refused: gone \
                 status=`410`{instead}"
            )
        };
        check(&stage, "cpu_high", &format!("firing since 1970-01-01T00:01:00Z: {}", of("")));
        stage.emit(&transition("cpu_high", "a", Status::Resolved, 9));
        let text = stage.ask("cpu_high", &[]);
        assert!(text.contains(&format!("(condition): {}; `oncall` is not notified", of(" of it"))), "{text}");
    }
}

#[test]
fn a_receiver_that_does_not_exist() {
    let mut stage = Stage::new();
    let fired = transition("cpu_high", "a", Status::Firing, 6);
    stage.emit(&Transition { receivers: vec!["onkall".to_owned()], ..fired.clone() });
    let expected =
        "firing since 1970-01-01T00:01:00Z: `onkall` is not notified: there is no receiver `onkall`";
    check(&stage, "cpu_high", expected);
    let mut stage = Stage::new();
    let sent = stage.emit(&Transition { receivers: vec!["onkall".to_owned(), "oncall".to_owned()], ..fired });
    stage.evidence.dispatcher.sent(&sent[0], 7 * MINUTE);
    stage.note();
    let expected = "firing since 1970-01-01T00:01:00Z: `oncall` was notified at 1970-01-01T00:07:00Z; `onkall` is not notified: there \
                    is no receiver `onkall`";
    check(&stage, "cpu_high", expected);
}

#[test]
fn notify_does_not_run() {
    let mut stage = Stage::new();
    // It took in that the alert is pending, and ended.
    stage.emit(&transition("cpu_high", "a", Status::Pending, 1));
    stage.evidence.active = vec![transition("cpu_high", "a", Status::Firing, 6)];
    let expected = "firing since 1970-01-01T00:01:00Z: `notify` has not taken it in yet: does it run?";
    check(&stage, "cpu_high", expected);
    stage.evidence.active.clear();
    stage.evidence.transitions.push(transition("cpu_high", "a", Status::Resolved, 9));
    let expected = "not firing: it was from 1970-01-01T00:01:00Z, and resolved at 1970-01-01T00:09:00Z (condition): `notify` \
                    has not taken in its end yet: does it run?";
    check(&stage, "cpu_high", expected);
}

#[test]
fn rules_that_are_left_out_or_gone() {
    let mut stage = Stage::new();
    stage.emit(&transition("cpu_high", "a", Status::Pending, 1));
    stage.evidence.rules.rules[0].mistake = Some("alerts.toml:4:13: unknown column `agv`".to_owned());
    let expected = "`cpu_high` is left out of use, and is not judged: alerts.toml:4:13: unknown column `agv`\n  as of then: pending since";
    assert!(stage.ask("cpu_high", &[]).starts_with(expected), "{}", stage.ask("cpu_high", &[]));

    stage.evidence.rules.rules.remove(0);
    let expected =
        "there is no rule `cpu_high` any more\n  last transition: pending since 1970-01-01T00:01:00Z\n";
    assert!(stage.ask("cpu_high", &[]).starts_with(expected), "{}", stage.ask("cpu_high", &[]));

    stage.evidence.rules.problems.push("alerts.toml:9:1: unknown key `fro`".to_owned());
    let expected = "error: there is no rule `disk_full` that can be used: ";
    let text = stage.ask("disk_full", &[]);
    assert!(
        text.starts_with(expected) && text.ends_with("the first: alerts.toml:9:1: unknown key `fro`"),
        "{text}"
    );
}

#[test]
fn an_alert_about_missing_data_does_not_hide_the_plain_one() {
    let mut stage = Stage::new();
    let mut missing = transition("cpu_high", "a", Status::Firing, 6);
    missing.labels.insert("no_data".to_owned(), "true".to_owned());
    missing.incident = "missing".to_owned();
    stage.emit(&missing);
    stage.emit(&transition("cpu_high", "a", Status::Pending, 7));
    assert!(stage.ask("cpu_high", &[("host", "a")]).starts_with("pending since"));
    assert!(stage.ask("cpu_high", &[("no_data", "true")]).starts_with("firing since"));
}

#[test]
fn what_only_the_ledger_remembers() {
    let mut stage = Stage::new();
    stage.emit(&transition("cpu_high", "a", Status::Firing, 6));
    stage.evidence.active.clear();
    stage.evidence.transitions.clear();
    let text = stage.ask("cpu_high", &[]);
    let expected = "not firing: the ledger has its last incident, of 1970-01-01T00:06:00Z\n  {host=\"a\"}\n  \
                    1970-01-01T00:06:00Z received\n";
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn inhibited() {
    let mut stage = Stage::new();
    stage.emit(&transition("host_down", "a", Status::Firing, 5));
    assert!(stage.emit(&transition("cpu_high", "a", Status::Firing, 6)).is_empty());
    let text = stage.ask("cpu_high", &[("host", "a")]);
    let expected = "firing since 1970-01-01T00:01:00Z: `oncall` is not notified while host_down";
    assert!(text.starts_with(expected) && text.contains(" fires"), "{text}");
}

#[test]
fn is_pending() {
    let mut stage = Stage::new();
    stage.emit(&transition("cpu_high", "a", Status::Pending, 1));
    let expected = "pending since 1970-01-01T00:01:00Z: it fires when its condition still holds in the window that ends at \
                    1970-01-01T00:06:00Z";
    check(&stage, "cpu_high", expected);
}

#[test]
fn incomplete_data() {
    let mut stage = Stage::new();
    stage.emit(&transition("cpu_high", "a", Status::Pending, 1));
    let progress = |moved_at: i64, held_by: Option<&str>| Progress {
        watermark: Time(MINUTE),
        moved_at: Time(moved_at * MINUTE),
        held_by: held_by.map(str::to_owned),
        rules: BTreeMap::new(),
        held_back: std::collections::BTreeSet::new(),
        until: 0,
        next: None,
    };
    stage.evidence.progress.insert(0, progress(10, None));
    stage.evidence.progress.insert(1, progress(2, Some("points-3: no ingest process reports it any more")));
    let expected = "data incomplete: event time of partition 1 stands at 1970-01-01T00:01:00Z since 1970-01-01T00:02:00Z, held \
                    by points-3: no ingest process reports it any more; nothing later is judged";
    check(&stage, "cpu_high", expected);
    let second = stage.ask("cpu_high", &[]).lines().nth(1).map(str::to_owned);
    assert!(second.is_some_and(|line| line.starts_with("  as of then: pending since")));
    // That people were notified stays so.
    stage.emit(&transition("host_down", "a", Status::Firing, 5));
    let text = stage.ask("host_down", &[]);
    assert!(
        text.starts_with(
            "firing since 1970-01-01T00:01:00Z: `oncall` is being notified\n  data incomplete: "
        ),
        "{text}"
    );
}

#[test]
fn a_receiver_fails() {
    let mut stage = Stage::new();
    let sent = stage.emit(&transition("cpu_high", "a", Status::Firing, 6));
    for minute in [7, 8] {
        stage.evidence.dispatcher.failed(&sent[0], "hook is unavailable: status 503", false, minute * MINUTE);
    }
    stage.note();
    let expected = "firing since 1970-01-01T00:01:00Z: `oncall` could not be notified yet, 2 attempts failed, the last at \
                    1970-01-01T00:08:00Z with: hook is unavailable: status 503; the next follows within 30s, or when the \
                    receiver asks for it";
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
    let sent = stage.emit(&transition("cpu_high", "a", Status::Firing, 6));
    stage.evidence.dispatcher.sent(&sent[0], 7 * MINUTE);
    stage.emit(&transition("cpu_high", "b", Status::Firing, 6));
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
        "firing since 1970-01-01T00:01:00Z: `oncall` was notified, and ada has acknowledged it",
    );
    // Over.
    let sent = stage.emit(&transition("cpu_high", "a", Status::Resolved, 9));
    let expected = "not firing: it was from 1970-01-01T00:01:00Z, and resolved at 1970-01-01T00:09:00Z (condition): `oncall` \
                    was notified of it at 1970-01-01T00:07:00Z; `oncall` is not notified of its end yet";
    check(&stage, "cpu_high", expected);
    stage.evidence.dispatcher.sent(&sent[0], 10 * MINUTE);
    stage.note();
    check(
        &stage,
        "cpu_high",
        &expected
            .replace("is not notified of its end yet", "was notified of its end at 1970-01-01T00:10:00Z"),
    );
    // Nobody.
    let nobody = Transition { receivers: Vec::new(), ..transition("host_down", "a", Status::Firing, 6) };
    stage.emit(&nobody);
    let expected = "firing since 1970-01-01T00:01:00Z: nobody is to be notified: no route matches, and the rule names no receiver";
    check(&stage, "host_down", expected);
    // With its group.
    let grouped = Transition { receivers: Vec::new(), ..transition("grouped", "a", Status::Firing, 6) };
    stage.emit(&grouped);
    check(
        &stage,
        "grouped",
        "firing since 1970-01-01T00:01:00Z: `team` is notified at 1970-01-01T00:16:00Z, with its group",
    );
}
