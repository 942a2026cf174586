//! Results to the sinks, in the order in which the fold gave them out, within a bound.
//!
//! A task of its own writes, so that the consumer's thread never waits for a sink: when the queue is full, the
//! thread pauses its partitions and keeps polling. A checkpoint travels through the same queue, so everything
//! before it is written first; then the sinks flush, then the snapshots are stored.

use std::sync::Arc;

use sinks::{RollupRows, Sink};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::task::JoinHandle;

use super::announce::Announcer;
use super::snapshots::Snapshots;
use crate::error::{Error, Result};
use crate::roles::Context;
use crate::telemetry::{ErrorLabels, SinkLabels, TierLabels};

/// Result batches between the fold and the sink.
const QUEUE: usize = 64;

/// One partition's part of a checkpoint: the state as of an offset.
#[derive(Debug)]
pub(super) struct PartitionState {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) state: Vec<u8>,
}

enum Output {
    Rows(RollupRows),
    Checkpoint(Vec<PartitionState>),
}

/// The sink that rollups go to.
pub(super) struct RollupSink {
    pub(super) name: &'static str,
    pub(super) sink: Arc<dyn Sink<RollupRows>>,
}

pub(super) struct Outputs {
    queue: mpsc::Sender<Output>,
    durable: mpsc::UnboundedReceiver<Vec<(i32, i64)>>,
    /// None after its end was looked at.
    task: Option<JoinHandle<Result<()>>>,
    context: Context,
    under_way: bool,
}

impl Outputs {
    pub(super) fn start(
        context: &Context,
        sink: RollupSink,
        snapshots: Snapshots,
        announcer: Arc<Announcer>,
    ) -> Self {
        let (queue, incoming) = mpsc::channel(QUEUE);
        let (report, durable) = mpsc::unbounded_channel();
        let writer = Writer { context: context.clone(), sink, snapshots, announcer, report };
        let task = context.runtime.spawn(writer.run(incoming));
        Self { queue, durable, task: Some(task), context: context.clone(), under_way: false }
    }

    /// Whether there is room for the results of one more message of `tables` tiers of rollups.
    pub(super) fn has_room(&self, tables: usize) -> bool {
        // A message gives out at most a correction and a closing for each.
        self.queue.capacity() >= (2 * tables).clamp(1, QUEUE)
    }

    /// Whether nothing waits for the sink.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.capacity() == QUEUE
    }

    pub(super) fn write(&self, rows: RollupRows) -> Result<()> {
        self.put(Output::Rows(rows))
    }

    /// Stores states once everything before is durable. One checkpoint is under way at a time.
    pub(super) fn checkpoint(&mut self, states: Vec<PartitionState>) -> Result<()> {
        self.under_way = true;
        self.put(Output::Checkpoint(states))
    }

    pub(super) fn is_checkpointing(&self) -> bool {
        self.under_way
    }

    /// Offsets whose checkpoint has become durable since the last call.
    pub(super) fn durable(&mut self) -> Result<Option<Vec<(i32, i64)>>> {
        match self.durable.try_recv() {
            Ok(offsets) => {
                self.under_way = false;
                Ok(Some(offsets))
            }
            Err(mpsc::error::TryRecvError::Empty) => Ok(None),
            Err(mpsc::error::TryRecvError::Disconnected) => Err(self.failure()),
        }
    }

    /// Waits for the checkpoint under way, or gives up after `patience`.
    pub(super) fn settle(&mut self, patience: std::time::Duration) -> Result<Option<Vec<(i32, i64)>>> {
        if !self.under_way {
            return Ok(None);
        }
        let waited = {
            let durable = &mut self.durable;
            self.context.runtime.block_on(async { tokio::time::timeout(patience, durable.recv()).await })
        };
        match waited {
            Ok(Some(offsets)) => {
                self.under_way = false;
                Ok(Some(offsets))
            }
            Ok(None) => Err(self.failure()),
            Err(_) => {
                Err(Error::Stopped("the sink did not answer in time, so its partitions were given up; it"))
            }
        }
    }

    fn put(&self, output: Output) -> Result<()> {
        match self.queue.try_send(output) {
            Ok(()) => Ok(()),
            // The caller asked for room; a message with more results than that waits here, which is rare
            // and bounded by the sink.
            Err(TrySendError::Full(output)) => self
                .context
                .runtime
                .block_on(self.queue.send(output))
                .map_err(|_| Error::Stopped("the sink's task")),
            Err(TrySendError::Closed(_)) => Err(Error::Stopped("the sink's task")),
        }
    }

    /// Why the task ended.
    fn failure(&mut self) -> Error {
        self.under_way = false;
        let ended = self.task.take().map(|task| self.context.runtime.block_on(task));
        match ended {
            Some(Ok(Err(error))) => error,
            _ => Error::Stopped("the sink's task"),
        }
    }

    /// Drops what is queued and ends the requests under way: someone else may own the partitions by now, and
    /// must not be overwritten. What InfluxDB has already received cannot be called back.
    pub(super) fn abandon(&mut self) {
        self.under_way = false;
        if let Some(task) = self.task.take() {
            task.abort();
            // The sink ends with the task, and its requests with the sink.
            let _ = self.context.runtime.block_on(task);
        }
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

struct Writer {
    context: Context,
    sink: RollupSink,
    snapshots: Snapshots,
    announcer: Arc<Announcer>,
    report: mpsc::UnboundedSender<Vec<(i32, i64)>>,
}

impl Writer {
    async fn run(self, mut incoming: mpsc::Receiver<Output>) -> Result<()> {
        while let Some(output) = incoming.recv().await {
            let done = match output {
                Output::Rows(rows) => self.write(rows).await,
                Output::Checkpoint(states) => self.checkpoint(states).await,
            };
            if let Err(error) = done {
                let labels = ErrorLabels { sink: self.sink.name, kind: "write" };
                self.context.metrics.sink.errors.get_or_create(&labels).inc();
                return Err(error);
            }
        }
        Ok(())
    }

    async fn write(&self, rows: RollupRows) -> Result<()> {
        let started = self.context.clock.monotonic();
        let labels = TierLabels { rollup: rows.table.rollup.clone(), tier: rows.table.tier.clone() };
        let count = rows.rows.num_rows() as u64;
        self.sink.sink.write(rows).await?;
        self.context.metrics.rollup.rows_written.get_or_create(&labels).inc_by(count);
        let took = self.context.clock.monotonic().saturating_sub(started);
        let labels = SinkLabels { sink: self.sink.name };
        self.context.metrics.sink.write_seconds.get_or_create(&labels).observe(took.as_secs_f64());
        Ok(())
    }

    async fn checkpoint(&self, states: Vec<PartitionState>) -> Result<()> {
        let started = self.context.clock.monotonic();
        self.sink.sink.flush().await?;
        let announcer = Arc::clone(&self.announcer);
        tokio::task::spawn_blocking(move || announcer.flush())
            .await
            .map_err(|_| Error::Stopped("the announcer"))??;
        let mut offsets = Vec::new();
        for state in states {
            self.snapshots.put(state.partition, state.offset, state.state).await?;
            offsets.push((state.partition, state.offset));
        }
        let metrics = &self.context.metrics.rollup;
        metrics.checkpoints.inc();
        let took = self.context.clock.monotonic().saturating_sub(started);
        metrics.checkpoint_seconds.observe(took.as_secs_f64());
        // A receiver that is gone has given its partitions up.
        let _ = self.report.send(offsets);
        Ok(())
    }
}
