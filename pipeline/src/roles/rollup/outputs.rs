//! Results to the sinks, in the order in which the fold gave them out, within a bound.
//!
//! A task of its own writes, so that the consumer's thread never waits for a sink: when the queue
//! is full, in batches or in bytes, the thread pauses its partitions and keeps polling. A
//! checkpoint travels through the same queue, so everything before it is written first; then the
//! sinks flush, then the snapshots are stored.
//!
//! States are encoded on a thread of their own, as soon as a checkpoint is made: the fold goes on,
//! and what waits in the queue is compressed and holds no batch of the fold.
//!
//! Storage that is full, read-only or away is tried again until it takes what it is given.
//! Meanwhile `/readyz` shows it, the queue fills up, and the log waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use operators::fold::Captured;
use operators::threshold::CapturedAlerts;
use sinks::{RollupRows, Sink};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::announce::Announcer;
use crate::error::{Error, Result};
use crate::memory::Part;
use crate::roles::context::Context;
use crate::storage::Snapshots;
use crate::telemetry::{ErrorLabels, SinkLabels, TierLabels};

/// Result batches between the fold and the sink; a message may add a few beyond them.
const QUEUE: usize = 64;
/// Rows that a sink is given at once: it makes text of all of them before it sends the first.
const ROWS: usize = 16_384;
/// Longest pause between two tries to store something.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// One partition's part of a checkpoint: the state as of an offset.
#[derive(Debug)]
pub(super) struct PartitionState {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) state: Captured,
    pub(super) alerts: CapturedAlerts,
}

/// The same, encoded.
struct Snapshot {
    partition: i32,
    offset: i64,
    bytes: Vec<u8>,
}

/// What became of a checkpoint.
pub(super) enum Settled {
    /// None was under way.
    Nothing,
    /// It is durable as of these offsets.
    Durable(Vec<(i32, i64)>),
    /// The sink or storage took too long.
    Unanswered,
}

enum Output {
    Rows(RollupRows),
    Checkpoint(JoinHandle<Result<Vec<Snapshot>>>),
}

/// What is in the queue, until it is written.
#[derive(Default)]
struct Queued {
    batches: AtomicUsize,
    bytes: AtomicUsize,
}

/// The sink that rollups go to.
pub(super) struct RollupSink {
    pub(super) name: &'static str,
    pub(super) sink: Arc<dyn Sink<RollupRows>>,
}

pub(super) struct Outputs {
    queue: mpsc::UnboundedSender<Output>,
    queued: Arc<Queued>,
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
        let (queue, incoming) = mpsc::unbounded_channel();
        let (report, durable) = mpsc::unbounded_channel();
        let queued = Arc::new(Queued::default());
        let writer = Writer {
            context: context.clone(),
            sink,
            snapshots,
            announcer,
            report,
            queued: Arc::clone(&queued),
        };
        let task = context.runtime.spawn(writer.run(incoming));
        Self { queue, queued, durable, task: Some(task), context: context.clone(), under_way: false }
    }

    /// Batches that wait.
    pub(super) fn queued(&self) -> usize {
        self.queued.batches.load(Ordering::Relaxed)
    }

    /// Whether there is room for the results of one more message. Those of one message are always
    /// taken: they are bounded by the state that they are made of.
    pub(super) fn has_room(&self) -> bool {
        self.queued.batches.load(Ordering::Relaxed) < QUEUE
            && self.queued_bytes() < self.context.shares.get(Part::Results)
    }

    /// Memory of the results that are not written yet.
    pub(super) fn queued_bytes(&self) -> usize {
        self.queued.bytes.load(Ordering::Relaxed)
    }

    /// Whether nothing waits for the sink.
    pub(super) fn is_idle(&self) -> bool {
        self.queued() == 0
    }

    pub(super) fn write(&self, rows: RollupRows) -> Result<()> {
        self.queued.batches.fetch_add(1, Ordering::Relaxed);
        self.queued.bytes.fetch_add(memory_of(&rows), Ordering::Relaxed);
        self.put(Output::Rows(rows))
    }

    /// Stores states once everything before is durable, when [`Outputs::takes_checkpoint`].
    pub(super) fn checkpoint(&mut self, states: Vec<PartitionState>) -> Result<()> {
        self.under_way = true;
        self.context.metrics.memory.hold("snapshots", states.iter().map(|state| state.alerts.bytes()).sum());
        let encode = move || {
            let encoded = states.into_iter().map(|state| {
                let bytes = state.state.encode(state.alerts.into_json())?;
                Ok(Snapshot { partition: state.partition, offset: state.offset, bytes })
            });
            encoded.collect()
        };
        self.put(Output::Checkpoint(self.context.runtime.spawn_blocking(encode)))
    }

    /// One checkpoint is under way at a time.
    pub(super) fn takes_checkpoint(&self) -> bool {
        !self.under_way
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
    pub(super) fn settle(&mut self, patience: Duration) -> Result<Settled> {
        if !self.under_way {
            return Ok(Settled::Nothing);
        }
        let waited = {
            let durable = &mut self.durable;
            self.context.runtime.block_on(async { tokio::time::timeout(patience, durable.recv()).await })
        };
        match waited {
            Ok(Some(offsets)) => {
                self.under_way = false;
                Ok(Settled::Durable(offsets))
            }
            Ok(None) => Err(self.failure()),
            Err(_) => Ok(Settled::Unanswered),
        }
    }

    fn put(&self, output: Output) -> Result<()> {
        self.queue.send(output).map_err(|_| Error::Interrupted("the sink's task ended early"))
    }

    /// Why the task ended.
    fn failure(&mut self) -> Error {
        self.under_way = false;
        let ended = self.task.take().map(|task| self.context.runtime.block_on(task));
        match ended {
            Some(Ok(Err(error))) => error,
            _ => Error::Interrupted("the sink's task ended early"),
        }
    }

    /// Drops what is queued and ends the requests under way: someone else may own the partitions by
    /// now, and must not be overwritten. What InfluxDB has already received cannot be called back.
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
    queued: Arc<Queued>,
}

impl Writer {
    async fn run(self, mut incoming: mpsc::UnboundedReceiver<Output>) -> Result<()> {
        while let Some(output) = incoming.recv().await {
            let done = match output {
                Output::Rows(rows) => self.write(rows).await,
                Output::Checkpoint(encoding) => self.checkpoint(encoding).await,
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
        let (count, bytes) = (rows.rows.num_rows(), memory_of(&rows));
        for from in (0..count.max(1)).step_by(ROWS) {
            let part = RollupRows {
                rows: rows.rows.slice(from, ROWS.min(count - from)),
                // Before the first of the rows that replace them.
                withdrawn: rows.withdrawn.clone().filter(|_| from == 0),
                ..rows.clone()
            };
            self.patiently("results", || self.sink.sink.write(part.clone())).await?;
        }
        self.queued.batches.fetch_sub(1, Ordering::Relaxed);
        self.queued.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.context.metrics.rollup.rows_written.get_or_create(&labels).inc_by(count as u64);
        let took = self.context.clock.monotonic().saturating_sub(started);
        let labels = SinkLabels { sink: self.sink.name };
        self.context.metrics.sink.write_seconds.get_or_create(&labels).observe(took.as_secs_f64());
        Ok(())
    }

    async fn checkpoint(&self, encoding: JoinHandle<Result<Vec<Snapshot>>>) -> Result<()> {
        let started = self.context.clock.monotonic();
        self.context.board.checkpoint_started();
        self.patiently("results", || self.sink.sink.flush()).await?;
        let announcer = Arc::clone(&self.announcer);
        tokio::task::spawn_blocking(move || announcer.flush())
            .await
            .map_err(|_| Error::Interrupted("the announcer ended early"))??;
        let mut offsets = Vec::new();
        let snapshots =
            encoding.await.map_err(|_| Error::Interrupted("the encoder of snapshots ended early"))??;
        let bytes = snapshots.iter().map(|snapshot| snapshot.bytes.len()).sum();
        self.context.metrics.memory.hold("snapshots", bytes);
        for Snapshot { partition, offset, bytes } in snapshots {
            let bytes = Bytes::from(bytes);
            self.patiently("a snapshot", || self.snapshots.put(partition, offset, bytes.clone())).await?;
            offsets.push((partition, offset));
        }
        self.context.board.checkpoint_durable();
        self.context.metrics.memory.hold("snapshots", 0);
        let metrics = &self.context.metrics.rollup;
        metrics.checkpoints.inc();
        let took = self.context.clock.monotonic().saturating_sub(started);
        metrics.checkpoint_seconds.observe(took.as_secs_f64());
        // A receiver that is gone has given its partitions up.
        let _ = self.report.send(offsets);
        Ok(())
    }

    /// Tries again while the storage does not take `what`: nothing is dropped, and nothing after it
    /// is written.
    async fn patiently<E: Into<Error>, F: Future<Output = Result<(), E>>>(
        &self,
        what: &'static str,
        attempt: impl FnMut() -> F,
    ) -> Result<()> {
        let mut attempt = attempt;
        let mut pauses = ExponentialBuilder::default()
            .with_jitter()
            .with_max_delay(LONGEST_PAUSE)
            .without_max_times()
            .build();
        let mut failed = false;
        loop {
            let error = match attempt().await.map_err(Into::into) {
                Ok(()) => break,
                Err(error @ Error::Sink(sinks::Error::Store(_))) => error,
                Err(error) => return Err(error),
            };
            let storage = self.context.config.storage.url.as_str();
            let reason = chain(&error);
            let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
            if failed {
                tracing::warn!(storage, what, reason, ?pause, "still not stored");
            } else {
                tracing::error!(
                    storage,
                    what,
                    reason,
                    ?pause,
                    "the storage takes nothing: make room, or let it be written; the log waits and nothing is lost"
                );
            }
            self.context.board.storage_trouble(Some(format!("{what}: {reason}")));
            self.context
                .readiness
                .waiting("storage", format!("{what} cannot be stored in {storage}: {reason}"));
            failed = true;
            tokio::time::sleep(pause).await;
        }
        if failed {
            tracing::info!(what, "stored after all");
            self.context.board.storage_trouble(None);
            self.context.readiness.ready("storage");
        }
        Ok(())
    }
}

/// Memory that rows keep alive.
fn memory_of(rows: &RollupRows) -> usize {
    let batches = rows.withdrawn.iter().chain([&rows.rows]);
    batches.map(RecordBatch::get_array_memory_size).sum()
}

/// An error and what it came from, down to the operating system's words.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = error.source();
    }
    text
}
