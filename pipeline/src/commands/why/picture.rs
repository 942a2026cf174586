//! The answers of processes, Kafka and snapshots, put together: one row for each source partition
//! and one for each rollup partition. Pure.

use std::collections::BTreeMap;

use operators::watermark::{Source, Standing};
use serde::Serialize;

use super::brokers::{Brokers, GroupFacts};
use crate::board::history::WindowHistory;
use crate::board::status::{
    FailureStatus, Holder, OpenWindow, Origin, OwnedSource, Refused, RollupPartition, SinkStatus,
    SourceStanding, Status,
};
use crate::time::{Time, milliseconds};

/// Everything that was found out.
#[derive(Debug)]
pub(super) struct Evidence {
    pub(super) now: i64,
    pub(super) rules: Rules,
    pub(super) asked: Vec<Asked>,
    /// Or why Kafka could not be asked.
    pub(super) kafka: Result<Brokers, String>,
    /// Rollup partitions that no process reported, from their snapshots.
    pub(super) snapshots: Vec<RollupPartition>,
    /// What was not found out, and why.
    pub(super) notes: Vec<String>,
}

/// A process that was asked, and its answer.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) url: String,
    pub(super) status: Result<Status, String>,
}

/// From the configuration, in nanoseconds where it is time.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) epoch: i64,
    pub(super) max_out_of_orderness: i64,
    pub(super) max_future_skew: i64,
    pub(super) idle_timeout: i64,
    pub(super) owner_timeout: i64,
    pub(super) partials: String,
    pub(super) partials_partitions: i32,
}

/// The whole picture.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) now: i64,
    pub(super) rules: Rules,
    pub(super) sources: Vec<SourceRow>,
    pub(super) partitions: Vec<PartitionRow>,
    pub(super) sinks: Vec<SinkRow>,
    pub(super) windows: Vec<WindowHistory>,
    pub(super) late_points: BTreeMap<String, u64>,
    /// Since when the windows' history is known, of the process that started last.
    pub(super) history_since: Option<Time>,
    /// What the processes could not compute, with the instance that reported it.
    pub(super) failures: Vec<FailureRow>,
    /// Why a process that runs `rollup` is not ready.
    pub(super) rollup_waits: Option<String>,
    pub(super) kafka: Option<Brokers>,
    pub(super) notes: Vec<String>,
}

/// A source partition.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourceRow {
    pub topic: String,
    pub partition: i32,
    /// What it means to the watermark; none when no rollup partition was heard of.
    pub standing: Option<Standing>,
    /// Highest event time accepted.
    pub newest: Option<Time>,
    /// `newest` less `max_out_of_orderness`: what the watermark can be at most while it counts.
    pub event_time: Option<Time>,
    /// Messages between what was aggregated and the end of the log.
    pub unread_messages: Option<i64>,
    pub read_per_second: Option<f64>,
    pub silent_ms: Option<i64>,
    /// Until it stops counting if it stays silent.
    pub idle_in_ms: Option<i64>,
    /// When `ingest` last reported it.
    pub reported: Option<Time>,
    /// The instance that did.
    pub reported_by: Option<String>,
    pub owner: Option<Owner>,
    /// Points sent to the dead-letter topic, by reason, since its owner started.
    pub refused: BTreeMap<String, u64>,
    pub last_refused: Option<Refused>,
    pub farthest_ahead_ms: Option<i64>,
    /// The last epoch in which a point was accepted.
    pub accepted: Option<Time>,
}

/// Who owns a partition, from every side that reported something about it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// `<host>:<process id>`.
    pub instance: Option<String>,
    /// The address that reported it.
    pub url: Option<String>,
    /// Its member id in the consumer group.
    pub member: Option<String>,
    /// Where the broker sees it.
    pub host: Option<String>,
}

/// A rollup partition.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartitionRow {
    pub partition: i32,
    pub owner: Option<Owner>,
    /// None when nobody notified it and there is no snapshot.
    pub from: Option<Origin>,
    pub watermark: Option<Time>,
    pub log_time: Option<Time>,
    pub next_offset: Option<i64>,
    pub checkpoint_offset: Option<i64>,
    /// Messages of the partials topic that are not merged.
    pub unread_messages: Option<i64>,
    pub holder: Option<Holder>,
    pub open: Vec<OpenWindow>,
    pub open_windows: usize,
}

/// What of a rollup one process could not compute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailureRow {
    pub instance: String,
    #[serde(flatten)]
    pub failure: FailureStatus,
}

/// The sink of one process.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SinkRow {
    pub instance: String,
    #[serde(flatten)]
    pub sink: SinkStatus,
    #[serde(skip)]
    pub(super) partitions: Vec<i32>,
}

impl Picture {
    pub(super) fn new(evidence: Evidence) -> Self {
        let mut notes = evidence.notes;
        let mut notified: Vec<(&str, &Status)> = Vec::new();
        for asked in &evidence.asked {
            match &asked.status {
                Ok(status) => {
                    notified.push((&asked.url, status));
                    let waiting = status.waiting.iter();
                    notes.extend(
                        waiting.map(|(part, why)| format!("{part} of {} waits: {why}", status.instance)),
                    );
                }
                Err(problem) => notes.push(format!("{} does not answer: {problem}", asked.url)),
            }
        }
        let kafka = match evidence.kafka {
            Ok(kafka) => Some(kafka),
            Err(problem) => {
                notes.push(format!("lags and owners are not known, kafka could not be asked: {problem}"));
                None
            }
        };
        let view =
            View { now: evidence.now, rules: &evidence.rules, notified: &notified, kafka: kafka.as_ref() };
        let partitions = view.partitions(&evidence.snapshots);
        let decisive = slowest(&partitions).map(|row| row.partition);
        let standings = view.standings(decisive, &evidence.snapshots);
        let sources = view.sources(&standings);
        let rollups = || notified.iter().filter_map(|(_, status)| Some((*status, status.rollup.as_ref()?)));
        let details = || rollups().filter_map(|(_, rollup)| rollup.asked.as_ref());
        let mut late_points = BTreeMap::new();
        for (age, points) in details().flat_map(|detail| &detail.late_points) {
            *late_points.entry(age.clone()).or_default() += points;
        }
        let sinks = rollups().map(|(status, rollup)| SinkRow {
            instance: status.instance.clone(),
            sink: rollup.sink.clone(),
            partitions: rollup.partitions.iter().map(|partition| partition.partition).collect(),
        });
        let failures = notified.iter().flat_map(|(_, status)| {
            let row = |failure: &FailureStatus| FailureRow {
                instance: status.instance.clone(),
                failure: failure.clone(),
            };
            status.failures.iter().map(row).collect::<Vec<_>>()
        });
        Self {
            failures: failures.collect(),
            sinks: sinks.collect(),
            windows: details().flat_map(|detail| detail.windows.clone()).collect(),
            history_since: rollups().map(|(status, _)| status.started).max(),
            rollup_waits: notified.iter().find_map(|(_, status)| status.waiting.get("rollup").cloned()),
            now: evidence.now,
            sources,
            partitions,
            late_points,
            rules: evidence.rules,
            kafka,
            notes,
        }
    }

    pub(super) fn source(&self, topic: &str, partition: i32) -> Option<&SourceRow> {
        self.sources.iter().find(|row| row.topic == topic && row.partition == partition)
    }

    /// The known rollup partition that is farthest behind: it decides when a window has closed
    /// everywhere.
    pub(super) fn slowest(&self) -> Option<&PartitionRow> {
        slowest(&self.partitions)
    }
}

fn slowest(partitions: &[PartitionRow]) -> Option<&PartitionRow> {
    let known = partitions.iter().filter(|row| row.from.is_some());
    known.min_by_key(|row| (row.watermark, row.log_time))
}

struct View<'a> {
    now: i64,
    rules: &'a Rules,
    notified: &'a [(&'a str, &'a Status)],
    kafka: Option<&'a Brokers>,
}

impl View<'_> {
    fn partitions(&self, snapshots: &[RollupPartition]) -> Vec<PartitionRow> {
        let rows = (0..self.rules.partials_partitions).map(|partition| {
            let source = (self.rules.partials.clone(), partition);
            let live = self.live(partition);
            let stored = snapshots.iter().find(|snapshot| snapshot.partition == partition);
            let found = live.map(|(.., found)| found).or(stored);
            let mut owner = self.kafka.and_then(|kafka| member(&kafka.rollup, &source));
            if let Some((url, status, _)) = live {
                let owner = owner.get_or_insert_default();
                owner.instance = Some(status.instance.clone());
                owner.url = Some(url.to_owned());
            }
            let end = self.kafka.and_then(|kafka| kafka.rollup.logs.get(&source)).map(|log| log.end);
            let next_offset = found.map(|found| found.next_offset);
            PartitionRow {
                partition,
                owner,
                from: found.map(|found| found.from),
                watermark: found.and_then(|found| found.watermark),
                log_time: found.and_then(|found| found.log_time),
                next_offset,
                checkpoint_offset: found.map(|found| found.checkpoint_offset),
                unread_messages: end.map(|end| (end - next_offset.unwrap_or(0)).max(0)),
                holder: found.and_then(|found| found.holder.clone()),
                open: found.map(|found| found.open.clone()).unwrap_or_default(),
                open_windows: found.map_or(0, |found| found.open_windows),
            }
        });
        rows.collect()
    }

    fn live(&self, partition: i32) -> Option<(&str, &Status, &RollupPartition)> {
        self.notified.iter().find_map(|(url, status)| {
            let partitions = &status.rollup.as_ref()?.partitions;
            let found = partitions.iter().find(|found| found.partition == partition)?;
            Some((*url, *status, found))
        })
    }

    /// The source partitions as the slowest rollup partition has them.
    fn standings(&self, slowest: Option<i32>, snapshots: &[RollupPartition]) -> Vec<SourceStanding> {
        let Some(partition) = slowest else { return Vec::new() };
        let live = self.live(partition).map(|(.., found)| found);
        let stored = || snapshots.iter().find(|snapshot| snapshot.partition == partition);
        live.or_else(stored).map(|found| found.sources.clone()).unwrap_or_default()
    }

    /// Every source partition that anyone knows.
    fn sources(&self, standings: &[SourceStanding]) -> Vec<SourceRow> {
        let mut all: BTreeMap<Source, Option<&SourceStanding>> = BTreeMap::new();
        if let Some(kafka) = self.kafka {
            all.extend(kafka.ingest.logs.keys().map(|source| (source.clone(), None)));
        }
        for (_, status) in self.notified {
            let owned = status.ingest.iter().flatten();
            all.extend(owned.map(|owned| ((owned.topic.clone(), owned.partition), None)));
        }
        all.extend(standings.iter().map(|known| ((known.topic.clone(), known.partition), Some(known))));
        all.into_iter().map(|(source, standing)| self.source(source, standing)).collect()
    }

    fn source(&self, source: Source, standing: Option<&SourceStanding>) -> SourceRow {
        let owned = self.owned(&source);
        let log = self.kafka.and_then(|kafka| kafka.ingest.logs.get(&source));
        let reported = standing.and_then(|standing| standing.reported);
        let reported_by = standing.and_then(|standing| standing.owner.clone());
        // A process that reported it long ago need not be its owner now.
        let reports = reported.is_some_and(|reported| self.now - reported.0 <= self.rules.owner_timeout);
        let mut owner = self.kafka.and_then(|kafka| member(&kafka.ingest, &source));
        if let Some((url, status, _)) = owned {
            let owner = owner.get_or_insert_default();
            owner.instance = Some(status.instance.clone());
            owner.url = Some(url.to_owned());
        } else if let (Some(owner), true) = (&mut owner, reports) {
            owner.instance.clone_from(&reported_by);
        }
        let notified = owned.map(|(.., owned)| owned);
        let newest = standing.and_then(|standing| standing.newest);
        let read_to = [
            notified.map(|owned| owned.next_offset),
            standing.and_then(|standing| standing.next_offset),
            log.and_then(|log| log.committed),
        ];
        let read_to = read_to.into_iter().flatten().max().unwrap_or(0);
        let since_report = reported.map_or(0, |reported| milliseconds(self.now - reported.0).max(0));
        let silent_ms =
            standing.filter(|_| reported.is_some()).map(|standing| standing.silent_ms + since_report);
        let idle_in = |silent_ms: i64| (milliseconds(self.rules.idle_timeout) - silent_ms).max(0);
        let idle = standing.is_some_and(|standing| standing.standing == Standing::Idle);
        SourceRow {
            topic: source.0,
            partition: source.1,
            standing: standing.map(|standing| standing.standing),
            newest,
            event_time: newest.map(|newest| Time(newest.0.saturating_sub(self.rules.max_out_of_orderness))),
            unread_messages: log.map(|log| (log.end - read_to).max(0)),
            read_per_second: notified.and_then(|owned| owned.read_per_second),
            silent_ms,
            idle_in_ms: silent_ms.filter(|_| !idle).map(idle_in),
            reported,
            reported_by,
            owner,
            refused: notified.map(|owned| owned.refused.clone()).unwrap_or_default(),
            last_refused: notified.and_then(|owned| owned.last_refused.clone()),
            farthest_ahead_ms: notified.and_then(|owned| owned.farthest_ahead_ms),
            accepted: notified.and_then(|owned| owned.accepted),
        }
    }

    fn owned(&self, source: &Source) -> Option<(&str, &Status, &OwnedSource)> {
        self.notified.iter().find_map(|(url, status)| {
            let mut owned = status.ingest.iter().flatten();
            let found = owned.find(|owned| owned.topic == source.0 && owned.partition == source.1)?;
            Some((*url, *status, found))
        })
    }
}

fn member(group: &GroupFacts, source: &Source) -> Option<Owner> {
    let member = group.owner(source)?;
    Some(Owner { member: Some(member.id.clone()), host: Some(member.host.clone()), ..Owner::default() })
}
