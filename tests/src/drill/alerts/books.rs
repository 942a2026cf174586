//! What the topics say: which transitions there were, and what the ledger says became of each.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use alerts::dispatch::{Entry, What};
use alerts::{Status, Transition};

use super::receivers::Notified;
use super::story::{Event, RULES, Story};
use crate::drill::site::Site;
use crate::drill::verdict::Accounts;
use crate::duckdb::DuckDb;
use crate::kafka::{Kafka, Message};

/// Receivers that are notified of each alert alone and at once: nothing is over before they are
/// notified.
const ALONE: [&str; 3] = ["steady", "flaky", "away"];

/// Problems of a kind that are notified one by one.
const SHOWN: usize = 5;

#[derive(Debug, Default)]
pub(super) struct Books {
    /// By id: `rollup` sends some again.
    events: BTreeMap<String, Event>,
    /// Of which dispatches a transition was a part, by receiver.
    dispatched: BTreeMap<(String, String), Vec<String>>,
    /// In whose place others are.
    replaced: BTreeMap<String, Vec<String>>,
    delivered: BTreeSet<String>,
    gave_up: BTreeSet<String>,
    /// Receiver and transition.
    untold: BTreeSet<(String, String)>,
    /// Entries of the ledger that its files must have, and how many differ from each other.
    archived: (usize, usize),
}

impl Books {
    pub(super) fn read(kafka: &Kafka, site: &Site) -> Self {
        let mut books = Self::default();
        for message in kafka.consume_all(&site.topic_of("alerts")) {
            let transition: Transition = serde_json::from_slice(&message.payload).expect("a transition");
            if matches!(transition.status, Status::Firing | Status::Resolved) {
                let event = Event {
                    rule: transition.rule,
                    host: transition.labels["host"].clone(),
                    at: transition.window_end,
                    status: transition.status,
                };
                books.events.insert(transition.id, event);
            }
        }
        let topic = site.topic_of("alerts-log");
        let messages = kafka.consume_all(&topic);
        for message in &messages {
            books.note(serde_json::from_slice(&message.payload).expect("an entry"));
        }
        let committed = kafka.committed(&site.group("notify-ledger"), &topic);
        let is_archived = |message: &&Message| {
            let next = message.partition.and_then(|partition| committed.get(&partition));
            next.is_some_and(|next| message.offset < *next)
        };
        let archived: Vec<&[u8]> =
            messages.iter().filter(is_archived).map(|message| message.payload.as_slice()).collect();
        books.archived = (archived.len(), archived.iter().collect::<BTreeSet<_>>().len());
        books
    }

    /// The files of the ledger, read by another engine: each entry up to the committed offset,
    /// once. In a short round nobody may have had the time to write any.
    pub(super) fn audit_files(&self, duckdb: &DuckDb, data: &Path, accounts: &mut Accounts) {
        if self.archived.0 == 0 {
            return;
        }
        let files = data.join("alerts/*/*.parquet");
        let rows = duckdb.query(&format!(
            "SELECT count(*)::DOUBLE AS rows, count(DISTINCT ledger)::DOUBLE AS different
             FROM read_parquet('{}') AS ledger",
            files.display()
        ));
        let number = |name: &str| rows[0][name].as_f64().unwrap() as usize;
        let (rows, different) = (number("rows"), number("different"));
        accounts.balance("entries of the ledger in its files", different, self.archived.1);
        accounts.double("entries of the ledger in its files", rows.saturating_sub(self.archived.0));
    }

    fn note(&mut self, entry: Entry) {
        let Entry { what, transition, dispatch, receiver, by, .. } = entry;
        match (what, dispatch) {
            (What::Dispatched, Some(dispatch)) => {
                let place = (receiver.unwrap_or_default(), transition.unwrap_or_default());
                self.dispatched.entry(place).or_default().push(dispatch);
            }
            (What::Replaced, Some(dispatch)) => {
                let by = by.unwrap_or_default().split(", ").map(str::to_owned).collect();
                self.replaced.insert(dispatch, by);
            }
            (What::Delivered, Some(dispatch)) => {
                self.delivered.insert(dispatch);
            }
            (What::GaveUp, Some(dispatch)) => {
                self.gave_up.insert(dispatch);
            }
            (what, None) if what.ends_untold() => {
                self.untold.insert((receiver.unwrap_or_default(), transition.unwrap_or_default()));
            }
            _ => {}
        }
    }

    /// What a dispatch was replaced by in the end, or itself, and all on the way. What is too long
    /// for one is cut in several.
    fn heirs<'a>(&'a self, dispatch: &'a str) -> (BTreeSet<&'a str>, BTreeSet<&'a str>) {
        let (mut last, mut replaced, mut next) = (BTreeSet::new(), BTreeSet::new(), vec![dispatch]);
        while let Some(dispatch) = next.pop() {
            match self.replaced.get(dispatch) {
                Some(by) => {
                    replaced.insert(dispatch);
                    next.extend(by.iter().map(String::as_str));
                }
                None => {
                    last.insert(dispatch);
                }
            }
        }
        (last, replaced)
    }

    /// The dispatches that a transition was a part of, as they were made.
    fn dispatches(&self, receiver: &str, id: &str) -> &[String] {
        self.dispatched.get(&(receiver.to_owned(), id.to_owned())).map_or(&[], Vec::as_slice)
    }

    /// How often a transition has come to an end with a receiver.
    fn ends(&self, receiver: &str, id: &str) -> usize {
        let is_delivered =
            |dispatch: &&String| self.heirs(dispatch).0.iter().all(|heir| self.delivered.contains(*heir));
        let delivered = self.dispatches(receiver, id).iter().filter(is_delivered).count();
        delivered + usize::from(self.untold.contains(&(receiver.to_owned(), id.to_owned())))
    }

    /// Transitions that are not there yet, or that some receiver is neither told nor said not to be
    /// notified.
    pub(super) fn open(&self, story: &Story) -> Vec<String> {
        let ids: BTreeMap<&Event, &String> = self.events.iter().map(|(id, event)| (event, id)).collect();
        let mut open = Vec::new();
        for (rule, receivers) in RULES {
            for event in story.expected(rule) {
                let Some(id) = ids.get(event) else {
                    open.push(format!("no {event:?}"));
                    continue;
                };
                let mut missing = receivers.iter().filter(|receiver| self.ends(receiver, id) == 0);
                if let Some(receiver) = missing.next() {
                    open.push(format!("{id} for {receiver}: {event:?}"));
                }
            }
        }
        open
    }

    /// How many transitions nobody was notified, for they were over.
    pub(super) fn untold(&self) -> usize {
        self.untold.len()
    }

    /// The transitions that a receiver was notified by each of the dispatches that it has taken.
    /// Where one was cut in several, the ledger does not say which transition is in which: they are
    /// notified by the last of these, if it has all.
    pub(super) fn told(&self, receiver: &str, taken: &BTreeSet<&str>) -> BTreeMap<String, Vec<String>> {
        let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for ((_, id), dispatches) in self.dispatched.iter().filter(|((of, _), _)| of == receiver) {
            for dispatch in dispatches {
                let (last, replaced) = self.heirs(dispatch);
                let by = last.last().filter(|_| last.is_subset(taken));
                for by in by.into_iter().chain(replaced.intersection(taken)) {
                    told.entry((*by).to_owned()).or_default().push(id.clone());
                }
            }
        }
        told
    }

    /// What was judged, against what follows from the points.
    pub(super) fn compare(&self, story: &Story, accounts: &mut Accounts) {
        let mut found = BTreeSet::new();
        let twice = self.events.values().filter(|event| !found.insert(*event));
        accounts.note_all("transitions with two ids", &twice.collect::<Vec<_>>(), |accounts| {
            &mut accounts.doubled
        });
        let missing = story.events().iter().filter(|event| !found.contains(event));
        let missing: Vec<&Event> = missing.collect();
        accounts.note_all("transitions that never came", &missing, |accounts| &mut accounts.differences);
        let wrong = found.iter().filter(|event| !story.events().contains(**event));
        accounts
            .note_all("wrong transitions", &wrong.collect::<Vec<_>>(), |accounts| &mut accounts.differences);
        let gave_up: Vec<&String> = self.gave_up.iter().collect();
        accounts.note_all("given up", &gave_up, |accounts| &mut accounts.unaccounted);
    }

    /// What a receiver has, against what was judged and what the ledger says.
    pub(super) fn audit(&self, told: &Notified, accounts: &mut Accounts) {
        let receiver = told.receiver;
        accounts.note_all(&format!("{receiver}: changed between attempts"), &told.problems, |accounts| {
            &mut accounts.differences
        });
        let mut keys: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut newest: BTreeMap<(&str, &str), i64> = BTreeMap::new();
        let (mut unknown, mut disordered) = (Vec::new(), Vec::new());
        for notification in &told.notifications {
            let mut latest: BTreeMap<(&str, &str), i64> = BTreeMap::new();
            for id in &notification.transitions {
                let Some(event) = self.events.get(id) else {
                    unknown.push(id);
                    continue;
                };
                keys.entry(id).or_default().push(&notification.key);
                let alert = (event.rule.as_str(), event.host.as_str());
                if newest.get(&alert).is_some_and(|newest| event.at < *newest) {
                    disordered.push((&notification.key, event));
                }
                let at = latest.entry(alert).or_insert(event.at);
                *at = event.at.max(*at);
            }
            newest.extend(latest);
        }
        accounts.note_all(&format!("{receiver}: of unknown transitions"), &unknown, |it| &mut it.differences);
        accounts.note_all(&format!("{receiver}: in wrong order"), &disordered, |it| &mut it.differences);

        let (mut lost, mut doubled, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
        for (id, event) in &self.events {
            if !RULES.iter().any(|(rule, receivers)| *rule == event.rule && receivers.contains(&receiver)) {
                continue;
            }
            let is_untold = self.untold.contains(&(receiver.to_owned(), id.clone()));
            let keys = keys.get(id.as_str()).map_or(&[] as &[&str], Vec::as_slice);
            match keys {
                [] if !is_untold || ALONE.contains(&receiver) => lost.push((id, event)),
                [] | [_] => {}
                _ => doubled.push((id, event, keys, self.dispatches(receiver, id))),
            }
            let is_told = !keys.is_empty();
            if self.ends(receiver, id) != 1 || is_told == is_untold {
                wrong.push((id, event));
            }
        }
        accounts.note_all(&format!("{receiver}: lost"), &lost, |accounts| &mut accounts.unaccounted);
        accounts.note_all(&format!("{receiver}: doubled"), &doubled, |accounts| &mut accounts.doubled);
        let what = format!("{receiver}: told otherwise than the ledger says");
        accounts.note_all(&what, &wrong, |accounts| &mut accounts.unaccounted);
    }
}

impl Accounts {
    fn note_all<T: std::fmt::Debug>(
        &mut self,
        what: &str,
        found: &[T],
        count: impl FnOnce(&mut Self) -> &mut usize,
    ) {
        if found.is_empty() {
            return;
        }
        *count(self) += found.len();
        let shown: Vec<String> = found.iter().take(SHOWN).map(|one| format!("{one:?}")).collect();
        self.problems.push(format!("{what}: {}, among them\n  {}", found.len(), shown.join("\n  ")));
    }
}
