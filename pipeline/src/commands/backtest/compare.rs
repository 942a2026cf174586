//! Notifications that differ between two configurations: alerts by receiver, labels, status and
//! beginning, not by the moment at which they were notified.

use std::collections::BTreeMap;

use alerts::Status;
use serde::Serialize;

use super::Backtest;
use crate::commands::simulate::{AlertKey, Notified, NotifiedAlert};
use crate::time::Time;

/// An alert in a notification.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Line {
    /// Wall time at which it was notified.
    pub(super) at: Time,
    pub(super) receiver: String,
    #[serde(flatten)]
    pub(super) notified: NotifiedAlert,
}

/// What the other one did not tell.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Differences {
    pub(super) only_in_rules: Vec<Line>,
    pub(super) only_in_against: Vec<Line>,
}

impl Differences {
    pub(super) fn is_empty(&self) -> bool {
        self.only_in_rules.is_empty() && self.only_in_against.is_empty()
    }
}

impl Backtest {
    pub(super) fn differences(&self) -> Option<Differences> {
        let against = self.against.as_ref()?;
        Some(differences(&self.notified.outcome.notified, &against.outcome.notified))
    }
}

type Key<'a> = (&'a str, &'a AlertKey, Status, i64);

/// A notification that is sent several times, as by repetition, has to be sent as often by the
/// other. Where one sends it more often, the last ones are those that the other lacks.
fn differences(rules: &[Notified], against: &[Notified]) -> Differences {
    let (ours, theirs) = (by_key(rules), by_key(against));
    Differences { only_in_rules: beyond(&ours, &theirs), only_in_against: beyond(&theirs, &ours) }
}

fn by_key(notified: &[Notified]) -> BTreeMap<Key<'_>, Vec<Line>> {
    let mut lines: BTreeMap<Key<'_>, Vec<Line>> = BTreeMap::new();
    for notification in notified {
        let receiver = &notification.receiver;
        for alert in &notification.alerts {
            let key = (receiver.as_str(), &alert.alert, alert.status, alert.starts_at.0);
            let line = Line { at: notification.at, receiver: receiver.clone(), notified: alert.clone() };
            lines.entry(key).or_default().push(line);
        }
    }
    lines
}

fn beyond(some: &BTreeMap<Key<'_>, Vec<Line>>, others: &BTreeMap<Key<'_>, Vec<Line>>) -> Vec<Line> {
    let mut beyond: Vec<Line> = some
        .iter()
        .flat_map(|(key, lines)| lines.iter().skip(others.get(key).map_or(0, Vec::len)).cloned())
        .collect();
    // Of those at one time, the order of receivers and alerts stays.
    beyond.sort_by_key(|line| line.at);
    beyond
}

#[cfg(test)]
pub(super) mod tests {
    use alerts::Cause;
    use alerts::dispatch::Reason;

    use super::*;

    /// A notification of one alert of rule `r`, sent and begun at these times.
    pub(in crate::commands::backtest) fn notified(
        receiver: &str,
        host: &str,
        at: i64,
        starts_at: i64,
    ) -> Notified {
        let labels = BTreeMap::from([("host".to_owned(), host.to_owned())]);
        let alert = NotifiedAlert {
            alert: AlertKey { rule: "r".to_owned(), labels },
            status: Status::Firing,
            severity: "warning".to_owned(),
            starts_at: Time(starts_at),
            ends_at: None,
            summary: format!("{host} is busy"),
            cause: Cause::Condition,
            transitions: Vec::new(),
        };
        Notified {
            at: Time(at),
            receiver: receiver.to_owned(),
            reason: Reason::Changed,
            group: "{}:{}".to_owned(),
            alerts: vec![alert],
            notes: Vec::new(),
        }
    }

    #[test]
    fn what_one_tells_and_the_other_does_not() {
        let base = || vec![notified("a", "x", 5, 1), notified("a", "x", 9, 1), notified("b", "y", 5, 1)];
        let check = |against: Vec<Notified>, expected: (&[i64], &[i64])| {
            let found = differences(&base(), &against);
            let times = |lines: &[Line]| lines.iter().map(|line| line.at.0).collect::<Vec<_>>();
            let found = (times(&found.only_in_rules), times(&found.only_in_against));
            assert_eq!((found.0.as_slice(), found.1.as_slice()), expected, "{against:?}");
        };
        check(base(), (&[], &[]));
        // Notified later, together with another alert: the same.
        let mut together = notified("a", "x", 7, 1);
        together.alerts.extend(notified("a", "z", 7, 3).alerts);
        check(vec![together, notified("a", "x", 19, 1), notified("b", "y", 5, 1)], (&[], &[7]));
        // One repetition less, one more.
        check(vec![base()[0].clone(), base()[2].clone()], (&[9], &[]));
        check([base(), vec![notified("a", "x", 13, 1)]].concat(), (&[], &[13]));
        // Another receiver, another beginning, another status.
        check(vec![notified("c", "x", 5, 1), base()[1].clone(), base()[2].clone()], (&[9], &[5]));
        check(vec![notified("a", "x", 5, 2), base()[1].clone(), base()[2].clone()], (&[9], &[5]));
        let mut over = notified("b", "y", 5, 1);
        over.alerts[0].status = Status::Resolved;
        check(vec![base()[0].clone(), base()[1].clone(), over], (&[5], &[5]));
    }
}
