//! The ledger, and the topic of transitions, as far as a question is about them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::OnceLock;
use std::time::Duration;

use alerts::Transition;
use alerts::dispatch::{Entry, What};
use serde::de::DeserializeOwned;

use crate::config::Config;
use crate::error::Result;
use crate::kafka::state_topic::{Reader, Record};

/// Entries, or transitions, that are kept of what a question is about: the newest.
const MOST: usize = 20_000;
/// Incidents and dispatches that may share the beginning of an id before it counts as too short.
const MOST_IDS: usize = 1_000;
const POLL: Duration = Duration::from_millis(200);

/// What somebody wants to know.
#[derive(Debug, Clone)]
pub(crate) enum Question {
    /// How all alerts stand now.
    Now,
    /// About alerts of a rule that have these labels, among others.
    Alerts { rule: String, labels: BTreeMap<String, String> },
    /// About an incident, a transition or a dispatch, by the beginning of its id.
    Id(String),
}

impl Question {
    pub(crate) fn is_about(&self, rule: &str, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::Now => true,
            Self::Alerts { rule: wanted, labels: some } => {
                rule == wanted && some.iter().all(|(name, value)| labels.get(name) == Some(value))
            }
            Self::Id(_) => false,
        }
    }
}

/// Entries in order of time.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) entries: Vec<Entry>,
    /// Where the entries about each dispatch are; made when it is first asked for.
    by_dispatch: OnceLock<HashMap<String, Vec<usize>>>,
    /// Those that an id may mean.
    pub(crate) ids: Ids,
}

/// What begins with an id that was given.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    pub(crate) incidents: BTreeSet<String>,
    pub(crate) dispatches: BTreeSet<String>,
}

/// What became of a dispatch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Outcome<'l> {
    Delivered(&'l Entry),
    /// With the receiver that was notified instead, if any was.
    GaveUp(&'l Entry),
    /// It is under way.
    Open,
}

impl Ledger {
    /// Reads what a question is about, and what became of the dispatches that were `notified`, with
    /// the times at which these were made.
    pub(super) fn read(
        config: &Config,
        question: &Question,
        notified: &BTreeMap<String, i64>,
    ) -> Result<Self> {
        Self::select(question, notified, |since, take| {
            reader(config, since)?.read_to_end(|record| {
                if let Some(entry) = parse(&record) {
                    take(entry);
                }
            })?;
            Ok(())
        })
    }

    /// `each` hands out all entries of a time and later.
    fn select(
        question: &Question,
        notified: &BTreeMap<String, i64>,
        each: impl Fn(Option<i64>, &mut dyn FnMut(Entry)) -> Result<()>,
    ) -> Result<Self> {
        let mut kept = Kept::new(notified.keys().cloned().collect());
        let mut ids = Ids::default();
        match question {
            // What became of them is written after they were made.
            Question::Now => {
                let Some(oldest) = notified.values().min() else { return Ok(Self::default()) };
                each(Some(*oldest), &mut |entry| kept.take(entry, false))?;
            }
            Question::Alerts { .. } => each(None, &mut |entry| {
                let is_meant = !entry.incident.is_empty() && question.is_about(&entry.rule, &entry.labels);
                kept.take(entry, is_meant);
            })?,
            Question::Id(prefix) => {
                each(None, &mut |entry| ids.note(prefix, &entry))?;
                kept.dispatches.extend(ids.dispatches.iter().cloned());
                each(None, &mut |entry| {
                    let is_meant = ids.incidents.contains(&entry.incident);
                    kept.take(entry, is_meant);
                })?;
            }
        }
        Ok(Self { entries: kept.entries.into(), by_dispatch: OnceLock::new(), ids })
    }

    /// What became of a dispatch, or of those in its place.
    pub(crate) fn outcome(&self, dispatch: &str) -> Outcome<'_> {
        // In the order of the entries, of which those about replacements come before what became of
        // these.
        let mut places: BTreeSet<usize> = self.about(dispatch).iter().copied().collect();
        let mut outcome = Outcome::Open;
        while let Some(place) = places.pop_first() {
            let entry = &self.entries[place];
            match entry.what {
                What::Replaced => {
                    let replaced = entry.by.iter().flat_map(|by| by.split(", "));
                    let later =
                        replaced.flat_map(|by| self.about(by)).copied().filter(|other| *other > place);
                    places.extend(later);
                }
                What::Delivered => outcome = Outcome::Delivered(entry),
                What::GaveUp => outcome = Outcome::GaveUp(entry),
                _ => {}
            }
        }
        outcome
    }

    pub(crate) fn last_attempt(&self, dispatch: &str) -> Option<&Entry> {
        let entries = self.about(dispatch).iter().map(|place| &self.entries[*place]);
        entries.rev().find(|entry| entry.what == What::Attempted)
    }

    #[cfg(test)]
    pub(crate) fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
        self.by_dispatch.take();
    }

    /// Where the entries about a dispatch are, oldest first.
    fn about(&self, dispatch: &str) -> &[usize] {
        let index = self.by_dispatch.get_or_init(|| {
            let mut index: HashMap<String, Vec<usize>> = HashMap::new();
            for (place, entry) in self.entries.iter().enumerate() {
                if let Some(dispatch) = &entry.dispatch {
                    index.entry(dispatch.clone()).or_default().push(place);
                }
            }
            index
        });
        index.get(dispatch).map_or(&[], Vec::as_slice)
    }

    /// What there is about an incident, and about the dispatches that it was part of.
    pub(crate) fn of_incident(&self, incident: &str) -> Vec<&Entry> {
        let mut dispatches: BTreeSet<&str> = BTreeSet::new();
        let mut entries = Vec::new();
        for entry in &self.entries {
            let of_incident = entry.incident == incident && !incident.is_empty();
            let of_dispatch = entry.dispatch.as_deref().is_some_and(|id| dispatches.contains(id));
            if of_incident || of_dispatch {
                dispatches.extend(named(entry));
                entries.push(entry);
            }
        }
        entries
    }
}

/// The dispatches that an entry is about: its own, and those in its place.
fn named(entry: &Entry) -> impl Iterator<Item = &str> {
    let replaced = (entry.what == What::Replaced).then_some(entry.by.as_deref()).flatten();
    entry.dispatch.as_deref().into_iter().chain(replaced.into_iter().flat_map(|by| by.split(", ")))
}

/// The newest entries that are meant, and those about dispatches that such an entry names.
struct Kept {
    entries: VecDeque<Entry>,
    dispatches: BTreeSet<String>,
}

impl Kept {
    fn new(dispatches: BTreeSet<String>) -> Self {
        Self { entries: VecDeque::new(), dispatches }
    }

    fn take(&mut self, entry: Entry, is_meant: bool) {
        let is_followed = entry.dispatch.as_ref().is_some_and(|id| self.dispatches.contains(id));
        if !is_meant && !is_followed {
            return;
        }
        self.dispatches.extend(named(&entry).map(str::to_owned));
        push(&mut self.entries, entry);
    }
}

fn push<T>(kept: &mut VecDeque<T>, value: T) {
    if kept.len() == MOST {
        kept.pop_front();
    }
    kept.push_back(value);
}

impl Ids {
    fn note(&mut self, prefix: &str, entry: &Entry) {
        let begins = |id: &str| !prefix.is_empty() && id.starts_with(prefix);
        let dispatch = entry.dispatch.as_deref().filter(|id| begins(id));
        let of_transition = entry.transition.as_deref().is_some_and(begins);
        if begins(&entry.incident) || ((of_transition || dispatch.is_some()) && !entry.incident.is_empty()) {
            insert(&mut self.incidents, &entry.incident);
        }
        if let Some(dispatch) = dispatch {
            insert(&mut self.dispatches, dispatch);
        }
    }
}

fn insert(ids: &mut BTreeSet<String>, id: &str) {
    if ids.len() < MOST_IDS && !ids.contains(id) {
        ids.insert(id.to_owned());
    }
}

/// The transitions that a question is about, the newest ones, in their order. An id may be that of
/// one, or of an incident.
pub(super) fn read_transitions(
    config: &Config,
    question: &Question,
    ledger: &Ledger,
) -> Result<Vec<Transition>> {
    let mut kept = VecDeque::new();
    let is_meant = |transition: &Transition| match question {
        Question::Now => false,
        Question::Alerts { .. } => question.is_about(&transition.rule, &transition.labels),
        Question::Id(prefix) => {
            let begins = |id: &str| !prefix.is_empty() && id.starts_with(prefix.as_str());
            begins(&transition.incident)
                || begins(&transition.id)
                || ledger.ids.incidents.contains(&transition.incident)
        }
    };
    if !matches!(question, Question::Now) {
        Reader::new(&config.kafka, &config.topics.alerts, None)?.read_to_end(|record| {
            if let Some(transition) = parse(&record).filter(|transition| is_meant(transition)) {
                push(&mut kept, transition);
            }
        })?;
    }
    Ok(kept.into())
}

/// Hands out the entries of a time and later, nanoseconds since the epoch; then those that come,
/// until `take` breaks off.
pub(super) fn follow(
    config: &Config,
    since: Option<i64>,
    goes_on: bool,
    mut take: impl FnMut(Entry) -> ControlFlow<()>,
) -> Result<()> {
    let mut reader = reader(config, since)?;
    let mut has_ended = false;
    let mut take = |record: &Record| {
        let entry = parse(record).filter(|entry: &Entry| since.is_none_or(|since| entry.at >= since));
        entry.is_some_and(|entry| take(entry).is_break())
    };
    reader.read_to_end(|record| has_ended = has_ended || take(&record))?;
    while goes_on && !has_ended {
        if let Some(record) = reader.poll(POLL)? {
            has_ended = take(&record);
        }
    }
    Ok(())
}

/// Entries are written after the time that they have.
fn reader(config: &Config, since: Option<i64>) -> Result<Reader> {
    let topic = config.topics.alert_log();
    Ok(match since {
        Some(since) => Reader::from_time(&config.kafka, &topic, since / 1_000_000)?,
        None => Reader::new(&config.kafka, &topic, None)?,
    })
}

fn parse<T: DeserializeOwned>(record: &Record) -> Option<T> {
    serde_json::from_slice(record.value.as_deref()?).ok()
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
