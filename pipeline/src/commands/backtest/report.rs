//! A backtest for people and for programs.

use std::collections::BTreeMap;
use std::fmt;

use alerts::Status;
use alerts::dispatch::{Reason, What};
use serde_json::{Value as Json, json};
use sinks::plain;

use super::compare::Line;
use super::{Backtest, Candidate};
use crate::columns::{Numbers, columns};
use crate::commands::simulate::{Notified, Outcome};
use crate::time::Time;

/// How often the alerts of a rule were in notifications of a receiver.
#[derive(Debug, Default)]
struct Counts {
    firing: u64,
    resolved: u64,
    repeated: u64,
    escalated: u64,
}

impl Outcome {
    fn totals(&self) -> BTreeMap<(&str, &str), Counts> {
        let mut totals: BTreeMap<(&str, &str), Counts> = BTreeMap::new();
        for notified in &self.notified {
            for alert in &notified.alerts {
                let counts = totals.entry((&notified.receiver, &alert.alert.rule)).or_default();
                *match (notified.reason, alert.status) {
                    (Reason::Repeated, _) => &mut counts.repeated,
                    (Reason::Escalated, Status::Firing) => &mut counts.escalated,
                    (_, Status::Resolved) => &mut counts.resolved,
                    _ => &mut counts.firing,
                } += 1;
            }
        }
        totals
    }

    /// How often something was not notified, or not at once: by what happened, receiver and rule.
    fn held_back(&self) -> BTreeMap<(&'static str, &str, &str), u64> {
        let mut held = BTreeMap::new();
        for entry in &self.ledger {
            let Some(what) = held_back_by(entry.what) else { continue };
            let receiver = entry.receiver.as_deref().unwrap_or("nobody");
            *held.entry((what, receiver, entry.rule.as_str())).or_default() += 1;
        }
        held
    }
}

/// The ledger's entry for a transition that was not notified, or not at once.
fn held_back_by(what: What) -> Option<&'static str> {
    Some(match what {
        What::Silenced => "silenced",
        What::Inhibited => "inhibited",
        What::Muted => "muted",
        What::NotRouted => "not routed",
        What::NotSent => "resolved, which the receiver does not take",
        What::EndedUntold => "over before it was notified",
        _ => return None,
    })
}

impl Backtest {
    /// For programs.
    pub fn json(&self) -> Json {
        let mut all = self.notified.json();
        all["from"] = Time(self.from).to_string().into();
        all["to"] = Time(self.to).to_string().into();
        if let (Some(against), Some(differences)) = (&self.against, self.differences()) {
            all["against"] = against.json();
            all["differences"] = json!(differences);
            all["equal"] = differences.is_empty().into();
        }
        all
    }
}

impl Candidate {
    fn json(&self) -> Json {
        let totals = self.outcome.totals();
        let totals = totals.iter().map(|((receiver, rule), counts)| {
            json!({
                "receiver": receiver, "rule": rule, "firing": counts.firing, "resolved": counts.resolved,
                "repeated": counts.repeated, "escalated": counts.escalated,
            })
        });
        let held = self.outcome.ledger.iter().filter(|entry| held_back_by(entry.what).is_some());
        let held = held.map(|entry| {
            json!({
                "at": Time(entry.at), "what": entry.what, "rule": entry.rule, "labels": entry.labels,
                "receiver": entry.receiver, "by": entry.by, "reason": entry.reason,
            })
        });
        let failures = self.outcome.failures.iter();
        let failures = failures.map(|(rule, message)| json!({ "rule": rule, "message": message }));
        json!({
            "rules": self.file.display().to_string(),
            "notifications": self.outcome.notified,
            "totals": totals.collect::<Vec<_>>(),
            "held_back": held.collect::<Vec<_>>(),
            "failures": failures.collect::<Vec<_>>(),
        })
    }

    /// What stands below the list: totals, what was held back, what could not be judged.
    fn write_totals(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let totals = self.outcome.totals();
        if !totals.is_empty() {
            let mut rows =
                vec![["receiver", "rule", "firing", "resolved", "repeated", "escalated"].map(str::to_owned)];
            for ((receiver, rule), counts) in &totals {
                let Counts { firing, resolved, repeated, escalated } = counts;
                let numbers = [firing, resolved, repeated, escalated].map(u64::to_string);
                let [firing, resolved, repeated, escalated] = numbers;
                rows.push([
                    (*receiver).to_owned(),
                    (*rule).to_owned(),
                    firing,
                    resolved,
                    repeated,
                    escalated,
                ]);
            }
            writeln!(f)?;
            writeln!(f, "{}", columns(&rows, Numbers::Right))?;
        }
        let held = self.outcome.held_back();
        if !held.is_empty() {
            let mut rows = vec![["held back", "receiver", "rule", "times"].map(str::to_owned)];
            for ((what, receiver, rule), times) in &held {
                rows.push([
                    (*what).to_owned(),
                    (*receiver).to_owned(),
                    (*rule).to_owned(),
                    times.to_string(),
                ]);
            }
            writeln!(f)?;
            writeln!(f, "{}", columns(&rows, Numbers::Right))?;
        }
        for (rule, message) in &self.outcome.failures {
            writeln!(f, "rule `{rule}` could not judge a row: {message}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Backtest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |candidate: &Candidate| candidate.outcome.notified.len();
        let Some((against, differences)) = self.against.as_ref().zip(self.differences()) else {
            for notified in &self.notified.outcome.notified {
                write_told(f, notified)?;
            }
            self.notified.write_totals(f)?;
            let plural = if count(&self.notified) == 1 { "" } else { "s" };
            let (from, to) = (Time(self.from), Time(self.to));
            return write!(f, "{} notification{plural} from {from} to {to}", count(&self.notified));
        };
        let ours = differences.only_in_rules.iter().map(|line| ('-', line));
        let mut lines: Vec<(char, &Line)> =
            ours.chain(differences.only_in_against.iter().map(|line| ('+', line))).collect();
        lines.sort_by_key(|(_, line)| line.at);
        for (sign, line) in lines {
            let Line { at, receiver, notified } = line;
            writeln!(
                f,
                "{sign} {at}  {receiver}  {}  {}  since {}",
                notified.status, notified.alert, notified.starts_at
            )?;
        }
        for (sign, candidate) in [('-', &self.notified), ('+', against)] {
            writeln!(f, "\n{sign} {}: {} notifications", candidate.file.display(), count(candidate))?;
            candidate.write_totals(f)?;
        }
        match (differences.only_in_rules.len(), differences.only_in_against.len()) {
            (0, 0) => f.write_str("equal"),
            (ours, theirs) => {
                write!(f, "different: {ours} alerts sent only by the first, {theirs} only by the second")
            }
        }
    }
}

/// One alert stands in the line of its notification, several below it.
fn write_told(f: &mut fmt::Formatter<'_>, notified: &Notified) -> fmt::Result {
    let Notified { at, receiver, reason, .. } = notified;
    write!(f, "{at}  {receiver}  {}", notified.status())?;
    if *reason != Reason::Changed {
        write!(f, " ({})", reason.as_str())?;
    }
    match notified.alerts.as_slice() {
        [alert] => writeln!(f, "  {}  {}", alert.alert, plain(alert.summary.trim_end()))?,
        alerts => {
            writeln!(f, "  {} alerts of {}", alerts.len(), notified.group)?;
            for alert in alerts {
                writeln!(f, "    {}  {}  {}", alert.status, alert.alert, plain(alert.summary.trim_end()))?;
            }
        }
    }
    for note in &notified.notes {
        writeln!(f, "    {note}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::compare::tests::notified;
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn candidate(file: &str, notified: Vec<Notified>) -> Candidate {
        Candidate { file: PathBuf::from(file), outcome: Outcome { notified, ..Outcome::default() } }
    }

    #[test]
    fn for_people() {
        let mut two = notified("hook", "a", 65 * SECOND, 60 * SECOND);
        two.alerts.extend(notified("hook", "b", 65 * SECOND, 60 * SECOND).alerts);
        two.group = "{all}:{}".to_owned();
        let mut again = notified("mail", "a", 70 * SECOND, 60 * SECOND);
        again.reason = Reason::Repeated;
        let ours = candidate("a.toml", vec![two, again.clone()]);
        let alone = Backtest { from: 0, to: 3_600 * SECOND, notified: ours, against: None };
        assert_eq!(
            alone.to_string(),
            r#"1970-01-01T00:01:05Z  hook  firing  2 alerts of {all}:{}
    firing  r{host="a"}  a is busy
    firing  r{host="b"}  b is busy
1970-01-01T00:01:10Z  mail  firing (repeated)  r{host="a"}  a is busy

receiver  rule  firing  resolved  repeated  escalated
hook      r          2         0         0          0
mail      r          0         0         1          0
2 notifications from 1970-01-01T00:00:00Z to 1970-01-01T01:00:00Z"#
        );
        assert!(!alone.differs());

        let against = Some(candidate("b.toml", vec![again]));
        let compared = Backtest { against, ..alone };
        assert!(compared.differs());
        assert!(compared.to_string().starts_with(
            "- 1970-01-01T00:01:05Z  hook  firing  r{host=\"a\"}  since 1970-01-01T00:01:00Z\n- "
        ));
        assert!(
            compared
                .to_string()
                .ends_with("different: 2 alerts sent only by the first, 0 only by the second")
        );
        let json = compared.json();
        assert_eq!(json["equal"], false);
        assert_eq!(json["differences"]["only_in_rules"][1]["labels"]["host"], "b", "{json:#}");
        assert_eq!(json["notifications"][0]["alerts"][0]["starts_at"], "1970-01-01T00:01:00Z", "{json:#}");
    }
}
