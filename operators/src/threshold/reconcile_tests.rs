//! Whatever is edited, and whenever a process is killed: who hears what is announced knows what is
//! held.

use super::kinds_tests::{build, minutes};
use super::tests::{MINUTE, Row, batch, closed, rows, spec};
use super::*;
use alerts::Status;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashSet};

const HOSTS: [&str; 3] = ["eu", "us", "ap"];

/// The rules of a configuration, by a number.
fn rules(number: u8) -> Vec<RuleSpec> {
    let high = |limit: u32| RuleSpec { watches: rows(&format!("avg > {limit}")), ..spec() };
    match number {
        0 => vec![high(90)],
        1 => vec![high(60)],
        2 => vec![RuleSpec { for_: minutes(2), ..high(60) }],
        3 => vec![RuleSpec { name: "other".into(), ..high(60) }],
        4 => vec![],
        5 => vec![RuleSpec { missing_data: MissingData::NoData, ..high(60) }],
        6 => vec![RuleSpec { labels: BTreeMap::from([("team".into(), "ops".into())]), ..high(90) }],
        _ => vec![
            RuleSpec { recovery: Some("avg < 50".into()), ..high(60) },
            RuleSpec { name: "other".into(), ..high(30) },
        ],
    }
}

/// What others know: the topic of alert states, and who takes each id once.
#[derive(Default)]
struct Others {
    states: BTreeMap<(String, BTreeMap<String, String>), Transition>,
    seen: HashSet<String>,
    firing: BTreeMap<String, String>,
}

impl Others {
    fn hear(&mut self, transition: &Transition) {
        let key = (transition.rule.clone(), transition.labels.clone());
        match transition.status {
            Status::Pending | Status::Firing => self.states.insert(key, transition.clone()),
            Status::Resolved | Status::Inactive => self.states.remove(&key),
        };
        if !self.seen.insert(transition.id.clone()) {
            return;
        }
        match transition.status {
            Status::Firing => _ = self.firing.insert(transition.incident.clone(), transition.rule.clone()),
            Status::Resolved => _ = self.firing.remove(&transition.incident),
            Status::Pending | Status::Inactive => {}
        }
    }

    fn announced(&self) -> Announced {
        let mut announced = Announced::default();
        self.states.values().for_each(|known| announced.note(known));
        announced
    }
}

/// Folds messages, each the windows of a minute, and passes on what is emitted, but for what is
/// `held_back`.
fn fold(threshold: &mut Threshold, log: &[Vec<Row>], others: &mut Others, held_back: &BTreeSet<String>) {
    for message in log {
        let until = message.iter().map(|row| row.0).max().unwrap_or(0) * MINUTE;
        let (rows, ends) = batch(message);
        let mut given = vec![closed(&rows, &ends)];
        if message.len() == 1 && message[0].2.is_none() {
            given.clear();
        }
        let emitted = threshold.apply(&given, Some(until), StageTimes::default());
        emitted
            .iter()
            .filter(|emitted| !held_back.contains(&emitted.rule))
            .for_each(|emitted| others.hear(emitted));
    }
}

/// Pending and firing alerts: incident, labels and status.
fn of(transitions: impl Iterator<Item = Transition>) -> BTreeSet<(String, String, String)> {
    transitions
        .map(|it| (it.incident, format!("{} {:?}", it.rule, it.labels), it.status.to_string()))
        .collect()
}

proptest! {
    #[test]
    fn after_a_replay_what_is_held_and_what_was_announced_agree(
        levels in prop::collection::vec(prop::collection::vec(prop::option::of(0u8..4), 3), 4..24),
        lives in prop::collection::vec((0u8..8, 0usize..6, 0usize..8), 1..7),
    ) {
        let value = |level: u8| [20.0, 45.0, 75.0, 95.0][usize::from(level)];
        let log: Vec<Vec<Row>> = (1..)
            .zip(&levels)
            .map(|(minute, levels)| {
                let of_hosts = HOSTS.iter().zip(levels);
                let rows: Vec<Row> = of_hosts
                    .filter_map(|(host, level)| Some((minute, *host, Some(value((*level)?)))))
                    .collect();
                if rows.is_empty() { vec![(minute, "eu", None)] } else { rows }
            })
            .collect();
        let mut others = Others::default();
        let (mut snapshot, mut saved) = (build(&[]).snapshot(), 0);
        let (mut end, mut compared) = (0, BTreeMap::new());
        let mut last: (usize, BTreeSet<String>) = (0, BTreeSet::new());
        for (life, (number, forward, lost)) in lives.into_iter().enumerate() {
            let mut threshold = build(&rules(number));
            threshold.restore(&snapshot).unwrap();
            let announced = others.announced();
            let deciders = threshold.deciders(&|_| String::new());
            let names = compared.keys().chain(deciders.keys());
            let mut changed: BTreeSet<String> =
                names.filter(|name| compared.get(*name) != deciders.get(*name)).cloned().collect();
            // What was held back before is so again, when it is replayed once more.
            if saved < last.0 {
                changed.extend(last.1.clone());
            }
            // The replay comes to where the life before ended, or to the next message.
            let until = end.max(saved + 1).min(log.len());
            fold(&mut threshold, &log[saved..until], &mut others, &changed);
            let at = until as i64 * MINUTE;
            for emitted in threshold.reconcile(&announced, &changed, at, &life.to_string()) {
                others.hear(&emitted);
            }
            compared = deciders;
            if !changed.is_empty() {
                last = (until, changed);
            }
            end = (until + forward).min(log.len());
            fold(&mut threshold, &log[until..end], &mut others, &BTreeSet::new());
            let held = of(threshold.standing().into_iter());
            prop_assert_eq!(&of(others.states.values().cloned()), &held, "what is shown");
            let firing = |incident: &str| held.iter().any(|(it, _, status)| it == incident && status == "firing");
            let notified: Vec<&String> = others.firing.keys().filter(|incident| !firing(incident)).collect();
            prop_assert_eq!(notified, Vec::<&String>::new(), "nobody is left with an alert that is over");
            for (incident, _, status) in &held {
                prop_assert!(status != "firing" || others.firing.contains_key(incident), "all that fires is notified");
            }
            // The last messages of a life may be in no snapshot.
            let kept = end.saturating_sub(lost).max(saved);
            let mut again = build(&rules(number));
            again.restore(&snapshot).unwrap();
            fold(&mut again, &log[saved..kept], &mut Others::default(), &BTreeSet::new());
            (snapshot, saved) = (again.snapshot(), kept);
        }
    }
}
