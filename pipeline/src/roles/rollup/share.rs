//! The owned partitions of the partials topic, each with its fold and its alert states.
//!
//! - `checkpoint`: states to storage and back; `judge`: rules; `report`: metrics and the board

mod checkpoint;
mod judge;
mod report;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use operators::exchange::Partials;
use operators::fold::{Fold, ResultKind, Results};
use operators::threshold::{Threshold, WindowRows};
use rdkafka::message::{BorrowedMessage, Message};
use sinks::{RollupRows, Table};
use tokio::sync::broadcast;

use super::Event;
use super::announce::Announcer;
use super::outputs::Outputs;
use super::rebuild::Rebuilds;
use super::reconcile::{Compared, Replay, States, deciders_of};
use super::tell::tell_rebuilds;
use crate::alerting::Alerting;
use crate::alerting::progress::Progress;
use crate::board::Folded;
use crate::error::{Error, Result};
use crate::roles::context::Context;
use crate::roles::group::{Assigned, Commit, Membership, Share, Source};
use crate::storage::Snapshots;
use crate::telemetry::{PartitionLabels, TierLabels};
use crate::time::nanoseconds;

pub(super) struct RollupShare {
    context: Context,
    alerting: Alerting,
    announcer: Arc<Announcer>,
    snapshots: Snapshots,
    outputs: Outputs,
    /// By rollup, in the order of its tiers.
    tables: HashMap<String, Vec<Arc<Table>>>,
    partitions: BTreeMap<i32, Partition>,
    rebuilds: Rebuilds,
    events: Option<broadcast::Sender<Event>>,
}

/// Whether all that was given out has become durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finished {
    Whole,
    InPart,
}

pub(super) struct Partition {
    pub(super) fold: Fold,
    threshold: Threshold,
    pub(super) next: i64,
    /// The offset of the last durable checkpoint.
    checkpointed: i64,
    /// Messages before the next one were removed before anyone read them.
    missed: bool,
    /// How far event time had come when it was announced.
    announced: Option<Progress>,
    /// What was announced of alerts when it was taken over, until that has been compared with what
    /// is held.
    replay: Option<Replay>,
    /// See [`Progress::rules`].
    compared: Compared,
    /// What the record on the topic covers for certain.
    covered: Option<Compared>,
    /// When the newest message was folded in, by this process's clock.
    heard: Option<i64>,
}

impl Partition {
    fn new(fold: Fold, threshold: Threshold, next: i64, missed: bool) -> Self {
        Self {
            fold,
            threshold,
            next,
            checkpointed: next,
            missed,
            announced: None,
            heard: None,
            replay: None,
            compared: Compared::default(),
            covered: None,
        }
    }
}

impl RollupShare {
    pub(super) fn new(
        context: &Context,
        alerting: &Alerting,
        announcer: Arc<Announcer>,
        snapshots: Snapshots,
        outputs: Outputs,
        events: Option<broadcast::Sender<Event>>,
    ) -> Self {
        let tables = context.catalog.rollups.iter().map(|rollup| {
            let tables = query::tables_of(rollup).into_iter().map(Arc::new);
            (rollup.name.clone(), tables.collect())
        });
        Self {
            tables: tables.collect(),
            context: context.clone(),
            alerting: alerting.clone(),
            announcer,
            snapshots,
            outputs,
            partitions: BTreeMap::new(),
            rebuilds: Rebuilds::new(context),
            events,
        }
    }

    /// Batches that wait for the sink.
    pub(super) fn queued(&self) -> usize {
        self.outputs.queued()
    }

    pub(super) fn has_room(&self) -> bool {
        self.outputs.has_room()
    }

    /// Folds one message in and gives out what it leads to.
    pub(super) fn take(&mut self, message: &BorrowedMessage<'_>) -> Result<()> {
        let (partition, offset) = (message.partition(), message.offset());
        let newest = self.newest_before(message);
        let Some(state) = self.partitions.get_mut(&partition) else { return Ok(()) };
        if offset < state.next {
            return Ok(());
        }
        state.next = offset + 1;
        state.heard = Some(self.context.clock.now_ns());
        if std::mem::take(&mut state.missed) {
            tell_rebuilds(partition, &state.fold.missed(newest), "messages were removed unread");
        }
        let labels = PartitionLabels { partition };
        self.context.metrics.rollup.partials.get_or_create(&labels).inc();
        let partials = match Partials::decode(message.payload().unwrap_or_default()) {
            Ok(partials) => partials,
            Err(error) => {
                tracing::error!(partition, offset, %error, "a message of the partials topic is left out");
                tell_rebuilds(partition, &state.fold.missed(newest), "a message is unreadable");
                return Ok(());
            }
        };
        let before = state.fold.watermark();
        state.fold.hold_beside(state.threshold.bytes());
        let applied = state.fold.apply(&partials);
        self.context.board.folded(&Folded {
            partition,
            offset,
            facts: &partials.facts,
            before,
            after: state.fold.watermark(),
            applied: &applied,
        });
        tell_rebuilds(partition, &applied.rebuilds, "another plan or release made a message");
        self.count(partition, &applied);
        for late in &applied.late {
            self.announcer.late(late)?;
        }
        self.judge(partition, &applied, &partials.facts)?;
        for results in applied.results {
            self.give_out(partition, offset, results)?;
        }
        Ok(())
    }

    /// No point of a message is newer: `ingest` refuses what is further ahead of its clock than the
    /// skew, once for that and once for a difference between the clocks.
    fn newest_before(&self, message: &BorrowedMessage<'_>) -> i64 {
        let sent = message.timestamp().to_millis().map(|ms| ms.saturating_mul(1_000_000));
        let skew = self.context.config.ingest.max_future_skew * 2;
        let skew = nanoseconds(skew);
        sent.unwrap_or_else(|| self.context.clock.now_ns()).saturating_add(skew)
    }

    /// Goes on with the windows that are rebuilt from the archive.
    pub(super) fn rebuild(&mut self) -> Result<()> {
        self.rebuilds.advance(&mut self.partitions, &self.outputs, &self.tables)
    }

    fn give_out(&mut self, partition: i32, offset: i64, results: Results) -> Result<()> {
        let name = &results.rollup.name;
        let Some(table) = self.tables.get(name).and_then(|tables| tables.get(results.tier)) else {
            return Ok(());
        };
        let table = Arc::clone(table);
        let labels = TierLabels { rollup: name.clone(), tier: table.tier.clone() };
        let rows = results.rows.num_rows() as u64;
        let metrics = &self.context.metrics;
        let is_correction = match results.kind {
            ResultKind::Open => return Ok(()),
            ResultKind::Corrected => {
                metrics.rollup.corrected_rows.get_or_create(&labels).inc_by(rows);
                true
            }
            ResultKind::Closed => {
                let mut ends = results.window_ends.clone();
                ends.dedup();
                metrics.rollup.windows_closed.get_or_create(&labels).inc_by(ends.len() as u64);
                false
            }
        };
        self.tell(Event::Rows { table: table.name.clone(), rows: results.rows.clone(), is_correction });
        self.outputs.write(RollupRows {
            table,
            rows: results.rows,
            withdrawn: results.withdrawn,
            partition,
            offset,
        })
    }

    fn tell(&self, event: Event) {
        if let Some(events) = &self.events {
            // Nobody may be listening, which is fine.
            let _ = events.send(event);
        }
    }

    /// Drops what has not been written, of all partitions.
    pub(super) fn abandon(&mut self) {
        self.partitions.clear();
        self.rebuilds.abandon();
        self.context.board.partitions_released();
        self.outputs.abandon();
    }
}

impl Share for RollupShare {
    fn assigned(&mut self, partitions: &[Assigned]) -> Result<Vec<Option<i64>>> {
        let states = if partitions.is_empty() { States::default() } else { States::read(&self.context)? };
        for assigned in partitions {
            assigned.check_offset()?;
            let mut partition = self.load(assigned)?;
            let deciders = deciders_of(&self.context, &partition.threshold);
            partition.replay = states.of(assigned.partition, partition.next, assigned.log.1, &deciders);
            partition.compared = states.compared(assigned.partition, assigned.log.1);
            if partition.replay.is_none() {
                partition.compared.deciders = deciders;
            }
            self.partitions.insert(assigned.partition, partition);
        }
        self.context.readiness.ready("rollup");
        Ok(partitions.iter().map(|assigned| Some(assigned.offset?.max(assigned.log.0))).collect())
    }

    /// Whatever is written now could overwrite newer results of another owner.
    fn lost(&mut self) -> Result<()> {
        self.abandon();
        Err(Error::Interrupted("the group has given the partitions to another member"))
    }

    /// Results under way are settled before another owner can write newer ones.
    fn revoked(&mut self, partitions: &[Source], _: Membership<'_>) -> Result<Commit> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let finished = self.finish();
        for (_, partition) in partitions {
            self.partitions.remove(partition);
        }
        self.rebuilds.keep(&self.partitions);
        self.report();
        match finished {
            Ok((commit, Finished::Whole)) => Ok(commit),
            Ok((_, Finished::InPart)) => {
                Err(Error::Interrupted("the sink did not acknowledge the rows in time"))
            }
            Err(error) => {
                self.abandon();
                Err(error)
            }
        }
    }
}

/// Results as rules see them.
pub(crate) fn window_rows(results: &[Results]) -> Vec<WindowRows<'_>> {
    let rows = results.iter().map(|results| WindowRows {
        rollup: &results.rollup.name,
        tier: &results.tier().name,
        rows: &results.rows,
        window_ends: &results.window_ends,
        corrected: results.kind == ResultKind::Corrected,
        withdrawn: results.withdrawn.as_ref(),
    });
    rows.collect()
}
