//! One test through the operators of the pipeline: points to states, states to windows of one
//! partition, windows to alerts, alerts to notifications.
//!
//! Points that arrive at one moment are one epoch. Event time is that of the newest point or gap so
//! far: a series that leaves values out stands for others that go on. At the end event time goes so
//! far that the last windows of all tiers that some rule looks at close.

use std::collections::BTreeMap;
use std::sync::Arc;

use alerts::dispatch::{Acknowledge, Command, Silence};
use alerts::{Status, Transition};
use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringViewArray, TimestampNanosecondArray};
use arrow::error::ArrowError;
use operators::fold::Fold;
use operators::partial::{aggregate, points_schema};
use operators::sql::{Catalog, Rollup};
use operators::watermark::{EpochFacts, PartitionFacts, WatermarkOptions};

use super::verdict::is_alert;
use crate::commands::alerts::commands::{acknowledge_key, silence_key};
use crate::commands::simulate::{AlertKey, Notified, Simulation};
use crate::config::{Act, AlertsConfig, ConfigError, NamedAlert, RuleTest, TestPoint};
use crate::roles::rollup::window_rows;

/// The topic that all points seem to come from, with one partition.
const TOPIC: &str = "test";

/// What came of a test.
#[derive(Debug, Default)]
pub(super) struct Ran {
    /// Pending and firing alerts at each moment of which something is expected, in the order of the
    /// test.
    pub(super) seen: Vec<Vec<(AlertKey, Status)>>,
    pub(super) notified: Vec<Notified>,
    /// What must not happen in any test.
    pub(super) problems: Vec<String>,
    /// Points that came too late for a rollup, which is no failure but may be the reason of one.
    pub(super) late: BTreeMap<String, u64>,
}

/// What happens at one moment of wall time, in this order.
#[derive(Default)]
struct Moment<'a> {
    silences: Vec<&'a Silence>,
    points: Vec<&'a TestPoint>,
    /// How far event time has come, if not by a point.
    reached: Option<i64>,
    acknowledged: Vec<(&'a NamedAlert, &'a str)>,
    /// How many look at the alerts now.
    looks: usize,
}

/// # Errors
/// Every mistake in the rules' SQL and templates.
pub(super) fn run(
    test: &RuleTest,
    alerts: &AlertsConfig,
    catalog: &Catalog,
    options: WatermarkOptions,
) -> Result<Ran, Vec<ConfigError>> {
    let simulation = Simulation::new(alerts, catalog)?;
    let is_used = |rollup: &Rollup| simulation.sources().iter().any(|(name, _)| *name == rollup.name);
    let rollups: Vec<Arc<Rollup>> =
        catalog.rollups.iter().filter(|rollup| is_used(rollup)).map(Arc::clone).collect();
    let fold =
        Fold::new(&rollups, options).watching_open(|rollup, tier| simulation.watches_open(rollup, tier));
    let moments = moments(test, &rollups, &simulation, options.max_out_of_orderness);
    let labels = &catalog.labels;
    let mut partition =
        Partition { alerts, labels, rollups, fold, simulation, offset: 0, ran: Ran::default() };
    for (now, moment) in &moments {
        partition.live_through(*now, moment);
    }
    partition.simulation.finish();
    Ok(partition.finish())
}

/// What happens when.
fn moments<'a>(
    test: &'a RuleTest,
    rollups: &[Arc<Rollup>],
    simulation: &Simulation,
    disorder: i64,
) -> BTreeMap<i64, Moment<'a>> {
    let mut moments: BTreeMap<i64, Moment<'a>> = BTreeMap::new();
    for point in &test.points {
        moments.entry(point.arrives).or_default().points.push(point);
    }
    for (arrives, time) in &test.gaps {
        let reached = &mut moments.entry(*arrives).or_default().reached;
        *reached = (*reached).max(Some(*time));
    }
    for (at, acts) in &test.acts {
        let moment = moments.entry(*at).or_default();
        match acts {
            Act::Silence(silence) => moment.silences.push(silence),
            Act::Acknowledge { alert, by } => moment.acknowledged.push((alert, by)),
        }
    }
    for expected in &test.expected {
        moments.entry(expected.at).or_default().looks += 1;
    }
    let watched = rollups
        .iter()
        .flat_map(|rollup| rollup.tiers().iter().map(move |tier| (rollup, tier)))
        .filter(|(rollup, tier)| simulation.sources().contains(&(rollup.name.clone(), tier.name.clone())));
    let ends = watched.map(|(_, tier)| tier.windows.end(tier.windows.start(test.last)));
    if let Some(end) = ends.max() {
        let reached = end.saturating_add(disorder);
        let arrived = test.points.iter().map(|point| point.arrives).max();
        moments.entry(reached.max(arrived.unwrap_or(reached))).or_default().reached = Some(reached);
    }
    moments
}

struct Partition<'a> {
    alerts: &'a AlertsConfig,
    /// Of the points that the rollups are planned over.
    labels: &'a [String],
    rollups: Vec<Arc<Rollup>>,
    fold: Fold,
    simulation: Simulation,
    offset: i64,
    ran: Ran,
}

impl Partition<'_> {
    fn live_through(&mut self, now: i64, moment: &Moment<'_>) {
        for silence in &moment.silences {
            let command = Command::Silence((*silence).clone());
            self.simulation.command(&silence_key(&silence.id), &command, now);
        }
        if !moment.points.is_empty() || moment.reached.is_some() {
            self.epoch(now, moment);
        }
        self.simulation.advance(now);
        for (alert, by) in &moment.acknowledged {
            self.acknowledge(now, alert, by);
        }
        for _ in 0..moment.looks {
            let active = self.simulation.active().iter();
            let seen = active.map(|(key, alert)| (key.clone(), alert.status));
            self.ran.seen.push(seen.collect());
        }
    }

    fn epoch(&mut self, now: i64, moment: &Moment<'_>) {
        let points = match batch(&moment.points, self.labels) {
            Ok(points) => points,
            Err(error) => {
                self.ran.problems.push(error.to_string());
                return;
            }
        };
        let times = || moment.points.iter().map(|point| point.time);
        let to = self.offset.saturating_add(i64::try_from(moment.points.len()).unwrap_or(i64::MAX));
        let facts = EpochFacts {
            wall: now,
            uptime: None,
            topics: BTreeMap::from([(TOPIC.to_owned(), 1)]),
            partitions: vec![PartitionFacts {
                topic: TOPIC.to_owned(),
                partition: 0,
                from: self.offset,
                to,
                high: times().max().max(moment.reached),
                low: times().min(),
                at_end: false,
                silent: 0,
            }],
            owner: None,
        };
        self.offset = to;
        let aggregated = aggregate(&self.rollups, &[points], &facts, 1);
        self.ran.problems.extend(aggregated.failures.iter().map(ToString::to_string));
        for message in &aggregated.messages {
            let applied = self.fold.apply(message);
            self.ran.problems.extend(applied.failures.iter().map(ToString::to_string));
            for late in &applied.late {
                *self.ran.late.entry(late.rollup.name.clone()).or_default() += late.points;
            }
            let (open, results) = (window_rows(&applied.open), window_rows(&applied.results));
            self.simulation.step(&open, &results, self.fold.watermark(), now);
        }
    }

    fn acknowledge(&mut self, now: i64, named: &NamedAlert, by: &str) {
        let fires = |(key, alert): &(&AlertKey, &_)| is_firing(alert) && is_alert(named, key, self.alerts);
        let incidents: Vec<String> =
            self.simulation.active().iter().filter(fires).map(|(_, alert)| alert.incident.clone()).collect();
        if incidents.is_empty() {
            let key = AlertKey { rule: named.rule.clone(), labels: named.labels.clone() };
            self.ran.problems.push(format!("{key} was to be acknowledged, and does not fire then"));
        }
        for incident in incidents {
            let key = acknowledge_key(&incident);
            let acknowledge = Acknowledge { incident, by: by.to_owned(), comment: String::new(), at: now };
            self.simulation.command(&key, &Command::Acknowledge(acknowledge), now);
        }
    }

    fn finish(mut self) -> Ran {
        let outcome = self.simulation.take();
        self.ran.notified = outcome.notified;
        let failures = outcome.failures.into_iter();
        self.ran.problems.extend(
            failures.map(|(rule, message)| format!("rule `{rule}` could not judge a row: {message}")),
        );
        self.ran
    }
}

fn is_firing(alert: &Transition) -> bool {
    alert.status == Status::Firing
}

/// The points as the columns that rollups are computed over.
fn batch(points: &[&TestPoint], labels: &[String]) -> Result<RecordBatch, ArrowError> {
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(StringViewArray::from_iter_values(points.iter().map(|point| &point.name))),
        Arc::new(TimestampNanosecondArray::from_iter_values(points.iter().map(|point| point.time))),
        Arc::new(Float64Array::from_iter_values(points.iter().map(|point| point.value))),
    ];
    for label in labels {
        let values = points.iter().map(|point| point.labels.get(label));
        columns.push(Arc::new(values.collect::<StringViewArray>()));
    }
    RecordBatch::try_new(points_schema(labels), columns)
}
